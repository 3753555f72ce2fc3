"""Packs: append-only files of records, and where they are kept. All of it blocks: call it from worker threads.

Glossary:
    record     a header of 64 bytes, a payload, padding to 8 bytes
    location   where a record is: pack, offset, lengths
    durable    on the disk, whatever happens to the machine
    seal       write the index of a pack's records and a trailer; nothing is appended after it

Modules:
    format      bytes to headers and back. Pure
    storage     the interface that keeps packs
    local       packs in a directory
    disk        the calls that change it
    descriptors its open files, kept for the next reader
    memory      packs in memory, for tests
    writer      one open pack
    reader      records by location, verified; scanning a pack
    recovery    sealing what a crash left open
    salvage     walking through a pack of which parts are damaged
    verify      looking for damage, past the first that is found
"""
