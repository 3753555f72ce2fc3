"""Walking through a pack of which parts may be damaged: whatever is whole is found. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from lading_format.digest import blake3_digest, xxh3_64
from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.packs.format import (
    ALIGNMENT,
    HEADER_BYTES,
    RECORD_MAGIC,
    RecordHeader,
    RecordType,
    decode_record_header,
    header_seed,
    record_span,
)
from lading_server.ingest.packs.reader import ScannedRecord, read_trailer
from lading_server.ingest.packs.storage import PackStorage

# Read in one call.
_WINDOW_BYTES = 8 << 20
# What the disk refuses to read is told from what it reads in blocks of this, as disks and systems read.
_BLOCK_BYTES = 4096


class Part(NamedTuple):
    """Bytes of a pack; zeros in their place where the disk refuses to read them."""

    data: bytes
    is_refused: bool


def read_parts(storage: PackStorage, pack: UUID, offset: int, length: int) -> Iterator[Part]:
    """Yield all of these bytes of a pack, in order; only blocks that are refused by themselves are zeros.

    Raises PackNotFound, ShortRead.
    """
    try:
        yield Part(storage.read(pack, offset, length), False)
        return
    except StorageFailed:
        end = offset + length
    next_block = (offset // _BLOCK_BYTES + 1) * _BLOCK_BYTES
    middle = max(next_block, (offset + end) // 2 // _BLOCK_BYTES * _BLOCK_BYTES)
    if middle >= end:
        yield Part(bytes(length), True)
        return
    yield from read_parts(storage, pack, offset, middle - offset)
    yield from read_parts(storage, pack, middle, end - middle)


class Damage(NamedTuple):
    """A place where a record should be. `digest` is None where not even the header can be believed."""

    offset: int
    digest: bytes | None
    what: str


class Salvage:
    """One walk through a pack. Every record that it gives has the right XXH3 and the right BLAKE3.

    Where a header is damaged no length is known, so the next header is searched for. None is found by chance, nor in
    what a client sent: its checksum is seeded with the pack's id, which no client is told.

    Attributes:
        is_sealed: Whether the pack ends with a trailer that can be read.
        is_refused: Whether the disk refused to read the trailer, or something after the last record that was whole so
            far. Then nobody knows what is there, and it may be read another day: nothing of it may be cut off.
        whole_bytes: Where the last whole record ended so far; after the walk, how much of an unsealed pack to keep.
        damages: What was found damaged so far before another record that is whole. What follows the last of them in an
            unsealed pack is no damage, unless the disk refused to read it: a crash left it, and nothing of it was
            acknowledged.
    """

    def __init__(self, storage: PackStorage, pack: UUID, durable_bytes: int | None = None) -> None:
        """`durable_bytes`: what is known to have been durable, of a pack that was not sealed. Raises PackNotFound."""
        self._storage = storage
        self._pack = pack
        self._seed = header_seed(pack)
        self._window = memoryview(b"")
        self._begin = 0
        self._is_all_durable = durable_bytes is not None
        self._is_trailer_refused = False
        self.is_sealed, self._end = self._extent() if durable_bytes is None else (False, durable_bytes)
        self.is_refused = self._is_trailer_refused
        self.whole_bytes = HEADER_BYTES
        self.damages: list[Damage] = []
        self._unsure: list[Damage] = []

    def records(self) -> Iterator[ScannedRecord]:
        """Yield the records that are whole, in order, but the index."""
        offset, sequence = HEADER_BYTES, 0
        while offset < self._end:
            try:
                header = self._header(offset, sequence)
            except CorruptRecord as error:
                self._unsure.append(Damage(offset, None, error.message))
                found = self._next(offset + ALIGNMENT, sequence)
                if found is None:
                    break
                offset, sequence = found
                continue
            if header.type is RecordType.INDEX:
                # A crash came between index and trailer; recovery writes it again.
                break
            try:
                payload = self._payload(offset, header)
            except CorruptRecord as error:
                self._unsure.append(Damage(offset, header.digest, error.message))
            else:
                self.damages += self._unsure
                self._unsure.clear()
                self.is_refused = self._is_trailer_refused
                self.whole_bytes = offset + record_span(header.stored_bytes)
                yield ScannedRecord(offset, header, payload)
            offset += record_span(header.stored_bytes)
            sequence += 1
        if self.is_sealed or self._is_all_durable or self.is_refused:
            self.damages += self._unsure

    def _extent(self) -> tuple[bool, int]:
        """Return whether the pack is sealed, and where its records end."""
        size_bytes = self._storage.size(self._pack)
        try:
            index_offset = read_trailer(self._storage, self._pack).index_offset
        except CorruptRecord:
            return False, size_bytes
        except StorageFailed:
            self._is_trailer_refused = True
            return False, size_bytes
        return (True, index_offset) if HEADER_BYTES <= index_offset < size_bytes else (False, size_bytes)

    def _header(self, offset: int, sequence: int) -> RecordHeader:
        header = decode_record_header(self._read(offset, HEADER_BYTES), self._seed)
        if header.sequence != sequence:
            raise CorruptRecord(f"record {header.sequence} stands where number {sequence} should")
        if offset + record_span(header.stored_bytes) > self._end:
            raise CorruptRecord("the record ends after the pack")
        return header

    def _payload(self, offset: int, header: RecordHeader) -> memoryview:
        payload = self._read(offset + HEADER_BYTES, header.stored_bytes)
        if xxh3_64(payload) != header.xxh3:
            raise CorruptRecord("the payload does not have its checksum")
        if blake3_digest(payload) != header.digest:
            raise CorruptRecord("the payload does not have its digest")
        return payload

    def _next(self, offset: int, sequence: int) -> tuple[int, int] | None:
        """Return where the next record is that can only stand later, and its number."""
        while offset + HEADER_BYTES <= self._end:
            length = min(_WINDOW_BYTES, self._end - offset)
            parts = list(read_parts(self._storage, self._pack, offset, length))
            self.is_refused = self.is_refused or any(part.is_refused for part in parts)
            data = b"".join(part.data for part in parts)
            at = data.find(RECORD_MAGIC)
            while at >= 0:
                number = self._number(offset + at, data[at : at + HEADER_BYTES])
                if number is not None and number > sequence:
                    return offset + at, number
                at = data.find(RECORD_MAGIC, at + 1)
            # A header may lie across the end of what was read.
            offset += length - HEADER_BYTES + ALIGNMENT if length > HEADER_BYTES else length
        return None

    def _number(self, offset: int, data: bytes) -> int | None:
        if offset % ALIGNMENT or len(data) < HEADER_BYTES:
            return None
        try:
            return decode_record_header(data, self._seed).sequence
        except CorruptRecord:
            return None

    def _read(self, offset: int, length: int) -> memoryview:
        """Return bytes of the records. Raises CorruptRecord where there are none, or the disk refuses."""
        if offset + length > self._end:
            raise CorruptRecord("a torn record: the pack ends within it")
        if not self._begin <= offset <= offset + length <= self._begin + len(self._window):
            self._window, self._begin = memoryview(self._read_ahead(offset, length)), offset
        return self._window[offset - self._begin :][:length]

    def _read_ahead(self, offset: int, length: int) -> bytes:
        """Return these bytes, and as many after them as the disk gives. Raises CorruptRecord where it refuses them."""
        ahead_bytes = min(max(_WINDOW_BYTES, length), self._end - offset)
        while True:
            try:
                return self._storage.read(self._pack, offset, ahead_bytes)
            except StorageFailed as error:
                if ahead_bytes == length:
                    self.is_refused = True
                    raise CorruptRecord(error.message) from error
            # A block that is refused costs a few reads, and not one for each record before it.
            ahead_bytes = max(length, ahead_bytes // 2) if ahead_bytes > _BLOCK_BYTES else length
