"""The C library's allocator, told to keep what a stream of large messages frees. Does nothing without glibc."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Larger than any message: otherwise each is mapped anew and every page of it is faulted in, a third of the system time
# of an upload.
_MMAP_BYTES = 32 << 20
# How much freed memory is kept.
_TRIM_BYTES = 128 << 20
# A thread's own arena grows and shrinks with each message that it has: two thirds of the page faults of an upload that
# were left. Large buffers are few, and small ones have a cache of each thread's own before the arena.
_ARENAS = 1


def keep_freed_memory() -> None:
    """Raise the sizes from which memory is mapped one by one and given back at once; have all threads share it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_ARENA_MAX, _ARENAS)
