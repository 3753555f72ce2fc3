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
from lading_server.ingest.index.sql import ByteParameter
from lading_server.ingest.packs.writer import Location


class ChunkIndex:
    """Questions about chunks. What lies in a pack that is not live is not there."""

    def __init__(self, database: Database, entities: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities
        self._clock = clock
        # Made once: to make a statement costs more than to run it.
        self._wanted = ByteParameter(database.dialect, DIGEST_BYTES)
        places = (chunks.c.digest, chunks.c.pack_id, chunks.c.record_offset, chunks.c.stored_bytes, chunks.c.raw_bytes)
        self._located = self._live(*places)
        self._held = self._live(chunks.c.digest, chunks.c.pack_id)

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
        rows = await self._database.fetch(self._located, {"entity": entity_id, **self._wanted.of(digests)})
        # Few packs hold many chunks, and making a UUID costs more than looking one up.
        ids = {pack: UUID(bytes=pack) for pack in {row[1] for row in rows}}
        return {row[0]: Location(ids[row[1]], *row[2:]) for row in rows}

    async def _packs_of(self, entity_id: int, digests: Sequence[bytes]) -> dict[bytes, bytes]:
        rows = await self._database.fetch(self._held, {"entity": entity_id, **self._wanted.of(digests)})
        return {row[0]: row[1] for row in rows}

    def _live(self, *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return (
            sa.select(*columns)
            .select_from(self._wanted.table)
            .join(chunks, sa.and_(chunks.c.entity_id == sa.bindparam("entity"), chunks.c.digest == self._wanted.value))
            .join(packs, packs.c.id == chunks.c.pack_id)
            .where(is_live())
        )
