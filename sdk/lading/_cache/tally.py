"""About how many bytes a store holds: a file to which every process appends what it added and what it removed.

An append of eight bytes is whole or not there, so nobody needs a lock. What is appended while another process writes
the file anew is lost, and so is what a process that was killed had not appended yet: the next pass counts again.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from lading._cache.store import Store
from lading._files import write_all

_NAME = "tally"
_CHANGE = struct.Struct("<q")
# A pass is due when there are more: it counts, and writes one in place of all.
_CHANGES_AT_MOST = 4096

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_APPEND_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_tally(store: Store) -> int | None:
    """Return how many bytes the store holds by this count; None where nobody has counted, or it is time to."""
    try:
        fd = os.open(_NAME, _READ_FLAGS, dir_fd=store.fd)
    except OSError:
        return None
    try:
        changes = os.read(fd, _CHANGE.size * (_CHANGES_AT_MOST + 1))
    except OSError:
        return None
    finally:
        os.close(fd)
    if not changes or len(changes) % _CHANGE.size or len(changes) > _CHANGE.size * _CHANGES_AT_MOST:
        return None
    total = sum([change for (change,) in _CHANGE.iter_unpack(changes)])
    return total if total >= 0 else None


def add_to_tally(store: Store, change_bytes: int) -> None:
    """Note that the store has more bytes, or fewer. Where nobody has counted yet, that is left to who does."""
    with suppress(OSError):
        fd = os.open(_NAME, _APPEND_FLAGS, dir_fd=store.fd)
        try:
            os.write(fd, _CHANGE.pack(change_bytes))
        finally:
            os.close(fd)


def set_tally(store: Store, total_bytes: int) -> None:
    """Say how many bytes were counted."""
    with suppress(OSError):
        fd, new_name = store.create()
        try:
            write_all(fd, _CHANGE.pack(total_bytes))
            os.rename(new_name, _NAME, src_dir_fd=store.new_fd, dst_dir_fd=store.fd)
        except BaseException:
            store.discard(new_name)
            raise
        finally:
            os.close(fd)
