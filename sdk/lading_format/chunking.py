"""Where a file is cut. The client's choice and never part of an identity: it may improve at any time.

Files up to 128 KiB are one chunk. Files whose format says where tensors begin are cut there and then every 1 MiB, so
that an unchanged layer is never sent twice, whatever moved before it. Everything else is cut by FastCDC 2020, whose
cuts depend on the bytes around them and not on where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pyfastcdc import FastCDC

from lading_format.borders import format_borders
from lading_format.digest import Buffer

__all__ = [
    "CDC_AVG_BYTES",
    "CDC_MAX_BYTES",
    "CDC_MIN_BYTES",
    "MAX_CHUNK_BYTES",
    "SEGMENT_BYTES",
    "SMALL_FILE_BYTES",
    "TENSOR_CHUNK_BYTES",
    "FileChanged",
    "StreamCutter",
    "format_borders",
    "iter_file_chunks",
]

# What ingest accepts, so that one chunk and what surrounds it fit a message of 4 MiB.
MAX_CHUNK_BYTES = 2 << 20
# Up to here a second chunk would cost more than it could ever spare.
SMALL_FILE_BYTES = 128 << 10
CDC_MIN_BYTES = SMALL_FILE_BYTES
CDC_AVG_BYTES = 512 << 10
CDC_MAX_BYTES = MAX_CHUNK_BYTES
TENSOR_CHUNK_BYTES = 1 << 20
# A rest of up to this many bytes stays with the chunk before it, instead of being a tiny one.
_TENSOR_REST_BYTES = 128 << 10
# Read and cut in one step: large enough that system calls do not matter, small enough to hold a few.
SEGMENT_BYTES = 8 << 20


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

    def feed(self, data: Buffer) -> list[memoryview]:
        """Take the next bytes; return the chunks that are complete. `data` may be changed afterwards."""
        self._kept += data
        # With fewer, what was kept would be searched for a cut again and again.
        if len(self._kept) <= CDC_MAX_BYTES:
            return []
        return self._cut(is_all=False)

    def finish(self) -> list[memoryview]:
        """Return the chunks of what is left."""
        return self._cut(is_all=True)

    def _cut(self, *, is_all: bool) -> list[memoryview]:
        data = bytes(self._kept)
        ends = _cdc_cuts(self._cdc, data, is_all=is_all)
        whole = memoryview(data)
        chunks = [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        del self._kept[: ends[-1] if ends else 0]
        return chunks


def iter_file_chunks(
    descriptor: int, size_bytes: int, borders: Sequence[int] | None = None
) -> Iterator[tuple[int, memoryview]]:
    """Yield (offset, bytes) of every chunk of a file, in order. Blocking, and lets other threads run meanwhile.

    A chunk is a view of a segment of up to 8 MiB. It stays valid after the next one is yielded, and keeps its segment
    in memory; no more than one segment is read ahead.

    Args:
        descriptor: An open file. Its position is neither used nor moved.
        size_bytes: How many bytes to read from its beginning.
        borders: What `format_borders` said; None to cut by content.

    Raises:
        FileChanged: The file ends before `size_bytes`.
        OSError: It cannot be read.
    """
    if size_bytes <= SMALL_FILE_BYTES:
        if size_bytes:
            yield 0, memoryview(_read_exactly(descriptor, 0, size_bytes))
        return
    if borders is None:
        yield from _chunks_by_content(descriptor, size_bytes)
    else:
        yield from _chunks_by_plan(descriptor, _planned(size_bytes, borders))


def _chunks_by_content(descriptor: int, size_bytes: int) -> Iterator[tuple[int, memoryview]]:
    cdc = _fastcdc()
    offset = 0
    while offset < size_bytes:
        segment = _read_exactly(descriptor, offset, min(SEGMENT_BYTES, size_bytes - offset))
        view = memoryview(segment)
        begin = 0
        for end in _cdc_cuts(cdc, segment, is_all=offset + len(segment) == size_bytes):
            yield offset + begin, view[begin:end]
            begin = end
        # What is left has no cut yet: it is read again from the page cache, which costs less than joining it.
        offset += begin


def _fastcdc() -> FastCDC:
    return FastCDC(avg_size=CDC_AVG_BYTES, min_size=CDC_MIN_BYTES, max_size=CDC_MAX_BYTES)


def _cdc_cuts(cdc: FastCDC, data: bytes, *, is_all: bool) -> list[int]:
    """Return where the chunks of `data` end. Unless it is all that is left, its own end is no border.

    A cut before the end is the same whatever follows: FastCDC looks no further than two bytes ahead.
    """
    ends = [chunk.offset + chunk.length for chunk in cdc.cut_buf(data)] if data else []
    if not is_all:
        del ends[-1:]
    return ends


def _planned(size_bytes: int, borders: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (offset, length): from border to border, and every TENSOR_CHUNK_BYTES between them."""
    begin = 0
    for border in (*borders, size_bytes):
        while begin < border:
            end = begin + TENSOR_CHUNK_BYTES
            if border - end <= _TENSOR_REST_BYTES:
                end = border
            yield begin, end - begin
            begin = end


def _chunks_by_plan(descriptor: int, plan: Iterator[tuple[int, int]]) -> Iterator[tuple[int, memoryview]]:
    run: list[tuple[int, int]] = []
    run_bytes = 0
    for offset, length in plan:
        if run and run_bytes + length > SEGMENT_BYTES:
            yield from _read_run(descriptor, run, run_bytes)
            run, run_bytes = [], 0
        run.append((offset, length))
        run_bytes += length
    if run:
        yield from _read_run(descriptor, run, run_bytes)


def _read_run(descriptor: int, run: list[tuple[int, int]], run_bytes: int) -> Iterator[tuple[int, memoryview]]:
    first = run[0][0]
    view = memoryview(_read_exactly(descriptor, first, run_bytes))
    for offset, length in run:
        yield offset, view[offset - first : offset - first + length]


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), offset + len(data))
        if not more:
            end = offset + len(data)
            raise FileChanged(
                f"the file ended at {end} bytes while it was read, before the {offset + length} that it should have; "
                "store it again when nobody writes to it",
                end,
            )
        data += more
    return data
