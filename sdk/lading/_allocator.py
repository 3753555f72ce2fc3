"""The C library's allocator, which learns from what is freed that large buffers come again. Nothing without glibc."""

from __future__ import annotations

# What surrounds a buffer in memory, and a message on the wire.
_FRAME_BYTES = 256 << 10


def keep_freed_memory(buffer_bytes: int) -> None:
    """Let buffers of some megabytes be taken from what was freed before, instead of being mapped anew each time.

    glibc maps a large buffer, and the kernel fills in every page of it at its first use: of an upload of files of
    300 KB that was a tenth of all processor time. Once such a buffer was freed, glibc keeps ones up to that size, and
    twice as much of what is free. Programs that use arrays have taught it so already; `mallopt`, which would do the
    same, is for the program to call and not for a library. Takes microseconds: no page of it is touched.

    Args:
        buffer_bytes: The largest that is to be kept. No more than needed: each thread's arena keeps twice as much of
            what is free, and where gRPC receives it has a thread for each of up to sixteen processors.
    """
    bytes(buffer_bytes + _FRAME_BYTES)
