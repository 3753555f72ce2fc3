"""The service that knows bytes. It knows no names, and reads nothing of the registry's.

Modules:
    component     ingest as a part of a server
    local_pins    what the registry asks, in the same process
    registry_keys the registry at the end of a channel
    service       the methods of IngestService and PinService: no rules
    domain        the rules: no gRPC
    index         rows in SQL
    packs         the pack format and its storage: blocking
"""
