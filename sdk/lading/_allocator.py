"""The C library's allocator, which learns from what is freed that large buffers come again. Nothing without glibc."""

from __future__ import annotations

# A message with what frames it, and no more: each thread's arena keeps twice this of what is free, and gRPC has a
# thread for each of up to sixteen processors. With 9 MiB, a download on a machine of 32 held 257 MB; so it holds 145.
_LESSON_BYTES = (8 << 20) + (256 << 10)


def keep_freed_memory() -> None:
    """Let buffers of some megabytes be taken from what was freed before, instead of being mapped anew each time.

    glibc maps a large buffer, and the kernel fills in every page of it at its first use: of an upload of files of
    300 KB that was a tenth of all processor time. Once such a buffer was freed, glibc keeps ones up to that size, and
    twice as much of what is free. Programs that use arrays have taught it so already; `mallopt`, which would do the
    same, is for the program to call and not for a library. Takes microseconds: no page of it is touched.
    """
    bytes(_LESSON_BYTES)
