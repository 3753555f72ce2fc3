"""The C library's allocator, which learns from what is freed that large buffers come again. Nothing without glibc."""

from __future__ import annotations

# Somewhat more than a segment in which a large file is read.
_LESSON_BYTES = 9 << 20


def keep_freed_memory() -> None:
    """Let buffers of some megabytes be taken from what was freed before, instead of being mapped anew each time.

    glibc maps a large buffer, and the kernel fills in every page of it at its first use: of an upload of files of
    300 KB that was a tenth of all processor time. Once such a buffer was freed, glibc keeps ones up to that size, and
    twice as much of what is free. Programs that use arrays have taught it so already; `mallopt`, which would do the
    same, is for the program to call and not for a library. Takes microseconds: no page of it is touched.
    """
    bytearray(_LESSON_BYTES)
