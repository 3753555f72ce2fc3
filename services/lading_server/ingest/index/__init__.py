"""The index: what ingest has, and where it lies. Knows no pack files, no gRPC, and nothing of what a batch means.

The index can be rebuilt from the packs alone; what is written here is acknowledged only after its bytes are durable.

Glossary:
    live: a pack that is open or sealed; a blob or tree that is not condemned. Everything else is not found.
    generation: grows with every new reference to a row, so that a collector that read it before gives up.
    hold: a session's claim on a pack, until the session ends.
    batch: rows that become true together. group: batches that share a transaction.
    pin: the promise that a tree stays whole; released, it is a tombstone.
    refs: a list of chunks, packed into 36 bytes each.

Modules:
    schema    the tables; migrations/ makes them
    rows      what goes in and what comes out
    sql       SQL for thousands of rows at once, on either database
    entities  names of tenants and their numbers
    packs, chunks, sessions, blobs, trees, uploads
              one class for each subject: questions, and changes that stand alone
    digests   many digests in little memory, sorted
    holdings  which packs hold what a tree is made of
    pins      acquiring a pin in one transaction, releasing it, listing pins
    usage     how many bytes each entity stores
    charges   what a group adds to that, and what is too much
    recorder  group commit: many batches in one transaction
    group, statements
              the writes of one such transaction, in their order
    store     opens it all
"""
