"""Which packs hold what a tree is made of: its pages, and the chunks of its blobs.

Set-based: thousands of digests a statement, and only the ids of packs come back. The caller's connection says at which
moment it is true.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.direct import rows_of
from lading_server.common.errors import MissingBlobs
from lading_server.ingest.index.digests import DigestSet
from lading_server.ingest.index.rows import REF_BYTES
from lading_server.ingest.index.schema import DIGEST_BYTES, blobs, chunks, recipe_parts, tree_pages
from lading_server.ingest.index.sql import ByteParameter

# Digests of one statement. The time of a statement that long is the time of its rows.
BATCH = 8192


class TreeHoldings:
    """Finds packs. Whether they are live is for the caller to ask. Its statements are made once."""

    def __init__(self, dialect: str) -> None:
        mine: sa.BindParameter[int] = sa.bindparam("entity")
        wanted = self._wanted = ByteParameter(dialect, DIGEST_BYTES)
        self._of_pages = (
            sa.select(chunks.c.pack_id)
            .distinct()
            .select_from(tree_pages)
            .outerjoin(chunks, sa.and_(chunks.c.entity_id == mine, chunks.c.digest == tree_pages.c.page_digest))
            .where(tree_pages.c.entity_id == mine, tree_pages.c.tree_digest == sa.bindparam("tree"))
        )
        is_wanted_blob = sa.and_(blobs.c.entity_id == mine, blobs.c.digest == wanted.value)
        # A blob of one chunk has that chunk's digest; one of several has a recipe, and is no chunk's row here.
        has_recipe = blobs.c.chunk_count > 1
        is_its_chunk = sa.and_(chunks.c.entity_id == mine, chunks.c.digest == blobs.c.digest, blobs.c.chunk_count == 1)
        self._of_blobs = (
            sa.select(chunks.c.pack_id, has_recipe)
            .distinct()
            .select_from(wanted.table)
            .join(blobs, is_wanted_blob)
            .outerjoin(chunks, is_its_chunk)
            .where(blobs.c.chunk_count > 0)
        )
        self._of_chunks = (
            sa.select(chunks.c.pack_id)
            .distinct()
            .select_from(wanted.table)
            .outerjoin(chunks, sa.and_(chunks.c.entity_id == mine, chunks.c.digest == wanted.value))
        )
        # Rows that a blob of one chunk left behind when it had more are not its recipe any more.
        self._recipes = (
            sa.select(recipe_parts.c.refs)
            .select_from(wanted.table)
            .join(blobs, is_wanted_blob)
            .join(
                recipe_parts,
                sa.and_(recipe_parts.c.entity_id == mine, recipe_parts.c.blob_digest == blobs.c.digest),
            )
            .where(blobs.c.chunk_count > 1)
            # A recipe's row has up to 36 KiB.
            .execution_options(yield_per=64)
        )

    async def packs(
        self, connection: AsyncConnection, entity_id: int, tree_digest: bytes, blobs_: DigestSet
    ) -> set[bytes]:
        """Return the ids of all packs that hold pages of the tree or chunks of the blobs.

        Raises:
            MissingBlobs: A page or a chunk is in no pack at all. A blob that is not there is not noticed here.
        """
        search = _Search(connection, {"entity": entity_id})
        await search.run(self._of_pages, {"tree": tree_digest}, "a page of the tree")
        for batch in blobs_.batches(BATCH):
            wanted = self._wanted.of(batch)
            of_blobs = await rows_of(connection, self._of_blobs, {"entity": entity_id, **wanted})
            search.add({pack for pack, has_recipe in of_blobs if not has_recipe}, "a chunk")
            if any(has_recipe for _, has_recipe in of_blobs):
                await self._add_recipes(search, connection, {"entity": entity_id, **wanted})
        return search.found

    async def _add_recipes(self, search: _Search, connection: AsyncConnection, parameters: dict[str, Any]) -> None:
        # A chunk may come twice; that costs its second look-up, and remembering all would cost memory.
        pending: set[bytes] = set()
        async with connection.stream(self._recipes, parameters) as rows:
            async for (refs,) in rows:
                pending.update(refs[at : at + DIGEST_BYTES] for at in range(0, len(refs), REF_BYTES))
                if len(pending) >= BATCH:
                    await search.run(self._of_chunks, self._wanted.of(sorted(pending)), "a chunk")
                    pending = set()
        if pending:
            await search.run(self._of_chunks, self._wanted.of(sorted(pending)), "a chunk")


class _Search:
    """The packs that were found so far."""

    def __init__(self, connection: AsyncConnection, parameters: dict[str, Any]) -> None:
        self._connection = connection
        self._parameters = parameters
        self.found: set[bytes] = set()

    async def run(self, query: sa.Select[Any], parameters: dict[str, Any], what: str) -> None:
        """Add what a query finds. Raises MissingBlobs where it finds that something is in no pack."""
        rows = await rows_of(self._connection, query, {**self._parameters, **parameters})
        self.add({row.pack_id for row in rows}, what)

    def add(self, packs: set[bytes], what: str) -> None:
        """Add packs. Raises MissingBlobs where something is in none."""
        if None in packs:
            raise MissingBlobs(f"{what} was collected; upload the content again, then commit again", digests="")
        self.found |= packs
