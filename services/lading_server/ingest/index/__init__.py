"""The index: what ingest has, and where it lies. Knows no pack files, no gRPC, and nothing of what a batch means.

The index can be rebuilt from the packs alone; what is written here is acknowledged only after its bytes are durable.

Glossary:
    live: a pack that is open or sealed; a blob or tree that is whole and not condemned. Everything else is not found.
    damaged: a blob or tree of which a part was lost. What is left can be read; whoever commits does not find it.
    generation: grows with every new reference to a row, so that a collector that read it before gives up.
    hold: a session's claim on a pack, until the session ends.
    batch: rows that become true together. group: batches that share a transaction.
    pin: the promise that a tree stays whole; released, it is a tombstone.
    refs: a list of chunks, packed into 36 bytes each.
    condemned: in the trash; nobody finds it, and it can be revived until its time is over.
    doomed: what the rehearsal of a collection would condemn.

Modules:
    schema    the tables; migrations/ makes them
    rows      what goes in and what comes out
    sql       SQL for thousands of rows at once, on either database
    entities  names of tenants and their numbers
    packs, chunks, sessions, blobs, trees, uploads
              one class for each subject: questions, and changes that stand alone
    digests   many digests in little memory, sorted
    marks, mark_queries
              what a collector asks: which rows there are, and what keeps them
    condemn   into the trash, if no reference was added meanwhile; moving chunks to their copies
    trash     out of the trash, or away for good
    trashed   what of condemned content is still there
    standings the state of whatever has a digest, and what leases it
    conflicts transactions that are run again
    holdings  which packs hold what a tree is made of
    pins      acquiring a pin in one transaction, releasing it, listing pins
    usage     how many bytes each entity stores
    charges   what a group adds to that, and what is too much
    losses    rows of what is lost, and of what needs it
    checks    what a check asks
    recorder  group commit: many batches in one transaction
    group, statements
              the writes of one such transaction, in their order
    store     opens it all
"""
