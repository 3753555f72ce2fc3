"""Uploads of the simple path: how far each is, and which stream may continue it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.errors import UploadNotFound
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.rows import ChunkRef, UploadRow, unpack_refs
from lading_server.ingest.index.schema import UploadState, upload_chunks, uploads

# Rows of references read at once. Each is what one group commit brought: a few dozen chunks.
_PARTS = 64


class UploadIndex:
    """Uploads by the names that callers gave them. Their progress is written by the recorder."""

    def __init__(self, database: Database, entities: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities
        self._clock = clock

    async def begin(self, entity: str, upload_id: str, writer: int) -> UploadRow:
        """Create the upload, or take it over: from now on only `writer` continues it. A complete one stays as it is.

        Args:
            writer: A number that names the stream among all that ever write this upload; fits 63 bits.
        """
        entity_id = await self._entities.ensure(entity)
        insert = self._database.insert(uploads).values(
            entity_id=entity_id,
            upload_id=upload_id,
            state=UploadState.OPEN.value,
            writer=writer,
            durable_bytes=0,
            new_bytes=0,
            updated_at_ms=self._now_ms(),
        )
        take_over = insert.on_conflict_do_update(
            index_elements=["entity_id", "upload_id"],
            set_={"writer": insert.excluded.writer, "updated_at_ms": insert.excluded.updated_at_ms},
            where=uploads.c.state == UploadState.OPEN.value,
        )
        async with self._database.write() as connection:
            await connection.execute(take_over)
            return await _get(connection, entity_id, upload_id)

    async def get(self, entity: str, upload_id: str) -> UploadRow:
        """Return how far the upload is. Raises UploadNotFound."""
        entity_id = await self._entities.find(entity)
        async with self._database.read() as connection:
            return await _get(connection, entity_id, upload_id)

    async def refs(self, entity: str, upload_id: str) -> AsyncIterator[ChunkRef]:
        """Yield the chunks of an open upload in order, with few rows in memory at a time."""
        entity_id = await self._entities.find(entity)
        at = 0
        while True:
            query = (
                sa.select(upload_chunks.c.start_bytes, upload_chunks.c.refs)
                .where(
                    upload_chunks.c.entity_id == entity_id,
                    upload_chunks.c.upload_id == upload_id,
                    upload_chunks.c.start_bytes >= at,
                )
                .order_by(upload_chunks.c.start_bytes)
                .limit(_PARTS)
            )
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            for start_bytes, refs in rows:
                for ref in unpack_refs(start_bytes, refs):
                    yield ref
                at = start_bytes + 1
            if len(rows) < _PARTS:
                return

    async def discard(self, entity: str, upload_id: str, writer: int) -> None:
        """Forget an upload that `writer` still continues; one that is complete or was taken over is left alone."""
        entity_id = await self._entities.find(entity)
        async with self._database.write() as connection:
            await connection.execute(
                sa.delete(uploads).where(
                    uploads.c.entity_id == entity_id,
                    uploads.c.upload_id == upload_id,
                    uploads.c.writer == writer,
                    uploads.c.state == UploadState.OPEN.value,
                )
            )

    async def sweep(self, older_than_seconds: float, limit: int) -> int:
        """Forget up to `limit` uploads that nobody has touched for so long, and return how many that were."""
        before_ms = self._now_ms() - int(older_than_seconds * 1000)
        idle = (
            sa.select(uploads.c.entity_id, uploads.c.upload_id)
            .where(uploads.c.updated_at_ms <= before_ms)
            .order_by(uploads.c.updated_at_ms)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        remove = sa.delete(uploads).where(
            uploads.c.entity_id == sa.bindparam("of_entity"), uploads.c.upload_id == sa.bindparam("of_upload")
        )
        async with self._database.write() as connection:
            keys = [
                {"of_entity": entity_id, "of_upload": upload_id}
                for entity_id, upload_id in (await connection.execute(idle)).all()
            ]
            if keys:
                await connection.execute(remove, keys)
        return len(keys)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


async def _get(connection: AsyncConnection, entity_id: int | None, upload_id: str) -> UploadRow:
    query = sa.select(
        uploads.c.upload_id,
        uploads.c.state,
        uploads.c.writer,
        uploads.c.durable_bytes,
        uploads.c.digest,
        uploads.c.new_bytes,
    ).where(uploads.c.entity_id == entity_id, uploads.c.upload_id == upload_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise UploadNotFound(
            f"there is no upload {upload_id!r} here: it was never started, was discarded, or lay idle for too long; "
            "start it from the beginning"
        )
    return UploadRow(*row)
