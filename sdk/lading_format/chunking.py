"""Where a file is cut. The client's choice and never part of an identity: it may improve at any time.

Files up to 512 KiB are one chunk. Files whose format says where tensors begin are cut there and then every 1 MiB, so
that an unchanged layer is never sent twice, whatever moved before it. Everything else is cut by FastCDC 2020, whose
cuts depend on the bytes around them and not on where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pyfastcdc import FastCDC

from lading_format.borders import format_borders
from lading_format.digest import Buffer

__all__ = [
    "CDC_AVG_BYTES",
    "CDC_MAX_BYTES",
    "CDC_MIN_BYTES",
    "MAX_CHUNK_BYTES",
    "SMALL_FILE_BYTES",
    "TENSOR_CHUNK_BYTES",
    "FileChanged",
    "FileCutter",
    "StreamCutter",
    "format_borders",
]

# What ingest accepts, so that one chunk and what surrounds it fit a message of 4 MiB.
MAX_CHUNK_BYTES = 2 << 20
CDC_MIN_BYTES = 128 << 10
CDC_AVG_BYTES = 512 << 10
CDC_MAX_BYTES = MAX_CHUNK_BYTES
# A file that is one chunk is hashed once instead of twice, at both ends; up to here a second one would spare little
# (docs/decisions/0009-one-chunk-up-to-512-kib.md).
SMALL_FILE_BYTES = CDC_AVG_BYTES
TENSOR_CHUNK_BYTES = 1 << 20
# A rest of up to this many bytes stays with the chunk before it, instead of being a tiny one.
_TENSOR_REST_BYTES = 128 << 10


class FileChanged(Exception):
    """A file became shorter while it was read. It has no reason: whoever reads a file is the one who is told.

    Attributes:
        offset_bytes: Where it ended.
    """

    def __init__(self, message: str, offset_bytes: int) -> None:
        super().__init__(message)
        self.offset_bytes = offset_bytes


class StreamCutter:
    """Cuts bytes that come in any portions; the cuts are those of the whole.

    A chunk is a view of what was cut together with it: up to 2 MiB and a portion. Between calls, up to 2 MiB are kept.
    """

    def __init__(self) -> None:
        self._cdc = _fastcdc()
        self._kept = bytearray()
        self._was_cut = False

    def feed(self, data: Buffer) -> list[memoryview]:
        """Take the next bytes; return the chunks that are complete. `data` may be changed afterwards."""
        self._kept += data
        # With fewer, what was kept would be searched for a cut again and again.
        if len(self._kept) <= CDC_MAX_BYTES:
            return []
        return self._cut(is_all=False)

    def finish(self) -> list[memoryview]:
        """Return the chunks of what is left. What is fed afterwards is another stream."""
        was_cut, self._was_cut = self._was_cut, False
        if not was_cut and len(self._kept) <= SMALL_FILE_BYTES:
            whole, self._kept = self._kept, bytearray()
            return [memoryview(whole)] if whole else []
        return self._cut(is_all=True)

    def _cut(self, *, is_all: bool) -> list[memoryview]:
        data = bytes(self._kept)
        chunks = _cdc_chunks(self._cdc, memoryview(data), is_all=is_all)
        del self._kept[: sum(map(len, chunks))]
        self._was_cut = not is_all
        return chunks


class FileCutter:
    """Cuts a file, a buffer at a time; the cuts are those of the whole.

    Args:
        descriptor: An open file. Its position is neither used nor moved.
        size_bytes: How many bytes to read from its beginning.
        borders: What `format_borders` said; None to cut by content.
    """

    def __init__(self, descriptor: int, size_bytes: int, borders: Sequence[int] | None = None) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._offset = 0
        self._cdc = _fastcdc()
        self._plan: Iterator[int] | None = None
        self._planned_bytes = 0
        if size_bytes <= SMALL_FILE_BYTES:
            self._plan = iter((size_bytes,))
        elif borders is not None:
            self._plan = _planned(size_bytes, borders)
        if self._plan is not None:
            self._planned_bytes = next(self._plan)

    @property
    def left_bytes(self) -> int:
        """How many bytes were not given as chunks yet."""
        return self._size_bytes - self._offset

    def cut(self, buffer: memoryview) -> list[memoryview]:
        """Read the next bytes into a buffer and return the chunks that are complete there, as views of it.

        Blocking, and lets other threads run meanwhile. Returns none only at the end of the file.

        Args:
            buffer: Has more than MAX_CHUNK_BYTES, or all that is left.

        Raises:
            FileChanged: The file ends before `size_bytes`.
            OSError: It cannot be read.
        """
        plan = self._plan
        chunks = self._cut_by_content(buffer) if plan is None else self._cut_by_plan(plan, buffer)
        self._offset += sum(map(len, chunks))
        return chunks

    def _cut_by_content(self, buffer: memoryview) -> list[memoryview]:
        data = buffer[: self.left_bytes]
        _read_exactly(self._descriptor, self._offset, data)
        # What is left has no cut yet: it is read again from the page cache, which costs less than joining it.
        return _cdc_chunks(self._cdc, data, is_all=len(data) == self.left_bytes)

    def _cut_by_plan(self, plan: Iterator[int], buffer: memoryview) -> list[memoryview]:
        ends = [0]
        while self._planned_bytes and ends[-1] + self._planned_bytes <= len(buffer):
            ends.append(ends[-1] + self._planned_bytes)
            self._planned_bytes = next(plan, 0)
        _read_exactly(self._descriptor, self._offset, buffer[: ends[-1]])
        return [buffer[begin:end] for begin, end in pairwise(ends)]


def _fastcdc() -> FastCDC:
    return FastCDC(avg_size=CDC_AVG_BYTES, min_size=CDC_MIN_BYTES, max_size=CDC_MAX_BYTES)


def _cdc_chunks(cdc: FastCDC, data: memoryview, *, is_all: bool) -> list[memoryview]:
    """Return the chunks of `data`, without what comes after the last cut unless it is all that is left.

    A cut before the end is the same whatever follows: FastCDC looks no further than two bytes ahead.
    """
    ends = [chunk.offset + chunk.length for chunk in cdc.cut_buf(data)] if data else []
    if not is_all:
        del ends[-1:]
    return [data[begin:end] for begin, end in pairwise([0, *ends])]


def _planned(size_bytes: int, borders: Sequence[int]) -> Iterator[int]:
    """Yield lengths: from border to border, and every TENSOR_CHUNK_BYTES between them."""
    begin = 0
    for border in (*borders, size_bytes):
        while begin < border:
            end = begin + TENSOR_CHUNK_BYTES
            if border - end <= _TENSOR_REST_BYTES:
                end = border
            yield end - begin
            begin = end


def _read_exactly(descriptor: int, offset: int, buffer: memoryview) -> None:
    read_bytes = 0
    while read_bytes < len(buffer):
        count = os.preadv(descriptor, [buffer[read_bytes:]], offset + read_bytes)
        if not count:
            end = offset + read_bytes
            raise FileChanged(
                f"the file ended at {end} bytes while it was read, before the {offset + len(buffer)} that it should "
                "have; store it again when nobody writes to it",
                end,
            )
        read_bytes += count
