"""The wire side of ingest: thin servicer methods, and one module that turns messages into domain objects and back.

Modules:
    convert     messages ↔ domain objects, in both directions, and nothing else
    bulk_wire   the two messages that carry content, without copies of it; bulk serves them
    check       the methods of CheckService
    maintenance the methods of MaintenanceService
    flow        reading one item ahead
    put_chunks  the two halves of a PutChunks stream: reading and acknowledging
    pins        the methods of PinService
    servicer    the methods of IngestService
"""
