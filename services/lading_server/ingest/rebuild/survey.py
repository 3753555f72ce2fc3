"""Which packs there are, which of them the index knows as they are, and what is left to adopt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.index.packs import LIVE_STATES
from lading_server.ingest.index.schema import PackState, packs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import PackHeader, RecordType
from lading_server.ingest.packs.reader import read_pack_header
from lading_server.ingest.packs.salvage import Salvage
from lading_server.ingest.packs.storage import PackClass, PackNotFound, PackStorage, ShortRead
from lading_server.ingest.rebuild.report import Report

_PAGE = 1000


class FoundPack(NamedTuple):
    """A pack to adopt. `header` is None where it is damaged."""

    pack: UUID
    pack_class: PackClass
    header: PackHeader | None


class _Row(NamedTuple):
    pack: UUID
    state: str
    durable_bytes: int


async def mark_lost(index: ContentIndex, storage: PackStorage, report: Report) -> set[UUID]:
    """Mark packs that are gone or too short as damaged; return those that are known as they are.

    One that a crash or a backup left open is not known: it may have grown since. Nor is one that was condemned, which
    may have been revived since; or one that was damaged, which may have been repaired.
    """
    known: set[UUID] = set()
    async for row in _rows(index):
        if row.state == PackState.DELETING:
            # There is no way back: the collector finishes it.
            known.add(row.pack)
            continue
        size_bytes = _size(storage, row.pack)
        if size_bytes is not None and size_bytes >= row.durable_bytes:
            if row.state == PackState.SEALED:
                known.add(row.pack)
        elif size_bytes is None and row.state == PackState.OPEN and not row.durable_bytes:
            # Its row comes before its file, and a backup may come between them.
            await index.packs.remove(row.pack)
        elif row.state in LIVE_STATES:
            await index.packs.mark_damaged(row.pack)
            what = "is gone" if size_bytes is None else f"has {size_bytes:,} bytes and had {row.durable_bytes:,}"
            report.lost_packs.add(f"pack {row.pack} {what}")
    return known


def classify(storage: PackStorage, pack: UUID) -> FoundPack:
    """Tell what a pack is for. From its records, where its header is damaged."""
    try:
        header = read_pack_header(storage, pack)
        return FoundPack(pack, PackClass(header.pack_class), header)
    except (CorruptRecord, ShortRead, StorageFailed, ValueError):
        kinds = (record.header.type for record in Salvage(storage, pack).records())
        first = next((kind for kind in kinds if kind is not RecordType.OWNER), None)
        return FoundPack(pack, PackClass.DATA if first in (None, RecordType.CHUNK) else PackClass.META, None)


async def _rows(index: ContentIndex) -> AsyncIterator[_Row]:
    after = b""
    while True:
        query = (
            sa.select(packs.c.id, packs.c.state, packs.c.durable_bytes)
            .where(packs.c.id > after)
            .order_by(packs.c.id)
            .limit(_PAGE)
        )
        async with index.database.read() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            return
        for pack, state, durable_bytes in rows:
            yield _Row(UUID(bytes=pack), state, durable_bytes)
        after = rows[-1].id


def _size(storage: PackStorage, pack: UUID) -> int | None:
    try:
        return storage.size(pack)
    except PackNotFound:
        return None
