"""Stored trees and the list of each one's pages."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.common.errors import TreeNotFound
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.rows import TreePageRow, TreeRow
from lading_server.ingest.index.schema import READABLE_STATES, ContentState, blobs, chunks, packs, tree_pages, trees
from lading_server.ingest.index.sql import is_one_of

# Made once: to make a statement costs more than to run it.
_is_named = sa.and_(trees.c.entity_id == sa.bindparam("entity"), trees.c.digest == sa.bindparam("tree"))
_is_whole = sa.and_(_is_named, trees.c.state == ContentState.LIVE.value)
_is_wanted = sa.and_(_is_named, is_one_of(trees.c.state, (state.value for state in READABLE_STATES)))
_TOTALS = sa.select(trees.c.digest, trees.c.file_count, trees.c.reference_count, trees.c.size_bytes, trees.c.page_count)
_GET = _TOTALS.where(_is_whole)
_READABLE = _TOTALS.where(_is_wanted)
# A page is there when its row is, and the pack that it lies in is live.
_is_there = (
    sa.select(sa.literal_column("1"))
    .select_from(chunks)
    .join(packs, packs.c.id == chunks.c.pack_id)
    .where(chunks.c.entity_id == tree_pages.c.entity_id, chunks.c.digest == tree_pages.c.page_digest, is_live())
    .exists()
)
_LOST_PAGE = (
    sa.select(tree_pages.c.seq)
    .where(tree_pages.c.entity_id == sa.bindparam("entity"), tree_pages.c.tree_digest == sa.bindparam("tree"))
    .where(~_is_there)
    .limit(sa.literal_column("1"))
)
_ANY_DAMAGED: sa.Select[Any] = (
    sa.select(sa.literal_column("1"))
    .select_from(blobs)
    .where(blobs.c.entity_id == sa.bindparam("entity"), blobs.c.state == sa.literal_column("'damaged'"))
    .limit(sa.literal_column("1"))
)
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
    """Questions about trees. One that is condemned is not there; of one that is damaged, what is left can be read."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def get(self, entity: str, digest: bytes) -> TreeRow:
        """Return a tree's totals. Raises TreeNotFound, also where a page of it is known to be lost."""
        return await self._totals(_GET, entity, digest)

    async def readable(self, entity: str, digest: bytes) -> TreeRow:
        """Return a tree's totals, also where a page of it is known to be lost. Raises TreeNotFound."""
        return await self._totals(_READABLE, entity, digest)

    async def has_every_page(self, entity: str, digest: bytes) -> bool:
        """Tell whether there is such a tree, it is live, and each of its pages lies in a live pack."""
        parameters = {"entity": await self._entities.find(entity), "tree": digest}
        if not await self._database.fetch(_GET, parameters):
            return False
        return not await self._database.fetch(_LOST_PAGE, parameters)

    async def may_miss_blobs(self, entity: str) -> bool:
        """Tell whether the entity has any blob of which a part was lost: if not, no tree names one."""
        return bool(await self._database.fetch(_ANY_DAMAGED, {"entity": await self._entities.find(entity)}))

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
            await self.readable(entity, digest)
        return [TreePageRow(*row) for row in rows]

    async def _totals(self, query: sa.Select[Any], entity: str, digest: bytes) -> TreeRow:
        entity_id = await self._entities.find(entity)
        rows = await self._database.fetch(query, {"entity": entity_id, "tree": digest})
        if not rows:
            raise _not_found(digest)
        return TreeRow(*rows[0])


def _not_found(digest: bytes) -> TreeNotFound:
    return TreeNotFound(
        f"there is no tree b3:{digest.hex()} here; check the digest and the entity", digest=f"b3:{digest.hex()}"
    )
