"""Reading ranges of blobs: many small ones together, large ones piece by piece, in the order that was asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import NamedTuple

from lading_format.errors import ReasonedError
from lading_server.common.errors import BlobNotFound, InvalidRange
from lading_server.ingest.domain.records import Found, RecordReader
from lading_server.ingest.index.rows import BlobRow
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.writer import Location

# What one answer carries at most: fewer, larger messages cost less, and the limit of a message is 4 MiB.
_MESSAGE_BYTES = 3 << 20
# Chunks whose places are looked up in one query.
_LOCATE_CHUNKS = 1024
# Ranges whose blobs are looked up in one query.
_STAT_RANGES = 1024


class BlobRange(NamedTuple):
    """A part of a blob; a length of 0 means all to the end."""

    blob_digest: bytes
    offset_bytes: int
    length_bytes: int


class Piece(NamedTuple):
    """Some bytes of a range. `last` says that the range is complete, or that `error` ended it."""

    range_index: int
    offset_bytes: int
    data: bytes | memoryview
    last: bool
    error: ReasonedError | None = None


class _Cut(NamedTuple):
    """A part of a chunk that a range needs. No digest: nothing to read, only to say that the range ended."""

    range_index: int
    blob_offset: int
    digest: bytes
    skip_bytes: int
    take_bytes: int
    last: bool
    error: ReasonedError | None = None


class ContentReader:
    """Reads blobs back. Every byte is checked against its stored checksum before it is given out."""

    def __init__(self, index: ContentIndex, records: RecordReader) -> None:
        self._index = index
        self._records = records

    async def size(self, entity: str, digest: bytes) -> int:
        """Return a blob's size. Raises BlobNotFound."""
        row = (await self._index.blobs.readable(entity, [digest])).get(digest)
        if row is None:
            raise blob_not_found(digest)
        return row.size_bytes

    async def read(self, entity: str, ranges: Sequence[BlobRange]) -> AsyncGenerator[list[Piece], None]:
        """Yield the pieces of all ranges in order, as many together as fit in a message.

        A range that cannot be read ends with a piece that has the error; the others go on.
        """
        ended: set[int] = set()
        async for cuts in self._planned(entity, ranges):
            places = await self._records.locate(entity, {cut.digest for cut in cuts if cut.digest})
            for group in _groups(cuts, places):
                wanted = [cut for cut in group if cut.range_index not in ended]
                found = await self._records.read(entity, {cut.digest for cut in wanted if cut.digest}, places)
                pieces = [piece for cut in wanted if (piece := _piece(cut, found, ended)) is not None]
                if pieces:
                    yield pieces

    async def _planned(self, entity: str, ranges: Sequence[BlobRange]) -> AsyncIterator[list[_Cut]]:
        cuts: list[_Cut] = []
        for first in range(0, len(ranges), _STAT_RANGES):
            some = ranges[first : first + _STAT_RANGES]
            rows = await self._index.blobs.readable(entity, list({wanted.blob_digest for wanted in some}))
            for index, wanted in enumerate(some, first):
                async for cut in self._cuts(entity, index, wanted, rows.get(wanted.blob_digest)):
                    cuts.append(cut)
                    if len(cuts) >= _LOCATE_CHUNKS:
                        yield cuts
                        cuts = []
        if cuts:
            yield cuts

    async def _cuts(self, entity: str, index: int, wanted: BlobRange, row: BlobRow | None) -> AsyncIterator[_Cut]:
        begin, length_bytes = wanted.offset_bytes, wanted.length_bytes
        if row is None:
            yield _Cut(index, begin, b"", 0, 0, True, blob_not_found(wanted.blob_digest))
            return
        end = begin + length_bytes if length_bytes else row.size_bytes
        if begin > row.size_bytes or end > row.size_bytes:
            yield _Cut(index, begin, b"", 0, 0, True, _outside(wanted, row.size_bytes))
            return
        if begin == end:
            yield _Cut(index, begin, b"", 0, 0, True)
            return
        if row.chunk_count == 1:
            # One chunk with all bytes of the blob has the blob's digest.
            yield _Cut(index, begin, wanted.blob_digest, begin, end - begin, True)
            return
        async for ref in self._index.blobs.recipe(entity, wanted.blob_digest, begin, end):
            skip_bytes = max(0, begin - ref.offset_bytes)
            stop = min(ref.size_bytes, end - ref.offset_bytes)
            at = ref.offset_bytes + skip_bytes
            yield _Cut(index, at, ref.digest, skip_bytes, stop - skip_bytes, ref.offset_bytes + stop == end)


def blob_not_found(digest: bytes) -> BlobNotFound:
    """The same words whether nobody has the blob or another entity has."""
    return BlobNotFound(
        f"there is no blob b3:{digest.hex()} here; check the digest and the entity", digest=f"b3:{digest.hex()}"
    )


def _outside(wanted: BlobRange, size_bytes: int) -> InvalidRange:
    return InvalidRange(
        f"bytes {wanted.offset_bytes} to {wanted.offset_bytes + wanted.length_bytes} are not inside the blob, "
        f"which has {size_bytes}",
        size_bytes=size_bytes,
    )


def _groups(cuts: Sequence[_Cut], places: dict[bytes, Location]) -> list[list[_Cut]]:
    """Cut the work into messages. A chunk is read whole, however little of it is wanted, so that is what counts."""
    groups: list[list[_Cut]] = [[]]
    group_bytes = 0
    for cut in cuts:
        place = places.get(cut.digest)
        chunk_bytes = place.raw_bytes if place is not None else 0
        if groups[-1] and group_bytes + chunk_bytes > _MESSAGE_BYTES:
            groups.append([])
            group_bytes = 0
        groups[-1].append(cut)
        group_bytes += chunk_bytes
    return groups


def _piece(cut: _Cut, found: Found, ended: set[int]) -> Piece | None:
    """Return what was read for a cut; None where its range has ended. Notes in `ended` which ranges an error ends."""
    if cut.range_index in ended:
        return None
    error = cut.error if not cut.digest else found.errors.get(cut.digest)
    if error is not None:
        ended.add(cut.range_index)
        return Piece(cut.range_index, cut.blob_offset, b"", last=True, error=error)
    if not cut.digest:
        return Piece(cut.range_index, cut.blob_offset, b"", cut.last)
    data = found.payloads[cut.digest][cut.skip_bytes : cut.skip_bytes + cut.take_bytes]
    return Piece(cut.range_index, cut.blob_offset, data, cut.last)
