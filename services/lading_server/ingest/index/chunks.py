"""Which chunks and tree pages there are, and where they lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.packs import is_live, refer_to
from lading_server.ingest.index.schema import DIGEST_BYTES, chunks, packs
from lading_server.ingest.index.sessions import Lease, hold, session_expired
from lading_server.ingest.index.sql import byte_table
from lading_server.ingest.packs.writer import Location


class ChunkIndex:
    """Questions about chunks. What lies in a pack that is not live is not there."""

    def __init__(self, database: Database, entities: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities
        self._clock = clock

    async def find(self, entity: str, session: bytes, digests: Sequence[bytes]) -> set[bytes]:
        """Return which of the digests are there, and hold their packs for the session.

        Writes nothing when none is there.

        Raises:
            SessionExpired: Some are there, and the session that should hold them is not.
        """
        entity_id = await self._entities.find(entity)
        if entity_id is None or not digests:
            return set()
        found = await self._packs_of(entity_id, digests)
        if not found:
            return set()
        wanted = set(found.values())
        async with self._database.write() as connection:
            live = await refer_to(connection, self._database.dialect, wanted)
            lease = Lease(entity_id, session)
            held = await hold(connection, self._database, int(self._clock() * 1000), {lease: live})
            if lease not in held:
                raise session_expired()
        return {digest for digest, pack in found.items() if pack in live}

    async def locate(self, entity: str, digests: Sequence[bytes]) -> dict[bytes, Location]:
        """Return where the digests lie; those that are not there are left out."""
        entity_id = await self._entities.find(entity)
        if entity_id is None or not digests:
            return {}
        columns = (
            chunks.c.digest,
            chunks.c.pack_id,
            chunks.c.record_offset,
            chunks.c.stored_bytes,
            chunks.c.raw_bytes,
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(self._live(entity_id, digests, columns))).all()
        # Few packs hold many chunks, and making a UUID costs more than looking one up.
        ids = {pack: UUID(bytes=pack) for pack in {row[1] for row in rows}}
        return {row[0]: Location(ids[row[1]], *row[2:]) for row in rows}

    async def _packs_of(self, entity_id: int, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        query = self._live(entity_id, digests, (chunks.c.digest, chunks.c.pack_id))
        async with self._database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    def _live(
        self, entity_id: int, digests: Sequence[bytes], columns: Sequence[sa.ColumnElement[Any]]
    ) -> sa.Select[*tuple[Any, ...]]:
        table = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        return (
            sa.select(*columns)
            .select_from(table.table)
            .join(chunks, sa.and_(chunks.c.entity_id == entity_id, chunks.c.digest == table.value))
            .join(packs, packs.c.id == chunks.c.pack_id)
            .where(is_live())
        )
