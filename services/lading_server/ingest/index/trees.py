"""Stored trees and the list of each one's pages."""

from __future__ import annotations

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.common.errors import TreeNotFound
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.rows import TreePageRow, TreeRow
from lading_server.ingest.index.schema import ContentState, tree_pages, trees

# Made once: to make a statement costs more than to run it.
_is_wanted = sa.and_(
    trees.c.entity_id == sa.bindparam("entity"),
    trees.c.digest == sa.bindparam("tree"),
    trees.c.state == ContentState.LIVE.value,
)
_GET = sa.select(
    trees.c.digest, trees.c.file_count, trees.c.reference_count, trees.c.size_bytes, trees.c.page_count
).where(_is_wanted)
_FIRST_PAGES = (
    sa.select(tree_pages.c.seq, tree_pages.c.first_path, tree_pages.c.page_digest, tree_pages.c.entry_count)
    .select_from(trees)
    .join(tree_pages, sa.and_(tree_pages.c.entity_id == trees.c.entity_id, tree_pages.c.tree_digest == trees.c.digest))
    .where(_is_wanted)
    .order_by(tree_pages.c.seq)
    .limit(sa.bindparam("most"))
)
_before = tree_pages.alias("before")
_page_of_path = (
    sa.select(_before.c.seq)
    .where(
        _before.c.entity_id == sa.bindparam("entity"),
        _before.c.tree_digest == sa.bindparam("tree"),
        _before.c.first_path <= sa.bindparam("path"),
    )
    .order_by(_before.c.first_path.desc())
    .limit(sa.literal_column("1"))
    .scalar_subquery()
)
_PAGES_FROM = _FIRST_PAGES.where(tree_pages.c.seq >= sa.func.coalesce(_page_of_path, sa.literal_column("0")))


class TreeIndex:
    """Questions about trees. One that is condemned is not there."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def get(self, entity: str, digest: bytes) -> TreeRow:
        """Return a tree's totals. Raises TreeNotFound."""
        entity_id = await self._entities.find(entity)
        rows = await self._database.fetch(_GET, {"entity": entity_id, "tree": digest})
        if not rows:
            raise _not_found(digest)
        return TreeRow(*rows[0])

    async def pages(self, entity: str, digest: bytes, from_path: bytes | None, limit: int) -> list[TreePageRow]:
        """Return up to `limit` pages in order, from the one that has `from_path`, or would have it.

        None, and a path before all others, mean from the first.

        Raises:
            TreeNotFound: The entity has no such tree.
        """
        entity_id = await self._entities.find(entity)
        parameters = {"entity": entity_id, "tree": digest, "most": limit}
        query = _FIRST_PAGES
        if from_path is not None:
            query, parameters = _PAGES_FROM, {**parameters, "path": from_path}
        rows = await self._database.fetch(query, parameters)
        if not rows:
            # A tree without pages, or none.
            await self.get(entity, digest)
        return [TreePageRow(*row) for row in rows]


def _not_found(digest: bytes) -> TreeNotFound:
    return TreeNotFound(
        f"there is no tree b3:{digest.hex()} here; check the digest and the entity", digest=f"b3:{digest.hex()}"
    )
