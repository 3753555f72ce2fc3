"""How much a cache may hold, and what goes first. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# File systems give space in blocks of this size, and an entry has a name and an inode too.
BLOCK_BYTES = 4096

# What is made room for at once: a pass is not worth its while for one file.
_KEEP_NUMERATOR, _KEEP_DENOMINATOR = 9, 10
# Of the file system, for everybody else: a twentieth, and no more than this.
_RESERVE_SHARE = 20
_RESERVE_AT_MOST_BYTES = 10 << 30


class Entry(NamedTuple):
    """One entry as a scan finds it: its name, the space that it takes, and when it was last used (since 1970)."""

    name: str
    size_bytes: int
    used_ns: int


def space_of(size_bytes: int) -> int:
    """Return what a file of this size takes on disk."""
    return max(1, -(-size_bytes // BLOCK_BYTES)) * BLOCK_BYTES


def reserve_bytes(file_system_bytes: int) -> int:
    """Return how much of a file system the cache leaves free."""
    return min(file_system_bytes // _RESERVE_SHARE, _RESERVE_AT_MOST_BYTES)


def allowed_bytes(limit_bytes: int, used_bytes: int, free_bytes: int, reserved_bytes: int) -> int:
    """Return how much the cache may hold now: its limit, or less where the disk is nearly full.

    Args:
        limit_bytes: What it may hold at most.
        used_bytes: What it holds.
        free_bytes: What is free on the file system.
        reserved_bytes: What has to stay free.
    """
    return max(0, min(limit_bytes, used_bytes + free_bytes - reserved_bytes))


def kept_bytes(allowed: int) -> int:
    """Return to how much a cache is brought down that holds more than it may."""
    return allowed * _KEEP_NUMERATOR // _KEEP_DENOMINATOR


def victims(entries: Sequence[Entry], keep_bytes: int) -> list[Entry]:
    """Return the entries that have to go for the others to take `keep_bytes` at most: the least recently used."""
    too_many_bytes = sum([entry.size_bytes for entry in entries]) - keep_bytes
    chosen: list[Entry] = []
    # By name where times are equal, so that all processes choose the same.
    for entry in sorted(entries, key=lambda entry: (entry.used_ns, entry.name)):
        if too_many_bytes <= 0:
            break
        chosen.append(entry)
        too_many_bytes -= entry.size_bytes
    return chosen
