"""The service that knows names. It knows no bytes, and reads nothing of ingest's.

Modules:
    component   the registry as a part of a server
    ingest_pins ingest at the end of a channel
    service     the methods of RegistryService and AccessService: no rules
    domain      the rules: no gRPC
    store       rows in SQL
"""
