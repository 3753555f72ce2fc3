"""How many bytes each entity stores, and the bound on that.

What counts are the records of its chunks and tree pages that lie in live packs, each once, and the references of its
recipes. The sum is kept in one row an entity, which is changed in the same transaction as the rows that it sums up:
whoever writes, moves or removes some of those, or lets a pack live no longer, calls `add_usage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database, insert_into
from lading_server.common.direct import row_of
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.schema import chunks, packs, recipe_parts, usage
from lading_server.ingest.packs.format import ALIGNMENT, HEADER_BYTES

# What record_span computes, in SQL.
RECORD_SPAN = HEADER_BYTES + (chunks.c.stored_bytes + (ALIGNMENT - 1)) // ALIGNMENT * ALIGNMENT


async def add_usage(connection: AsyncConnection, database: Database, changes: Mapping[int, int]) -> dict[int, int]:
    """Add bytes, or take some away, by the numbers of entities; return what each of these stores then.

    The last rows that a transaction locks, in the order of the numbers: see `group`.
    """
    after: dict[int, int] = {}
    for entity_id, change in sorted(changes.items()):
        row = {"entity_id": entity_id, "stored_bytes": change}
        after[entity_id] = (await row_of(connection, _adding(database.dialect), row)).stored_bytes
    return after


@cache
def _adding(dialect: str) -> Any:
    """Return what adds to an entity's bytes and returns the sum; made once for each dialect."""
    new = insert_into(dialect, usage)
    added = new.on_conflict_do_update(
        index_elements=["entity_id"], set_={"stored_bytes": usage.c.stored_bytes + new.excluded.stored_bytes}
    )
    return added.returning(usage.c.stored_bytes)


async def bytes_in_pack(connection: AsyncConnection, pack: bytes) -> dict[int, int]:
    """Return what a pack's records count for, by the numbers of entities: what is lost when it lives no longer."""
    query = sa.select(chunks.c.entity_id, sa.func.sum(RECORD_SPAN)).where(chunks.c.pack_id == pack)
    rows = await connection.execute(query.group_by(chunks.c.entity_id))
    return {entity_id: int(size_bytes) for entity_id, size_bytes in rows}


async def count_anew(connection: AsyncConnection, live: sa.ColumnElement[bool]) -> dict[int, int]:
    """Return what each entity stores, from the rows that `usage` sums up: what it must be.

    Args:
        live: The condition under which a pack's content counts.
    """
    of_chunks = sa.select(chunks.c.entity_id, sa.func.sum(RECORD_SPAN)).join(packs, packs.c.id == chunks.c.pack_id)
    of_recipes = sa.select(recipe_parts.c.entity_id, sa.func.sum(sa.func.length(recipe_parts.c.refs)))
    counted: dict[int, int] = {}
    for query in (
        of_chunks.where(live).group_by(chunks.c.entity_id),
        of_recipes.group_by(recipe_parts.c.entity_id),
    ):
        for entity_id, size_bytes in await connection.execute(query):
            counted[entity_id] = counted.get(entity_id, 0) + int(size_bytes)
    return counted


class UsageIndex:
    """Questions about usage."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def stored_bytes(self, entity: str) -> int:
        """Return how much an entity stores; 0 for one that never stored anything."""
        entity_id = await self._entities.find(entity)
        if entity_id is None:
            return 0
        async with self._database.read() as connection:
            query = sa.select(usage.c.stored_bytes).where(usage.c.entity_id == entity_id)
            return await connection.scalar(query) or 0
