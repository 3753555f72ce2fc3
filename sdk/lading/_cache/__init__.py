"""The local cache: files that this machine has had, by their digests, so that nobody fetches them twice.

Glossary:
    entry      a blob's bytes, or a tree's listing, under its digest
    borrowed   of an entry: a second name of a file that a download wrote, whose user may change it at any time
    own        of an entry: no user's file, but for read-only hard links that were asked for
    store      the directory of entries: `content-1` below `LADING_CACHE_DIR`, in 256 shards by the first byte
    used       when an entry was last taken: its access time, set by us and true to the hour; if borrowed, not by us
    tally      about how many bytes the store holds, kept by all processes together
    pass       one look for what is to go, over so many entries at most

Modules:
    settings   where the cache is and how large it may be, from the environment
    space      how much there is room for, and which entries go first. Pure
    blocks     bytes from file to file: cloned, or copied and hashed on the way
    store      the directory: opens, enters, drops and lists entries
    tally      the file of the tally
    eviction   passes
    filling    puts entries in, as far as there is room
    owning     makes borrowed entries own ones
    taking     takes blobs out, to the places of a tree
    listings   trees: the form of a listing on disk
    transfer   all of that for one upload or download
    uploaded   keeps what was uploaded, where that copies nothing
    local      `LocalCache`, what people see: told, pruned, verified

Nothing in it is believed: whatever is taken out is hashed on its way, so what is wrong with the cache costs time, never
a file. Processes share it without locks: an entry gets its name by a rename when it is whole, and one that is gone is
fetched. Blocks: for worker threads. Nothing stays open between transfers, so a fork inherits nothing.
docs/decisions/0007-local-cache.md has the reasons.
"""
