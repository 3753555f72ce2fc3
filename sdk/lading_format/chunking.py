"""Where a file is cut. The client's choice and never part of an identity: it may improve at any time.

Files up to 128 KiB are one chunk. Checkpoints whose format says where tensors begin are cut there and then every
1 MiB, so that an unchanged layer is never sent twice, whatever moved before it. Everything else is cut by FastCDC 2020.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pyfastcdc import FastCDC

from lading_format.digest import Buffer

MAX_CHUNK_BYTES = 2 << 20
# Up to here a second chunk would cost more than it could ever spare.
SMALL_FILE_BYTES = 128 << 10
CDC_MIN_BYTES = 128 << 10
CDC_AVG_BYTES = 512 << 10
CDC_MAX_BYTES = 2 << 20
TENSOR_CHUNK_BYTES = 1 << 20
# Read and cut in one step: large enough that system calls do not matter, small enough to hold a few.
SEGMENT_BYTES = 8 << 20


class FileChanged(Exception):
    """A file is not any more what it was when reading it began."""


class StreamCutter:
    """Cuts bytes that come in any portions; the cuts are those of the whole.

    Memory: less than one chunk is kept between calls.
    """

    def __init__(self) -> None:
        self._cdc = _fastcdc()
        self._kept = bytearray()

    def feed(self, data: Buffer) -> list[bytes]:
        """Take the next bytes; return the chunks that are complete."""
        self._kept += data
        if len(self._kept) <= CDC_MAX_BYTES:
            return []
        return self._cut(whole=False)

    def finish(self) -> list[bytes]:
        """Return the chunks of what is left."""
        if not self._kept:
            return []
        return self._cut(whole=True)

    def _cut(self, *, whole: bool) -> list[bytes]:
        kept = bytes(self._kept)
        ends = list(_cuts(self._cdc, kept, whole=whole))
        del self._kept[: ends[-1] if ends else 0]
        return [kept[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def iter_file_chunks(
    descriptor: int, size_bytes: int, borders: Sequence[int] | None = None
) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, bytes) of every chunk of a file, in order. Blocking.

    A chunk stays valid after the next one is yielded; memory is that of one segment and of the chunks that the caller
    keeps. `borders` come from `format_borders`.

    Raises FileChanged when the file ends before `size_bytes`.
    """
    if borders is not None:
        yield from _chunks_at(descriptor, _planned(size_bytes, borders))
        return
    if size_bytes <= SMALL_FILE_BYTES:
        if size_bytes:
            yield 0, memoryview(_read_exactly(descriptor, 0, size_bytes))
        return
    cdc = _fastcdc()
    offset = 0
    while offset < size_bytes:
        length = min(SEGMENT_BYTES, size_bytes - offset)
        segment = memoryview(_read_exactly(descriptor, offset, length))
        begin = 0
        for end in _cuts(cdc, segment, whole=offset + length == size_bytes):
            yield offset + begin, segment[begin:end]
            begin = end
        # What is left has no cut yet: it is read again from the page cache, which costs less than keeping track.
        offset += begin


def _cuts(cdc: FastCDC, data: Buffer, *, whole: bool) -> Iterator[int]:
    """Yield where the chunks of `data` end. Unless it is the whole rest, its end is no border."""
    if whole and len(data) <= CDC_MIN_BYTES:
        yield len(data)
        return
    for chunk in cdc.cut_buf(data):
        end = chunk.offset + chunk.length
        if end < len(data) or whole:
            yield end


def _fastcdc() -> FastCDC:
    return FastCDC(avg_size=CDC_AVG_BYTES, min_size=CDC_MIN_BYTES, max_size=CDC_MAX_BYTES)


def _planned(size_bytes: int, borders: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (offset, length): from border to border, and every TENSOR_CHUNK_BYTES between them."""
    begin = 0
    for border in (*borders, size_bytes):
        while begin < border:
            end = min(begin + TENSOR_CHUNK_BYTES, border)
            yield begin, end - begin
            begin = end


def _chunks_at(descriptor: int, plan: Iterator[tuple[int, int]]) -> Iterator[tuple[int, memoryview]]:
    run: list[tuple[int, int]] = []
    run_bytes = 0
    for offset, length in plan:
        run.append((offset, length))
        run_bytes += length
        if run_bytes >= SEGMENT_BYTES:
            yield from _read_run(descriptor, run, run_bytes)
            run, run_bytes = [], 0
    if run:
        yield from _read_run(descriptor, run, run_bytes)


def _read_run(descriptor: int, run: list[tuple[int, int]], run_bytes: int) -> Iterator[tuple[int, memoryview]]:
    begin = run[0][0]
    segment = memoryview(_read_exactly(descriptor, begin, run_bytes))
    for offset, length in run:
        yield offset, segment[offset - begin : offset - begin + length]


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            raise FileChanged(f"the file ended at {offset + len(data)} bytes while it was read; store it again")
        data += more
    return data
