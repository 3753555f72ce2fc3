"""kill -9 of each service and of the client, and what may be true afterwards.

Modules:
    oracle   what one task of the client did to its names: what must be so, and what may be. Pure
    journal  what the client was about to ask and what was acknowledged, on disk and synced
    client   the client: a process that can be killed
    settled  the services after a restart, held against the oracle, down to the last byte on the disk
"""
