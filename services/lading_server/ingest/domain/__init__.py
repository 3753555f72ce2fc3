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
"""
