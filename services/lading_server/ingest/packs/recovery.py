"""Sealing a pack that a crash left open: cut back to its durable length, index and trailer written. Blocking."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from lading_server.ingest.packs.format import IndexEntry
from lading_server.ingest.packs.reader import read_pack_header, scan_records
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import PackWriter

# Hashed in one call.
_STEP_BYTES = 8 << 20


class SealedPack(NamedTuple):
    """What became of a pack."""

    total_bytes: int
    record_count: int


def seal_after_crash(storage: PackStorage, pack: UUID, durable_bytes: int) -> SealedPack:
    """Cut the pack back to what is durable and seal it. It is never appended to again.

    May be interrupted and repeated: whatever is after `durable_bytes`, half a trailer for example, is cut off again.

    Raises:
        CorruptRecord: Something before `durable_bytes` is damaged.
        PackNotFound, ShortRead: The pack is not there, or shorter than `durable_bytes`.
        StorageFailed: The disk refused.
    """
    read_pack_header(storage, pack)
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
