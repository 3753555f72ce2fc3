"""What becomes of the rows when content is lost, and when it is whole again.

A chunk that is lost has no row, so that it is asked for when the same bytes are sent again. What needs it is damaged
until it is committed again, or until a check finds every part of it back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database, is_conflict
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.rows import REF_BYTES
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ID_BYTES,
    ContentState,
    blobs,
    chunks,
    packs,
    recipe_parts,
    tree_pages,
    trees,
)
from lading_server.ingest.index.sql import byte_table
from lading_server.ingest.index.usage import add_usage
from lading_server.ingest.packs.format import record_span
from lading_server.ingest.packs.writer import Location

# Lost chunks of one transaction; each is a statement of its own, and losses are rare.
_CHUNKS_AT_ONCE = 1000
# Blobs and trees of one transaction, as in every other place that writes many rows.
_ROWS_AT_ONCE = 8192
# Rows read at once: of recipes, up to 36 KiB each; of trees' pages, some 100 bytes each.
_PARTS_AT_ONCE = 64
_PAGES_AT_ONCE = 8192
# How often a transaction that lost against another server is tried again.
_RETRIES = 10

T = TypeVar("T")


@dataclass(slots=True)
class Loss:
    """What was lost: chunks that are not found any more, and what needs them and is damaged by that."""

    chunks: set[bytes] = field(default_factory=set)
    blobs: set[bytes] = field(default_factory=set)
    trees: set[bytes] = field(default_factory=set)

    def add(self, other: Loss) -> None:
        """Count another loss to this one."""
        self.chunks |= other.chunks
        self.blobs |= other.blobs
        self.trees |= other.trees


# For each blob or tree, which lost chunks it needs.
_Needing = dict[bytes, set[bytes]]


class LossIndex:
    """Changes rows where content was lost."""

    def __init__(self, database: Database, entities: Entities) -> None:
        self._database = database
        self._entities = entities

    async def mark(self, entity: str, lost: Mapping[bytes, Location]) -> Loss:
        """Forget chunks at these places, and mark what needs them as damaged. Returns what changed.

        A chunk that lies elsewhere by now is not lost. What needs the others is looked for first, because that may take
        long: a blob or a tree that was committed in just that time is left as it is. No pin can be made on it, for a
        pin wants each chunk, and a check marks it.

        Args:
            lost: Chunks and tree pages whose bytes are gone or wrong; up to about 30,000, for all are in memory.
        """
        entity_id = await self._entities.find(entity)
        loss = Loss()
        if entity_id is None or not lost:
            return loss
        digests = set(lost)
        of_blobs = await self._blobs_needing(entity_id, digests)
        of_trees = await self._trees_needing(entity_id, digests)
        for some in _parts(lost, _CHUNKS_AT_ONCE):
            marked = await self._retried(_Marking(self._database, entity_id, some, of_blobs, of_trees).run)
            loss.add(marked)
            # What was too much for one transaction; nothing of it can be pinned in the meantime.
            for table, found in ((blobs, marked.blobs), (trees, marked.trees)):
                await self._damage_rest(entity_id, table, sorted(found)[_ROWS_AT_ONCE:])
        return loss

    async def places_in(self, pack: UUID, after: bytes, limit: int) -> dict[bytes, Location]:
        """Return up to `limit` chunks that lie in a pack, by digest, of those that come after one."""
        query = (
            sa.select(chunks.c.digest, chunks.c.record_offset, chunks.c.stored_bytes, chunks.c.raw_bytes)
            .join(packs, sa.and_(packs.c.id == chunks.c.pack_id, packs.c.entity_id == chunks.c.entity_id))
            .where(chunks.c.pack_id == pack.bytes, chunks.c.digest > after)
            .order_by(chunks.c.digest)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return {row[0]: Location(pack, *row[1:]) for row in (await connection.execute(query)).all()}

    async def damage(self, table: sa.Table, entity_id: int, digest: bytes, generation: int) -> bool:
        """Mark a blob or tree as damaged, if it has not changed since its generation was read."""
        return await self._change(table, entity_id, digest, generation, ContentState.LIVE, ContentState.DAMAGED)

    async def restore(self, table: sa.Table, entity_id: int, digest: bytes, generation: int) -> bool:
        """Mark a damaged blob or tree as live: every part of it was found after its generation was read."""
        return await self._change(table, entity_id, digest, generation, ContentState.DAMAGED, ContentState.LIVE)

    async def _change(
        self,
        table: sa.Table,
        entity_id: int,
        digest: bytes,
        generation: int,
        before: ContentState,
        after: ContentState,
    ) -> bool:
        change = (
            sa.update(table)
            .where(table.c.entity_id == entity_id, table.c.digest == digest)
            .where(table.c.generation == generation, table.c.state == before.value)
            .values(state=after.value, generation=table.c.generation + 1)
        )
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    async def _damage_rest(self, entity_id: int, table: sa.Table, digests: Sequence[bytes]) -> None:
        for first in range(0, len(digests), _ROWS_AT_ONCE):
            some = digests[first : first + _ROWS_AT_ONCE]

            async def change(connection: AsyncConnection, some: Sequence[bytes] = some) -> None:
                await _damage(connection, self._database, table, entity_id, some)

            await self._retried(change)

    async def _retried(self, change: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        for tries_left in reversed(range(_RETRIES)):
            try:
                async with self._database.write() as connection:
                    return await change(connection)
            except DBAPIError as error:
                if not tries_left or not is_conflict(error):
                    raise
        raise AssertionError("the last round returns or raises")

    async def _blobs_needing(self, entity_id: int, lost: set[bytes]) -> _Needing:
        """Return the blobs of several chunks that need any of these. Reads every recipe of the entity, in parts."""
        found: _Needing = {}
        key = (recipe_parts.c.blob_digest, recipe_parts.c.start_bytes)
        after: tuple[bytes, int] = (b"", -1)
        while True:
            query = (
                sa.select(*key, recipe_parts.c.refs)
                .where(recipe_parts.c.entity_id == entity_id, sa.tuple_(*key) > sa.tuple_(*after))
                .order_by(*key)
                .limit(_PARTS_AT_ONCE)
            )
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            for blob, _, refs in rows:
                needed = lost.intersection(refs[at : at + DIGEST_BYTES] for at in range(0, len(refs), REF_BYTES))
                if needed:
                    found.setdefault(blob, set()).update(needed)
            if len(rows) < _PARTS_AT_ONCE:
                return found
            after = (rows[-1][0], rows[-1][1])

    async def _trees_needing(self, entity_id: int, lost: set[bytes]) -> _Needing:
        """Return the trees that have any of these as a page. Reads every list of pages of the entity, in parts."""
        found: _Needing = {}
        key = (tree_pages.c.tree_digest, tree_pages.c.seq)
        after: tuple[bytes, int] = (b"", -1)
        while True:
            query = (
                sa.select(*key, tree_pages.c.page_digest)
                .where(tree_pages.c.entity_id == entity_id, sa.tuple_(*key) > sa.tuple_(*after))
                .order_by(*key)
                .limit(_PAGES_AT_ONCE)
            )
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            for tree, _, page in rows:
                if page in lost:
                    found.setdefault(tree, set()).add(page)
            if len(rows) < _PAGES_AT_ONCE:
                return found
            after = (rows[-1][0], rows[-1][1])


class _Marking:
    """One transaction. Rows are locked in the order of index/group.py: chunks, packs, blobs, trees, usage."""

    def __init__(
        self,
        database: Database,
        entity_id: int,
        lost: Mapping[bytes, Location],
        of_blobs: _Needing,
        of_trees: _Needing,
    ) -> None:
        self.entity_id = entity_id
        self._database = database
        self._lost = lost
        self._of_blobs = of_blobs
        self._of_trees = of_trees

    async def run(self, connection: AsyncConnection) -> Loss:
        """Return what was lost: of blobs and trees, each by digest, the first _ROWS_AT_ONCE are marked."""
        gone = [digest for digest in sorted(self._lost) if await self._forget(connection, digest)]
        if not gone:
            return Loss()
        freed_bytes = await self._freed_bytes(connection, gone)
        loss = Loss(set(gone), _needing(self._of_blobs, gone), _needing(self._of_trees, gone))
        alone = await _damage(connection, self._database, blobs, self.entity_id, gone, chunk_count=1)
        for table, found in ((blobs, loss.blobs), (trees, loss.trees)):
            await _damage(connection, self._database, table, self.entity_id, sorted(found)[:_ROWS_AT_ONCE])
        if freed_bytes:
            await add_usage(connection, self._database, {self.entity_id: -freed_bytes})
        loss.blobs |= alone
        return loss

    async def _forget(self, connection: AsyncConnection, digest: bytes) -> bool:
        place = self._lost[digest]
        row = sa.delete(chunks).where(
            chunks.c.entity_id == self.entity_id,
            chunks.c.digest == digest,
            chunks.c.pack_id == place.pack.bytes,
            chunks.c.record_offset == place.offset,
        )
        return (await connection.execute(row)).rowcount == 1

    async def _freed_bytes(self, connection: AsyncConnection, gone: Sequence[bytes]) -> int:
        """Return what the forgotten rows counted for: nothing where their pack is not live."""
        ids = {self._lost[digest].pack.bytes for digest in gone}
        wanted = byte_table(self._database.dialect, ids, ID_BYTES)
        # Locked after the rows were taken: whoever lets a pack live no longer counts either with them or after this.
        lock = (
            sa.select(packs.c.id)
            .join_from(wanted.table, packs, packs.c.id == wanted.value)
            .where(is_live())
            .order_by(packs.c.id)
            .with_for_update(key_share=True, of=packs)
        )
        live = set((await connection.scalars(lock)).all())
        places = (self._lost[digest] for digest in gone)
        return sum(record_span(place.stored_bytes) for place in places if place.pack.bytes in live)


async def _damage(
    connection: AsyncConnection,
    database: Database,
    table: sa.Table,
    entity_id: int,
    digests: Collection[bytes],
    *,
    chunk_count: int | None = None,
) -> set[bytes]:
    """Mark those of the blobs or trees that are live as damaged, and return them.

    `chunk_count`: only blobs of so many; None for trees, and for blobs that have a recipe.
    """
    wanted = byte_table(database.dialect, digests, DIGEST_BYTES)
    is_wanted: list[Any] = [table.c.entity_id == entity_id, table.c.state == ContentState.LIVE.value]
    if table is blobs:
        is_wanted.append(blobs.c.chunk_count == chunk_count if chunk_count is not None else blobs.c.chunk_count > 1)
    lock = (
        sa.select(table.c.digest)
        .join_from(wanted.table, table, table.c.digest == wanted.value)
        .where(*is_wanted)
        .order_by(table.c.digest)
        .with_for_update(key_share=True, of=table)
    )
    found = set((await connection.scalars(lock)).all())
    if found:
        values = byte_table(database.dialect, found, DIGEST_BYTES)
        change = (
            sa.update(table)
            .where(table.c.entity_id == entity_id)
            .where(table.c.digest.in_(sa.select(values.value).select_from(values.table)))
            .values(state=ContentState.DAMAGED.value, generation=table.c.generation + 1)
        )
        await connection.execute(change)
    return found


def _needing(found: _Needing, lost: Collection[bytes]) -> set[bytes]:
    return {key for key, needed in found.items() if not needed.isdisjoint(lost)}


def _parts(lost: Mapping[bytes, Location], size: int) -> Iterator[dict[bytes, Location]]:
    items = iter(sorted(lost.items()))
    while some := dict(islice(items, size)):
        yield some
