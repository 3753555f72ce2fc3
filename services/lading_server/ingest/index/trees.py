"""Stored trees and the list of each one's pages."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.errors import TreeNotFound
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.rows import TreePageRow, TreeRow
from lading_server.ingest.index.schema import ContentState, tree_pages, trees


class TreeIndex:
    """Questions about trees. One that is condemned is not there."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def get(self, entity: str, digest: bytes) -> TreeRow:
        """Return a tree's totals. Raises TreeNotFound."""
        entity_id = await self._entities.find(entity)
        async with self._database.read() as connection:
            return await _get(connection, entity_id, digest)

    async def pages(self, entity: str, digest: bytes, from_path: bytes | None, limit: int) -> list[TreePageRow]:
        """Return up to `limit` pages in order, from the one that has `from_path`, or would have it.

        None, and a path before all others, mean from the first.

        Raises:
            TreeNotFound: The entity has no such tree.
        """
        entity_id = await self._entities.find(entity)
        mine = sa.and_(tree_pages.c.entity_id == entity_id, tree_pages.c.tree_digest == digest)
        query = sa.select(
            tree_pages.c.seq, tree_pages.c.first_path, tree_pages.c.page_digest, tree_pages.c.entry_count
        ).where(mine)
        if from_path is not None:
            first = (
                sa.select(tree_pages.c.seq)
                .where(mine, tree_pages.c.first_path <= from_path)
                .order_by(tree_pages.c.first_path.desc())
                .limit(1)
            )
            query = query.where(tree_pages.c.seq >= sa.func.coalesce(first.scalar_subquery(), 0))
        async with self._database.read() as connection:
            await _get(connection, entity_id, digest)
            rows = (await connection.execute(query.order_by(tree_pages.c.seq).limit(limit))).all()
        return [TreePageRow(*row) for row in rows]


async def _get(connection: AsyncConnection, entity_id: int | None, digest: bytes) -> TreeRow:
    query = sa.select(
        trees.c.digest, trees.c.file_count, trees.c.reference_count, trees.c.size_bytes, trees.c.page_count
    ).where(trees.c.entity_id == entity_id, trees.c.digest == digest, trees.c.state == ContentState.LIVE.value)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise TreeNotFound(
            f"there is no tree b3:{digest.hex()} here; check the digest and the entity", digest=f"b3:{digest.hex()}"
        )
    return TreeRow(*row)
