"""Looking for damage in a pack, past the first that is found. Blocking; a window of a pack in memory at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from uuid import UUID

from xxhash import xxh3_128

from lading_format.digest import blake3_digest, xxh3_64
from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.packs.format import (
    HEADER_BYTES,
    IndexEntry,
    RecordHeader,
    Trailer,
    decode_record_header,
    header_seed,
    record_span,
)
from lading_server.ingest.packs.reader import read_index, read_pack_header, read_trailer
from lading_server.ingest.packs.storage import PackStorage, ShortRead

_WINDOW_BYTES = 8 << 20


class Fault(NamedTuple):
    """Something wrong in a pack: where, and what. `header` is what the record says, if its header is right."""

    offset: int
    reason: str
    header: RecordHeader | None = None


class Structure(NamedTuple):
    """A pack without its records. `entries` is None where its index cannot be read; `end` is where records end."""

    faults: list[Fault]
    entries: list[IndexEntry] | None
    trailer: Trailer | None
    end: int


def read_structure(
    storage: PackStorage, pack: UUID, *, pack_class: int, is_sealed: bool, durable_bytes: int
) -> Structure:
    """Read what frames a pack's records, against what the index says of it. Raises PackNotFound, StorageFailed."""
    faults: list[Fault] = []
    size_bytes = storage.size(pack)
    if size_bytes < durable_bytes or (is_sealed and size_bytes > durable_bytes):
        faults.append(Fault(size_bytes, f"the pack has {size_bytes:,} bytes and should have {durable_bytes:,}"))
    try:
        header = read_pack_header(storage, pack)
        if header.pack_class != pack_class:
            faults.append(Fault(0, f"the header says class {header.pack_class}, and the index {pack_class}"))
    except (CorruptRecord, ShortRead) as error:
        faults.append(Fault(0, str(error)))
    # Where a sealed pack is as long as it should be, its last bytes are no record, whatever is wrong with them.
    is_long_enough = size_bytes >= durable_bytes
    end = durable_bytes - HEADER_BYTES if is_sealed and is_long_enough else min(size_bytes, durable_bytes)
    if not is_sealed:
        return Structure(faults, None, None, end)
    trailer: Trailer | None = None
    entries: list[IndexEntry] | None = None
    try:
        trailer = read_trailer(storage, pack)
        end = min(end, trailer.index_offset)
        entries = read_index(storage, pack)
        if trailer.record_count != len(entries):
            faults.append(Fault(end, f"the index has {len(entries)} records and the trailer {trailer.record_count}"))
    except (CorruptRecord, ShortRead) as error:
        at = error.metadata.get("offset", "0") if isinstance(error, CorruptRecord) else size_bytes
        faults.append(Fault(int(at), str(error)))
    return Structure(faults, entries, trailer, end)


class RecordWalk:
    """Walks through a pack's records, a window at a time, and goes on behind what is damaged.

    Behind a damaged header the next record is one of which the index or the pack's own index knows. Each record that
    is right is handed out by its header; so whoever knows of others knows that they are not there.
    """

    def __init__(
        self, storage: PackStorage, pack: UUID, end: int, known: Iterable[int], *, reads_digests: bool
    ) -> None:
        """`known`: offsets of records. `reads_digests`: hold each payload against its BLAKE3, too."""
        self._storage = storage
        self._pack = pack
        self._end = end
        self._known = sorted(set(known))
        self._reads_digests = reads_digests
        self._seed = header_seed(pack)
        self._whole = xxh3_128()
        self._hashed = 0
        self._sequence: int | None = 0
        self._data = memoryview(b"")
        self._begin = HEADER_BYTES
        self.offset = HEADER_BYTES
        self.faults: list[Fault] = []

    @property
    def is_done(self) -> bool:
        """Whether there is no record left."""
        return self.offset >= self._end

    def step(self) -> list[tuple[int, RecordHeader]]:
        """Read a window; return the records in it that are right, by their offsets. Adds to `faults`.

        Raises:
            PackNotFound: The pack was deleted.
        """
        good: list[tuple[int, RecordHeader]] = []
        first = self.offset
        while not self.is_done and self.offset - first < _WINDOW_BYTES:
            try:
                header = self._record()
            except (CorruptRecord, ShortRead, StorageFailed) as error:
                self.faults.append(Fault(self.offset, _words(error), self._header_here()))
                self._skip()
                continue
            good.append((self.offset, header))
            self.offset += record_span(header.stored_bytes)
            self._sequence = header.sequence + 1
        return good

    def whole_is(self, xxh3: bytes, upto: int) -> bool:
        """Tell whether all bytes before `upto` have the checksum of the trailer. Call it when done, without faults."""
        for at in range(self._hashed, upto, _WINDOW_BYTES):
            self._whole.update(self._storage.read(self._pack, at, min(_WINDOW_BYTES, upto - at)))
        return self._whole.digest() == xxh3

    def _record(self) -> RecordHeader:
        header = decode_record_header(self._bytes(self.offset, HEADER_BYTES), self._seed)
        if self._sequence is not None and header.sequence != self._sequence:
            raise CorruptRecord(f"record {header.sequence} stands where number {self._sequence} should")
        payload = self._bytes(self.offset + HEADER_BYTES, header.stored_bytes)
        if xxh3_64(payload) != header.xxh3:
            raise CorruptRecord("the payload does not have its checksum")
        if self._reads_digests and blake3_digest(payload) != header.digest:
            raise CorruptRecord("the payload has its checksum and not its digest")
        return header

    def _header_here(self) -> RecordHeader | None:
        try:
            return decode_record_header(self._bytes(self.offset, HEADER_BYTES), self._seed)
        except (CorruptRecord, ShortRead, StorageFailed):
            return None

    def _skip(self) -> None:
        """Go to the next record that is known: a damaged header says nothing of its length."""
        at = bisect_right(self._known, self.offset)
        self.offset = self._known[at] if at < len(self._known) else self._end
        self._sequence = None

    def _bytes(self, offset: int, length: int) -> memoryview:
        if offset + length > self._end:
            raise ShortRead(f"the record ends at {offset + length:,}, and the pack's records at {self._end:,}")
        if not self._begin <= offset <= offset + length <= self._begin + len(self._data):
            self._read(offset, length)
        return self._data[offset - self._begin :][:length]

    def _read(self, offset: int, length: int) -> None:
        wanted = min(max(_WINDOW_BYTES, length), self._end - offset)
        try:
            data = self._storage.read(self._pack, offset, wanted)
        except (ShortRead, StorageFailed):
            # Perhaps only a part of the window is bad.
            data = self._storage.read(self._pack, offset, length)
        self._data, self._begin = memoryview(data), offset
        self._hash(offset)

    def _hash(self, begin: int) -> None:
        """Add what was read to the hash of the whole, where it follows what that has seen."""
        if self._hashed == 0:
            self._whole.update(self._storage.read(self._pack, 0, HEADER_BYTES))
            self._hashed = HEADER_BYTES
        if begin <= self._hashed < begin + len(self._data):
            self._whole.update(self._data[self._hashed - begin :])
            self._hashed = begin + len(self._data)


def next_packs(packs: Iterator[UUID], count: int) -> list[UUID]:
    """Return the next ids of a storage's packs, up to `count`."""
    found: list[UUID] = []
    for pack in packs:
        found.append(pack)
        if len(found) == count:
            break
    return found


def _words(error: CorruptRecord | ShortRead | StorageFailed) -> str:
    return error.message if isinstance(error, CorruptRecord | StorageFailed) else str(error)
