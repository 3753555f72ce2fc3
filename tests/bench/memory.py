"""Memory that costs the same for everybody who is measured.

A virtual machine that gives what is free back to its host waits for every page that it takes again: 1 GiB into the page
cache took 2.3 s here where memory had been free for some seconds, and 0.2 s where it had just become free. Which of the
two a measurement met was chance, and the chance was larger than what was measured. So all memory is kept in use, and
some of it is freed right before something is measured.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What is left for those who are measured, and for the pages of their files.
_LEFT_BYTES = 8 << 30
# Freed right before: more than one contender takes. The machine leaves it alone for two seconds.
_FREED_BYTES = 3 << 30
_BLOCK = bytes(4 << 20)
# The kernel keeps some free.
_FREE_BYTES = 1 << 30
_FILL_SECONDS = 5.0


class UsedMemory:
    """Memory that is full of what nobody needs: each page that is wanted is one that was in use. See `used_memory`."""

    def __init__(self, filler: Path) -> None:
        self._filler = filler

    def settle(self, source: Path | None = None) -> None:
        """Let nothing that was done before be paid for by what is measured next.

        Everything dirty is written, the files below `source` are in the page cache, and what memory is free was in use
        a moment ago.
        """
        os.sync()
        self._fill()
        if source is not None:
            # Twice, so that it is not what has to make room.
            for path in [*source.rglob("*")] * 2:
                if path.is_file():
                    _read(path)
        descriptor = os.open(self._filler, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, _FREED_BYTES, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def _fill(self) -> None:
        # By the processor, and not by readahead alone: what only the disk wrote to is still not the machine's own.
        _read(self._filler)
        until = time.monotonic() + _FILL_SECONDS
        while _memory("MemFree") > _FREE_BYTES:
            if time.monotonic() > until:
                print(f"{_memory('MemFree') >> 20} MiB of memory are free: what is measured may vary", file=sys.stderr)
                return
            time.sleep(0.1)


@contextmanager
def used_memory(directory: Path) -> Iterator[UsedMemory]:
    """Take all memory but 8 GiB, fill those with the pages of a file, and give all of it back in the end.

    The file lies in `directory` and has 8 GiB; there have to be some more on the disk.
    """
    filler = directory / "filler"
    held = _held(max(0, _memory("MemAvailable") - _LEFT_BYTES))
    try:
        with filler.open("wb", buffering=0) as file:
            for _ in range(0, _LEFT_BYTES, len(_BLOCK)):
                file.write(_BLOCK)
        yield UsedMemory(filler)
    finally:
        filler.unlink(missing_ok=True)
        held.close()


def _held(size_bytes: int) -> mmap.mmap:
    """Take so much memory, or a little more."""
    count = size_bytes // len(_BLOCK) + 1
    memory = mmap.mmap(-1, count * len(_BLOCK), flags=mmap.MAP_PRIVATE)
    for _ in range(count):
        memory.write(_BLOCK)
    return memory


def _memory(name: str) -> int:
    """Return one of the bytes that the kernel tells of memory."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(f"/proc/meminfo has no {name}")


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(len(_BLOCK)):
            pass
