"""The rules of ingest: what may be stored, when it is acknowledged, and how it is read back.

Knows neither gRPC nor generated code. Blocking work (hashing, pack files) runs in worker threads.

Glossary:
    unit: what becomes durable together: records of one pack and the index rows that name them.
    group commit: one sync of every pack involved and one transaction, for all units that wait.
    lease: the right to append to one open pack, held by one stream at a time.

Modules:
    entities     names of tenants, ids of sessions and uploads
    workers      the threads that blocking work runs in
    committer    group commit
    quotas       room for what is about to be stored
    pack_pool    open packs, a lease to each stream
    startup      recovery of what a crash left open
    records      reading records by digest, wherever they were moved to
    losses       what is lost becomes missing, so that the next upload heals it
    chunks       PutChunks: verify, append, commit
    recipes      recipes as packed references; hashing a recipe's bytes
    blobs        CommitBlobs: verify every byte, then say so
    tree_pages   the pages that a tree is stored as
    tree_writer  PutTree
    tree_reader  ListTree, DiffTrees, one path of a tree
    pins         what keeps a tree whole for the registry
    content      reading ranges of blobs
    uploads      UploadFile: the simple path
    housekeeping lapsed sessions and uploads
    collector    garbage collection, one entity at a time
    reachability what is needed
    pack_collection, compaction, meta_records
                 which packs go, copying what is needed of them, and judging META packs by reading them
    revival      out of the trash
    collection_report
                 what a collection did, or would do
    explain      who keeps content alive
    check        a check of the store: its phases, and how it goes on; check_daily starts it by itself
    check_rows, check_packs, check_bytes, check_versions
                 the phases: the index, packs, blobs and trees by their digests, and who needs what is lost
    check_findings
                 what a check tells
    reconcile    pins held against the versions that the registry keeps
    garbage      runs of the collector, one at a time: reconcile, then collect
    garbage_schedule  the runs that nobody asks for
"""
