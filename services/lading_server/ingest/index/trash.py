"""The trash: what was condemned, until its time is over; and the way back, which is open until then.

A pack goes in three steps, each of which may be repeated: it is `deleting`, in a transaction of its own; its file goes;
its rows go. Blobs and trees are nothing but rows, so they go in one step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.ingest.index.condemn import count_packs
from lading_server.ingest.index.conflicts import run_again_on_conflict
from lading_server.ingest.index.rows import REFS_PER_PART
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ID_BYTES,
    ContentState,
    PackState,
    blobs,
    chunks,
    packs,
    recipe_parts,
    trees,
)
from lading_server.ingest.index.sql import byte_table, constant
from lading_server.ingest.index.usage import add_usage

# Blobs or trees of one transaction, and the pages or parts of recipes that these may have together.
_ROWS = 1000
_PARTS = 4096


class TrashCount(NamedTuple):
    """How much lies in an entity's trash."""

    trees: int
    blobs: int
    packs: int
    pack_bytes: int


class TrashedPack(NamedTuple):
    """A pack that is condemned or being deleted, and its length."""

    pack: UUID
    size_bytes: int


class Trash:
    """What was condemned, of one entity by its number unless said otherwise."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, entity_id: int, until_ms: int | None = None) -> TrashCount:
        """Return how much there is that was condemned until then, or at all."""
        is_trees, is_blobs, is_packs = (_is_trash(table, entity_id, until_ms) for table in (trees, blobs, packs))
        sums = sa.select(sa.func.count(), sa.func.sum(packs.c.durable_bytes)).select_from(packs).where(is_packs)
        async with self._database.read() as connection:
            tree_count = await connection.scalar(sa.select(sa.func.count()).select_from(trees).where(is_trees)) or 0
            blob_count = await connection.scalar(sa.select(sa.func.count()).select_from(blobs).where(is_blobs)) or 0
            pack_count, pack_bytes = (await connection.execute(sums)).one()
        return TrashCount(tree_count, blob_count, pack_count, int(pack_bytes or 0))

    async def purge_trees(self, entity_id: int, until_ms: int) -> int:
        """Remove some trees that were condemned until then, with their pages; return how many, 0 when none is left."""

        async def attempt() -> int:
            async with self._database.write() as connection:
                rows = await _lock_some(connection, trees, trees.c.page_count, entity_id, until_ms)
                digests = _first(rows, 1)
                await self._delete(connection, trees, trees.c.digest, entity_id, digests)
                return len(digests)

        return await run_again_on_conflict(attempt)

    async def purge_blobs(self, entity_id: int, until_ms: int) -> int:
        """Remove some blobs that were condemned until then, with their recipes; return how many, 0 when no more."""

        async def attempt() -> int:
            async with self._database.write() as connection:
                rows = await _lock_some(connection, blobs, blobs.c.chunk_count, entity_id, until_ms)
                digests = _first(rows, REFS_PER_PART)
                if digests:
                    await self._delete_recipes(connection, entity_id, digests)
                await self._delete(connection, blobs, blobs.c.digest, entity_id, digests)
                return len(digests)

        return await run_again_on_conflict(attempt)

    async def past(self, entity_id: int, until_ms: int) -> list[TrashedPack]:
        """Return the packs that were condemned until then, by id."""
        query = (
            sa.select(packs.c.id, packs.c.durable_bytes)
            .where(_is_trash(packs, entity_id, until_ms))
            .order_by(packs.c.id)
        )
        async with self._database.read() as connection:
            return [TrashedPack(UUID(bytes=pack), size) for pack, size in (await connection.execute(query)).all()]

    async def begin_deletion(self, pack: UUID) -> bool:
        """Make a condemned pack one that is being deleted, for ever; False when it was revived."""
        change = (
            sa.update(packs)
            .where(packs.c.id == pack.bytes, packs.c.state == PackState.CONDEMNED.value)
            .values(state=PackState.DELETING.value)
        )
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def deleting(self) -> list[TrashedPack]:
        """Return the packs of all entities that are being deleted, by id."""
        query = (
            sa.select(packs.c.id, packs.c.durable_bytes)
            .where(packs.c.state == PackState.DELETING.value)
            .order_by(packs.c.id)
        )
        async with self._database.read() as connection:
            return [TrashedPack(UUID(bytes=pack), size) for pack, size in (await connection.execute(query)).all()]

    async def forget(self, pack: UUID) -> None:
        """Remove the rows of a pack whose file is gone: what still points to it, some at a time, then its own."""
        while await run_again_on_conflict(lambda: self._forget_chunks(pack)):
            pass
        async with self._database.write() as connection:
            gone = sa.delete(packs).where(packs.c.id == pack.bytes, packs.c.state == PackState.DELETING.value)
            await connection.execute(gone)

    async def revive_packs(self, entity_id: int, ids: Collection[bytes]) -> bool:
        """Take condemned packs out; False, and nothing, when one of them is not in the trash and not live."""

        async def attempt() -> bool:
            async with self._database.write() as connection:
                wanted = byte_table(self._database.dialect, ids, ID_BYTES)
                query = (
                    sa.select(packs.c.id, packs.c.state)
                    .join_from(wanted.table, packs, packs.c.id == wanted.value)
                    .where(packs.c.entity_id == entity_id)
                    .order_by(packs.c.id)
                    .with_for_update(key_share=True, of=packs)
                )
                states = {row.id: row.state for row in (await connection.execute(query)).all()}
                condemned = [pack for pack, state in states.items() if state == PackState.CONDEMNED.value]
                live = [p for p, state in states.items() if state in (PackState.OPEN.value, PackState.SEALED.value)]
                if len(condemned) + len(live) < len(set(ids)):
                    return False
                if condemned:
                    these = byte_table(self._database.dialect, condemned, ID_BYTES)
                    change = sa.update(packs).where(packs.c.id.in_(sa.select(these.value).select_from(these.table)))
                    values = {"state": PackState.SEALED.value, "generation": packs.c.generation + 1}
                    await connection.execute(change.values(**values, condemned_at_ms=None))
                    # On PostgreSQL a chunk may move at this moment from a pack that was dead when its commit began, and
                    # then it counts twice until usage is counted anew.
                    await count_packs(connection, self._database, condemned, 1)
                return True

        return await run_again_on_conflict(attempt)

    async def revive_blobs(self, entity_id: int, digests: Sequence[bytes]) -> bool:
        """Take blobs out; tell whether all of them are live then. Those that are live count one more reference."""
        return await self._revive(blobs, entity_id, digests)

    async def revive_tree(self, entity_id: int, digest: bytes) -> bool:
        """Take a tree out; tell whether it is live then. One that is live counts one more reference."""
        return await self._revive(trees, entity_id, [digest])

    async def _revive(self, table: sa.Table, entity_id: int, digests: Sequence[bytes]) -> bool:
        async def attempt() -> bool:
            async with self._database.write() as connection:
                wanted = byte_table(self._database.dialect, digests, DIGEST_BYTES)
                is_revivable = table.c.state.in_([ContentState.LIVE.value, ContentState.CONDEMNED.value])
                query = (
                    sa.select(table.c.digest)
                    .select_from(wanted.table)
                    .join(table, sa.and_(table.c.entity_id == entity_id, table.c.digest == wanted.value))
                    .where(is_revivable)
                    .order_by(table.c.digest)
                    .with_for_update(key_share=True, of=table)
                )
                found = (await connection.scalars(query)).all()
                if found:
                    these = byte_table(self._database.dialect, found, DIGEST_BYTES)
                    change = sa.update(table).where(
                        table.c.entity_id == entity_id,
                        table.c.digest.in_(sa.select(these.value).select_from(these.table)),
                    )
                    values = {"state": ContentState.LIVE.value, "generation": table.c.generation + 1}
                    await connection.execute(change.values(**values, condemned_at_ms=None))
                return len(found) == len(set(digests))

        return await run_again_on_conflict(attempt)

    async def _forget_chunks(self, pack: UUID) -> int:
        query = (
            sa.select(chunks.c.entity_id, chunks.c.digest)
            .where(chunks.c.pack_id == pack.bytes)
            .order_by(chunks.c.entity_id, chunks.c.digest)
            .limit(_PARTS)
            .with_for_update()
        )
        gone = sa.delete(chunks).where(
            chunks.c.entity_id == sa.bindparam("of_entity"),
            chunks.c.digest == sa.bindparam("gone"),
            chunks.c.pack_id == pack.bytes,
        )
        async with self._database.write() as connection:
            keys = [{"of_entity": each[0], "gone": each[1]} for each in (await connection.execute(query)).all()]
            if keys:
                await connection.execute(gone, keys)
        return len(keys)

    async def _delete(
        self,
        connection: AsyncConnection,
        table: sa.Table,
        column: sa.ColumnElement[bytes],
        entity_id: int,
        digests: Collection[bytes],
    ) -> None:
        if digests:
            these = byte_table(self._database.dialect, digests, DIGEST_BYTES)
            values = sa.select(these.value).select_from(these.table)
            await connection.execute(sa.delete(table).where(table.c.entity_id == entity_id, column.in_(values)))

    async def _delete_recipes(self, connection: AsyncConnection, entity_id: int, digests: Collection[bytes]) -> None:
        these = byte_table(self._database.dialect, digests, DIGEST_BYTES)
        of_these = recipe_parts.c.blob_digest.in_(sa.select(these.value).select_from(these.table))
        gone = sa.delete(recipe_parts).where(recipe_parts.c.entity_id == entity_id, of_these)
        lengths = await connection.scalars(gone.returning(sa.func.length(recipe_parts.c.refs)))
        freed_bytes = sum(lengths)
        if freed_bytes:
            await add_usage(connection, self._database, {entity_id: -freed_bytes})


def _is_trash(table: sa.Table, entity_id: int, until_ms: int | None) -> sa.ColumnElement[bool]:
    # What is not NULL has an index of its own, so that what is live is not walked. SQLite would walk all rows of the
    # entity if it could find these by their key.
    is_mine = sa.and_(
        table.c.entity_id + constant(0) == entity_id,
        table.c.state == ContentState.CONDEMNED.value,
        table.c.condemned_at_ms.is_not(None),
    )
    return is_mine if until_ms is None else sa.and_(is_mine, table.c.condemned_at_ms <= until_ms)


async def _lock_some(
    connection: AsyncConnection, table: sa.Table, parts: sa.ColumnElement[int], entity_id: int, until_ms: int
) -> Sequence[Any]:
    """Lock some rows that may go, but for those that somebody revives at this moment."""
    query = (
        sa.select(table.c.digest, parts)
        .where(_is_trash(table, entity_id, until_ms))
        .order_by(table.c.condemned_at_ms)
        .limit(_ROWS)
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(query)).all()


def _first(rows: Sequence[Any], per_part: int) -> list[bytes]:
    """Return as many as have few enough parts together, and one at least."""
    digests: list[bytes] = []
    parts = 0
    for row in rows:
        digest, count = row[0], row[1]
        parts += 1 + count // per_part
        if digests and parts > _PARTS:
            break
        digests.append(digest)
    return digests
