"""What SDK and server must agree on to the byte. Pure: no I/O but what a caller passes in, no gRPC, no clock.

Glossary:
    digest     BLAKE3-256; as text `b3:` and 64 hexadecimal digits
    path       a name in a tree, by the rules of `paths`
    listing    the lines that a tree's digest is the digest of
    chunk      up to 2 MiB of a file's bytes
    border     an offset at which a file is cut whatever is around it: where a tensor begins
    reference  how a version is written: `entity/project/name:alias`

Modules:
    errors     what can be wrong, with the reason that both sides know
    digest     digests and checksums
    paths      what a path may be, and which paths do not go together
    names      what entities, projects, collections, aliases and the like may be called
    references how a version is written, and what that means
    audit      the chain of an entity's events
    tree       entries, their lines, and a tree's digest
    varints    protobuf's integers, for messages that are read and written by hand
    chunking   where a file is cut
    borders    where the tensors of a checkpoint begin
    local_server where a server leaves word of itself for the shells of its user
"""
