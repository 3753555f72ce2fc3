"""Sealing a pack that a crash left open: cut back to its durable length, index and trailer written. Blocking.

One of which nothing is durable is deleted.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from lading_server.common.errors import CorruptRecord
from lading_server.ingest.packs.format import HEADER_BYTES, IndexEntry
from lading_server.ingest.packs.reader import read_pack_header, scan_records
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import PackWriter

# Hashed in one call.
_STEP_BYTES = 8 << 20


class SealedPack(NamedTuple):
    """What became of a pack. A length of 0: nothing of it was durable, and it is gone."""

    total_bytes: int
    record_count: int


def seal_after_crash(storage: PackStorage, pack: UUID, durable_bytes: int) -> SealedPack:
    """Cut the pack back to what is durable and seal it, or delete it when that is nothing.

    It is never appended to again.
    May be interrupted and repeated: whatever is after `durable_bytes`, half a trailer for example, is cut off again.

    Raises:
        CorruptRecord: Something before `durable_bytes` is damaged, or there is no record before it. Nothing was cut.
        PackNotFound, ShortRead: The pack is not there, or shorter than `durable_bytes`.
        DiskLow: There is no space for index and trailer; to be tried again.
        StorageFailed: The disk refused.
    """
    if durable_bytes == 0:
        storage.delete(pack)
        return SealedPack(0, 0)
    read_pack_header(storage, pack)
    if durable_bytes <= HEADER_BYTES:
        # No sync returns such a length: a pack's owner is written before anything is synced.
        raise CorruptRecord(
            f"pack {pack} is said to be durable up to {durable_bytes}, before its first record",
            pack=pack,
            offset=durable_bytes,
        )
    # Read before anything is cut: a pack that is damaged stays as it is.
    entries = [
        IndexEntry(
            record.header.digest, record.offset, record.header.stored_bytes, record.header.raw_bytes, record.header.type
        )
        for record in scan_records(storage, pack, durable_bytes)
    ]
    writer = PackWriter(storage.recover(pack, durable_bytes), pack)
    try:
        for offset in range(0, durable_bytes, _STEP_BYTES):
            writer.adopt(storage.read(pack, offset, min(_STEP_BYTES, durable_bytes - offset)), [])
        writer.adopt(b"", entries)
        return SealedPack(writer.seal(), len(entries))
    finally:
        writer.abandon()
