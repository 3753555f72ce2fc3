"""What there is under a digest, in whatever state, and what leases it. For whoever wants to know why it is there."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ID_BYTES,
    PinState,
    UploadState,
    blobs,
    chunks,
    packs,
    pins,
    session_packs,
    sessions,
    tree_pages,
    trees,
    uploads,
)
from lading_server.ingest.index.sql import byte_table


class Standing(NamedTuple):
    """The state of a blob or tree, and since when it is condemned."""

    state: str
    size_bytes: int
    condemned_at_ms: int | None


class PackStanding(NamedTuple):
    """The state of a pack, and since when it is condemned."""

    pack: UUID
    pack_class: int
    state: str
    size_bytes: int
    condemned_at_ms: int | None


class StandingIndex:
    """Questions about one entity by its number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tree(self, entity_id: int, digest: bytes) -> Standing | None:
        """Return the state of a tree, or None where there is no such row."""
        return await self._standing(trees, entity_id, digest)

    async def blob(self, entity_id: int, digest: bytes) -> Standing | None:
        """Return the state of a blob, or None where there is no such row."""
        return await self._standing(blobs, entity_id, digest)

    async def packs_of(self, entity_id: int, digests: Collection[bytes]) -> list[PackStanding]:
        """Return the packs that chunks or pages lie in, by id."""
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        query = (
            sa.select(packs.c.id, packs.c.pack_class, packs.c.state, packs.c.durable_bytes, packs.c.condemned_at_ms)
            .select_from(wanted.table)
            .join(chunks, sa.and_(chunks.c.entity_id == entity_id, chunks.c.digest == wanted.value))
            .join(packs, packs.c.id == chunks.c.pack_id)
        )
        async with self._database.read() as connection:
            # Without DISTINCT: SQLite would walk all chunks, and the wanted ones for each of them.
            rows = sorted({tuple(row) for row in await connection.execute(query)})
        return [PackStanding(UUID(bytes=pack), *rest) for pack, *rest in rows]

    async def pages(self, entity_id: int, tree_digest: bytes, limit: int) -> list[bytes]:
        """Return the digests of up to `limit` pages of a tree."""
        query = (
            sa.select(tree_pages.c.page_digest)
            .where(tree_pages.c.entity_id == entity_id, tree_pages.c.tree_digest == tree_digest)
            .order_by(tree_pages.c.seq)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list((await connection.scalars(query)).all())

    async def trees_with(self, entity_id: int, page_digest: bytes, limit: int) -> list[bytes]:
        """Return up to `limit` trees that have a page, by digest, condemned ones too."""
        query = (
            sa.select(tree_pages.c.tree_digest)
            .distinct()
            .where(tree_pages.c.entity_id == entity_id, tree_pages.c.page_digest == page_digest)
            .order_by(tree_pages.c.tree_digest)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list((await connection.scalars(query)).all())

    async def pinned_by(self, entity_id: int, tree_digests: Collection[bytes], limit: int) -> list[bytes]:
        """Return up to `limit` versions whose pins hold one of the trees, by uid."""
        wanted = byte_table(self._database.dialect, tree_digests, DIGEST_BYTES)
        query = (
            sa.select(pins.c.version_uid)
            .where(
                pins.c.entity_id == entity_id,
                pins.c.tree_digest.in_(sa.select(wanted.value).select_from(wanted.table)),
                pins.c.state == PinState.HELD.value,
            )
            .order_by(pins.c.version_uid)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list((await connection.scalars(query)).all())

    async def sessions_with(self, entity_id: int, ids: Collection[UUID], now_ms: int) -> int:
        """Return how many sessions hold one of the packs. Their ids are secrets of those who opened them."""
        wanted = byte_table(self._database.dialect, [pack.bytes for pack in ids], ID_BYTES)
        query = (
            sa.select(sa.func.count(sa.distinct(session_packs.c.session_id)))
            .select_from(wanted.table)
            .join(session_packs, session_packs.c.pack_id == wanted.value)
            .join(sessions, sessions.c.id == session_packs.c.session_id)
            .where(sessions.c.entity_id == entity_id, sessions.c.expires_at_ms > now_ms)
        )
        async with self._database.read() as connection:
            return await connection.scalar(query) or 0

    async def uploads_of(self, entity_id: int, blob_digest: bytes, limit: int) -> list[str]:
        """Return the ids of up to `limit` complete uploads that made a blob."""
        query = (
            sa.select(uploads.c.upload_id)
            .where(
                uploads.c.entity_id == entity_id,
                uploads.c.digest == blob_digest,
                uploads.c.state == UploadState.COMPLETE.value,
            )
            .order_by(uploads.c.upload_id)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return list((await connection.scalars(query)).all())

    async def _standing(self, table: sa.Table, entity_id: int, digest: bytes) -> Standing | None:
        query = sa.select(table.c.state, table.c.size_bytes, table.c.condemned_at_ms).where(
            table.c.entity_id == entity_id, table.c.digest == digest
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Standing(*row)
