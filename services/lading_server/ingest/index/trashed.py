"""What is still there of condemned content: the rows, and the places of chunks in packs that can be revived."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.ingest.index.rows import TreePageRow, TreeRow
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ContentState,
    PackState,
    blobs,
    chunks,
    packs,
    recipe_parts,
    tree_pages,
    trees,
)
from lading_server.ingest.index.sql import byte_table
from lading_server.ingest.packs.writer import Location

_REVIVABLE = [ContentState.LIVE.value, ContentState.CONDEMNED.value]
_REVIVABLE_PACKS = [PackState.OPEN.value, PackState.SEALED.value, PackState.CONDEMNED.value]
# Rows of recipes read at once: up to 2.3 MiB.
_PARTS = 64


class TrashedTree(NamedTuple):
    """A tree that is live or condemned."""

    totals: TreeRow
    is_condemned: bool


class TrashedPart(NamedTuple):
    """A part of the recipe of a blob that is live or condemned."""

    blob_digest: bytes
    start_bytes: int
    refs: bytes
    size_bytes: int


class TrashedContent:
    """Questions about one entity by its number. What is damaged is not found."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tree(self, entity_id: int, digest: bytes) -> TrashedTree | None:
        """Return a tree, or None where there is none."""
        query = sa.select(
            trees.c.digest,
            trees.c.file_count,
            trees.c.reference_count,
            trees.c.size_bytes,
            trees.c.page_count,
            trees.c.state,
        ).where(trees.c.entity_id == entity_id, trees.c.digest == digest, trees.c.state.in_(_REVIVABLE))
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else TrashedTree(TreeRow(*row[:-1]), row.state == ContentState.CONDEMNED.value)

    async def pages(self, entity_id: int, digest: bytes) -> list[TreePageRow]:
        """Return all pages of a tree in order: about 800 files each."""
        query = (
            sa.select(tree_pages.c.seq, tree_pages.c.first_path, tree_pages.c.page_digest, tree_pages.c.entry_count)
            .where(tree_pages.c.entity_id == entity_id, tree_pages.c.tree_digest == digest)
            .order_by(tree_pages.c.seq)
        )
        async with self._database.read() as connection:
            return [TreePageRow(*row) for row in (await connection.execute(query)).all()]

    async def chunk_counts(self, entity_id: int, digests: Collection[bytes]) -> dict[bytes, int]:
        """Return how many chunks each of the blobs has; those that cannot be live again are left out."""
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        query = (
            sa.select(blobs.c.digest, blobs.c.chunk_count)
            .select_from(wanted.table)
            .join(blobs, sa.and_(blobs.c.entity_id == entity_id, blobs.c.digest == wanted.value))
            .where(blobs.c.state.in_(_REVIVABLE))
        )
        async with self._database.read() as connection:
            return {row.digest: row.chunk_count for row in (await connection.execute(query)).all()}

    async def recipe_parts(
        self, entity_id: int, digests: Collection[bytes], *, only_condemned: bool = False
    ) -> AsyncIterator[TrashedPart]:
        """Yield the parts of the recipes of blobs that have several chunks, or of those of them that are condemned.

        Those of one blob come one after the other, in order.
        """
        if not digests:
            return
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        states = [ContentState.CONDEMNED.value] if only_condemned else _REVIVABLE
        its_blob = sa.and_(recipe_parts.c.entity_id == blobs.c.entity_id, recipe_parts.c.blob_digest == blobs.c.digest)
        query = (
            sa.select(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes, recipe_parts.c.refs, blobs.c.size_bytes)
            .select_from(wanted.table)
            .join(blobs, sa.and_(blobs.c.entity_id == entity_id, blobs.c.digest == wanted.value))
            .join(recipe_parts, its_blob)
            .where(blobs.c.chunk_count > 1, blobs.c.state.in_(states))
            .order_by(recipe_parts.c.blob_digest, recipe_parts.c.start_bytes)
            .execution_options(yield_per=_PARTS)
        )
        async with self._database.read() as connection, connection.stream(query) as rows:
            async for row in rows:
                yield TrashedPart(*row)

    async def places(self, entity_id: int, digests: Collection[bytes]) -> dict[bytes, Location]:
        """Return where chunks or pages lie in packs that are live or condemned."""
        if not digests:
            return {}
        wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        query = (
            sa.select(
                chunks.c.digest, chunks.c.pack_id, chunks.c.record_offset, chunks.c.stored_bytes, chunks.c.raw_bytes
            )
            .select_from(wanted.table)
            .join(chunks, sa.and_(chunks.c.entity_id == entity_id, chunks.c.digest == wanted.value))
            .join(packs, packs.c.id == chunks.c.pack_id)
            .where(packs.c.state.in_(_REVIVABLE_PACKS))
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {digest: Location(UUID(bytes=pack), *rest) for digest, pack, *rest in rows}
