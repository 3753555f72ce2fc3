"""Keeps what was uploaded, where that copies nothing: for another job on this machine that uses it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from itertools import islice

from lading._cache.local import LocalCache
from lading._cache.transfer import Transfer
from lading._local_files import LocalFile
from lading._model import EntryKind, ListedEntry
from lading_format.digest import format_digest, parse_digest
from lading_format.tree import FileEntry, ReferenceEntry

# Of a smaller one, the new entry costs more than fetching it.
KEPT_FROM_BYTES = 1 << 20
_ENTRIES_PER_PAGE = 1_000

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def keep_uploaded(
    cache: LocalCache,
    files: Sequence[tuple[LocalFile, bytes]],
    entries: Iterable[FileEntry | ReferenceEntry],
    tree_digest: str,
    stop: threading.Event,
) -> None:
    """Keep clones of large files, and the listing if there was one. Does nothing where the file system cannot clone.

    Args:
        cache: Where to.
        files: What was uploaded and has KEPT_FROM_BYTES or more, and the digests that were found.
        entries: The tree of them.
        tree_digest: Its digest.
        stop: Set when nobody waits any more.
    """
    transfer = cache.transfer(stop)
    if transfer is None:
        return
    with transfer:
        kept = [digest for file, digest in files if transfer.can_clone and _keep_one(transfer, file, digest)]
        if not kept:
            return
        tree = transfer.new_tree(parse_digest(tree_digest))
        try:
            every = iter(entries)
            while page := [_listed(entry) for entry in islice(every, _ENTRIES_PER_PAGE)]:
                tree.add(page)
            tree.finish()
        finally:
            tree.close()


def _keep_one(transfer: Transfer, file: LocalFile, digest: bytes) -> bool:
    try:
        fd = os.open(file.location, _READ_FLAGS)
    except OSError:
        return False  # it went away after it was uploaded
    try:
        # A change that is not seen here is found by who takes the entry: it is hashed then.
        return file.is_still(os.fstat(fd)) and transfer.keep_clone(digest, fd, file.size_bytes)
    finally:
        os.close(fd)


def _listed(entry: FileEntry | ReferenceEntry) -> ListedEntry:
    if isinstance(entry, FileEntry):
        digest = format_digest(entry.digest)
        return ListedEntry(entry.path, EntryKind.FILE, digest, entry.size_bytes, entry.executable)
    return ListedEntry(
        entry.path, EntryKind.REFERENCE, size_bytes=entry.size_bytes, uri=entry.uri, checksum=entry.checksum
    )
