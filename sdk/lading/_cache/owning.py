"""Makes a borrowed entry one of the cache's own: by a copy that nobody can change, hashed on its way."""

from __future__ import annotations

import errno
import os

from lading._cache.blocks import Blocks, Cloning
from lading._cache.space import space_of
from lading._cache.store import BORROWED_SUFFIX, Store


def make_own(store: Store, cloning: Cloning, blocks: Blocks, name: str, borrowed_fd: int, size_bytes: int) -> bool:
    """Put a copy of a borrowed entry in its place; return False, with nothing changed, where it is wrong.

    Args:
        store: The entry's.
        cloning: What is known of whether files can share their blocks.
        blocks: Moves the bytes.
        name: The blob's.
        borrowed_fd: The entry, open for reading.
        size_bytes: Its size.

    Raises:
        Unreadable: The entry cannot be read.
        OSError: There is no room for a copy, or it cannot be written.
    """
    free_bytes, reserved_bytes = store.free_bytes()
    if free_bytes - space_of(size_bytes) < reserved_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), store.path)
    fd, new_name = store.create()
    try:
        if fill_hashed(cloning, blocks, borrowed_fd, fd, size_bytes).hex() != name:
            store.discard(new_name)
            return False
        store.enter(fd, new_name, name)
    except BaseException:
        store.discard(new_name)
        raise
    finally:
        os.close(fd)
    store.drop(name + BORROWED_SUFFIX)
    return True


def fill_hashed(cloning: Cloning, blocks: Blocks, source_fd: int, fd: int, size_bytes: int) -> bytes:
    """Fill a file that nobody else has from one that somebody may be writing to; return the digest of what it has now.

    Raises as Blocks.copy does.
    """
    if cloning.clone(source_fd, fd):
        return blocks.digest(fd, size_bytes)
    return blocks.copy(source_fd, fd, size_bytes)
