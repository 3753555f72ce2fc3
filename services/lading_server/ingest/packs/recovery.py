"""Sealing a pack that a crash left open: cut back to its durable length, index and trailer written. Blocking.

One of which nothing is durable is deleted.
"""

from __future__ import annotations

from bisect import bisect, insort
from typing import NamedTuple
from uuid import UUID

from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.packs.format import HEADER_BYTES, IndexEntry, RecordHeader, decode_record_header, header_seed
from lading_server.ingest.packs.reader import read_pack_header, scan_records
from lading_server.ingest.packs.salvage import Salvage, read_parts
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import PackWriter

# Hashed in one call.
_STEP_BYTES = 8 << 20


class PackUnreadable(StorageFailed):
    """The disk refuses to read a pack, and nothing that it gives of it is a whole record. Nothing was written."""


class DamagedSpan(NamedTuple):
    """A part of a pack in which no record is whole."""

    begin: int
    end: int
    what: str


class SealedPack(NamedTuple):
    """What became of a pack. A length of 0: nothing of it was durable, and it is gone.

    `damages`: what is damaged of that which was durable, in order. Everything else is whole, and listed. So is a
    record whose payload alone is damaged: whoever reads it finds that out.
    """

    total_bytes: int
    record_count: int
    damages: tuple[DamagedSpan, ...] = ()


def seal_after_crash(storage: PackStorage, pack: UUID, durable_bytes: int) -> SealedPack:
    """Cut the pack back to what is durable and seal it, or delete it when that is nothing.

    It is never appended to again.
    May be interrupted and repeated: whatever is after `durable_bytes`, half a trailer for example, is cut off again.
    Where the disk refuses to read a part of it, that part is damaged like any other, and counts as zeros in the
    checksum of the whole.

    Raises:
        CorruptRecord: No record before `durable_bytes` is whole. Nothing was cut.
        PackNotFound, ShortRead: The pack is not there, or shorter than `durable_bytes`.
        DiskLow: There is no space for index and trailer; to be tried again.
        PackUnreadable: The disk refused to read it, so that no record is whole. Nothing was cut.
        StorageFailed: The disk refused to write.
    """
    if durable_bytes == 0:
        storage.delete(pack)
        return SealedPack(0, 0)
    of_header = _damages_of_header(storage, pack)
    if durable_bytes <= HEADER_BYTES:
        # No sync returns such a length: a pack's owner is written before anything is synced.
        raise CorruptRecord(
            f"pack {pack} is said to be durable up to {durable_bytes}, before its first record",
            pack=pack,
            offset=durable_bytes,
        )
    # Read before anything is cut.
    entries, damages = _entries(storage, pack, durable_bytes)
    writer = PackWriter(storage.recover(pack, durable_bytes), pack)
    try:
        for offset in range(0, durable_bytes, _STEP_BYTES):
            for part in read_parts(storage, pack, offset, min(_STEP_BYTES, durable_bytes - offset)):
                writer.adopt(part.data, [])
        writer.adopt(b"", entries)
        return SealedPack(writer.seal(), len(entries), (*of_header, *damages))
    finally:
        writer.abandon()


def _damages_of_header(storage: PackStorage, pack: UUID) -> list[DamagedSpan]:
    """Return what is damaged of the pack's own header: no record needs it. Raises PackNotFound, ShortRead."""
    try:
        read_pack_header(storage, pack)
    except (CorruptRecord, StorageFailed) as error:
        return [DamagedSpan(0, HEADER_BYTES, error.message)]
    return []


def _entries(storage: PackStorage, pack: UUID, durable_bytes: int) -> tuple[list[IndexEntry], tuple[DamagedSpan, ...]]:
    """Return the records before `durable_bytes`, and what is damaged there.

    Raises CorruptRecord, PackUnreadable when none is whole.
    """
    first: CorruptRecord | PackUnreadable
    try:
        return [_entry(record.header, record.offset) for record in scan_records(storage, pack, durable_bytes)], ()
    except CorruptRecord as error:
        first = error
    except StorageFailed as error:
        first = PackUnreadable(error.message)
    salvage = Salvage(storage, pack, durable_bytes)
    entries = [_entry(record.header, record.offset) for record in salvage.records()]
    if not entries:
        raise first
    ends = [*(entry.offset for entry in entries), durable_bytes]
    spans = [DamagedSpan(one.offset, ends[bisect(ends, one.offset)], one.what) for one in salvage.damages]
    for damage in salvage.damages:
        if damage.digest is not None:
            header = decode_record_header(storage.read(pack, damage.offset, HEADER_BYTES), header_seed(pack))
            insort(entries, _entry(header, damage.offset), key=_offset)
    return entries, tuple(spans)


def _entry(header: RecordHeader, offset: int) -> IndexEntry:
    return IndexEntry(header.digest, offset, header.stored_bytes, header.raw_bytes, header.type)


def _offset(entry: IndexEntry) -> int:
    return entry.offset
