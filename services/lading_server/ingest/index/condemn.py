"""Condemning: what was read and not needed goes into the trash, unless a reference was added since.

Whoever adds one counts the row's generation up in the same transaction. So a row whose generation is what it was before
the collector computed what is needed is still not needed. Nothing is ever asked and changed in one
`UPDATE … WHERE NOT EXISTS (…)`: under READ COMMITTED its two halves see two moments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.ingest.index.conflicts import run_again_on_conflict
from lading_server.ingest.index.group import LostRace
from lading_server.ingest.index.mark_queries import DoomedKind, is_kept
from lading_server.ingest.index.packs import refer_to
from lading_server.ingest.index.schema import (
    DIGEST_BYTES,
    ID_BYTES,
    ContentState,
    PackState,
    blobs,
    chunks,
    doomed,
    packs,
    trees,
)
from lading_server.ingest.index.sql import ByteParameter
from lading_server.ingest.index.usage import add_usage, bytes_in_pack
from lading_server.ingest.packs.writer import Location

# Rows of a rehearsal that are forgotten in one transaction.
_FORGOTTEN = 4096


class Move(NamedTuple):
    """A chunk that was copied, and where the copy lies."""

    digest: bytes
    location: Location


class _Collectable(NamedTuple):
    """A kind of row that is condemned by its generation."""

    table: sa.Table
    kind: DoomedKind


_TREES = _Collectable(trees, DoomedKind.TREE)
_BLOBS = _Collectable(blobs, DoomedKind.BLOB)


class Condemner:
    """Condemns rows of one entity, by its number. A rehearsal condemns nothing, and remembers what it would have."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = ByteParameter(database.dialect, DIGEST_BYTES)
        self._packs = ByteParameter(database.dialect, ID_BYTES)

    async def trees(
        self, entity_id: int, generations: Mapping[bytes, int], now_ms: int, *, rehearse: bool
    ) -> dict[bytes, int]:
        """Condemn the trees whose generation is still that; return how large each of these is, in bytes."""
        return await self._content(_TREES, entity_id, generations, now_ms, rehearse=rehearse)

    async def blobs(
        self, entity_id: int, generations: Mapping[bytes, int], now_ms: int, *, rehearse: bool
    ) -> dict[bytes, int]:
        """Condemn the blobs whose generation is still that; return how large each of these is, in bytes."""
        return await self._content(_BLOBS, entity_id, generations, now_ms, rehearse=rehearse)

    async def packs(self, generations: Mapping[bytes, int], now_ms: int) -> set[bytes]:
        """Condemn the packs whose generation is still that, and count their content as stored no longer."""

        async def attempt() -> set[bytes]:
            async with self._database.write() as connection:
                return await self._condemn_packs(connection, generations, now_ms)

        return await run_again_on_conflict(attempt)

    async def move(
        self, entity_id: int, pack: bytes, generation: int, moves: Sequence[Move], *, condemn_at_ms: int | None
    ) -> bool:
        """Let chunks lie where their copies are; False, and nothing, when a reference to the old pack was added.

        The old pack's generation is one more afterwards. What points elsewhere by now is left there.

        Args:
            generation: The old pack's, read before it was computed what of it is needed.
            condemn_at_ms: This is the last of it, so condemn the old pack; None: more follows.
        """

        async def attempt() -> bool:
            async with self._database.write() as connection:
                await self._move_rows(connection, entity_id, pack, moves)
                copies = {each.location.pack.bytes for each in moves}
                # In one statement, so that packs are locked in the order of their ids.
                live = await refer_to(connection, self._database.dialect, {pack, *copies})
                now = sa.select(packs.c.generation).where(packs.c.id == pack, packs.c.state == PackState.SEALED.value)
                if not live >= copies or await connection.scalar(now) != generation + 1:
                    raise LostRace
                if condemn_at_ms is not None:
                    await self._condemn_packs(connection, {pack: generation + 1}, condemn_at_ms)
                return True

        try:
            return await run_again_on_conflict(attempt)
        except LostRace:
            return False

    async def forget_rehearsal(self) -> None:
        """Forget what a rehearsal remembered, one that was cut short too."""
        some = sa.select(doomed.c.entity_id, doomed.c.digest, doomed.c.kind).limit(_FORGOTTEN)
        keys = sa.tuple_(doomed.c.entity_id, doomed.c.digest, doomed.c.kind)
        while True:
            async with self._database.read() as connection:
                if (await connection.execute(some.limit(1))).first() is None:
                    return
            async with self._database.write() as connection:
                await connection.execute(sa.delete(doomed).where(keys.in_(some)))

    async def _content(
        self, what: _Collectable, entity_id: int, generations: Mapping[bytes, int], now_ms: int, *, rehearse: bool
    ) -> dict[bytes, int]:
        async def attempt() -> dict[bytes, int]:
            async with self._database.write() as connection:
                sizes = await self._unchanged(connection, what, entity_id, generations)
                if rehearse:
                    rows = [{"entity_id": entity_id, "digest": each, "kind": what.kind.value} for each in sorted(sizes)]
                    if rows:
                        await connection.execute(self._database.insert(doomed).on_conflict_do_nothing(), rows)
                elif sizes:
                    await self._condemn(connection, what.table, entity_id, sizes, now_ms)
                return sizes

        return await run_again_on_conflict(attempt) if generations else {}

    async def _unchanged(
        self, connection: AsyncConnection, what: _Collectable, entity_id: int, generations: Mapping[bytes, int]
    ) -> dict[bytes, int]:
        """Lock those rows that are as they were, and return their sizes."""
        table = what.table
        query = (
            sa.select(table.c.digest, table.c.generation, table.c.size_bytes)
            .select_from(self._wanted.table)
            .join(table, sa.and_(table.c.entity_id == entity_id, table.c.digest == self._wanted.value))
            .where(is_kept(table, what.kind))
            .order_by(table.c.digest)
            .with_for_update(key_share=True, of=table)
        )
        rows = (await connection.execute(query, self._wanted.of(generations))).all()
        return {digest: size_bytes for digest, generation, size_bytes in rows if generation == generations[digest]}

    async def _condemn(
        self, connection: AsyncConnection, table: sa.Table, entity_id: int, digests: Collection[bytes], now_ms: int
    ) -> None:
        these = sa.select(self._wanted.value).select_from(self._wanted.table)
        change = (
            sa.update(table)
            .where(table.c.entity_id == entity_id, table.c.digest.in_(these))
            .values(state=ContentState.CONDEMNED.value, condemned_at_ms=now_ms)
        )
        await connection.execute(change, self._wanted.of(digests))

    async def _condemn_packs(
        self, connection: AsyncConnection, generations: Mapping[bytes, int], now_ms: int
    ) -> set[bytes]:
        query = (
            sa.select(packs.c.id, packs.c.generation, packs.c.state)
            .join_from(self._packs.table, packs, packs.c.id == self._packs.value)
            .where(packs.c.state.in_([PackState.SEALED.value, PackState.DAMAGED.value]))
            .order_by(packs.c.id)
            .with_for_update(key_share=True, of=packs)
        )
        rows = (await connection.execute(query, self._packs.of(generations))).all()
        states = {pack: state for pack, generation, state in rows if generation == generations[pack]}
        if states:
            these = sa.select(self._packs.value).select_from(self._packs.table)
            change = (
                sa.update(packs)
                .where(packs.c.id.in_(these))
                .values(state=PackState.CONDEMNED.value, condemned_at_ms=now_ms)
            )
            await connection.execute(change, self._packs.of(states))
            # What is in a damaged pack is not counted since it was found to be.
            sealed = [pack for pack, state in states.items() if state == PackState.SEALED.value]
            await count_packs(connection, self._database, sealed, -1)
        return set(states)

    async def _move_rows(self, connection: AsyncConnection, entity_id: int, pack: bytes, moves: Sequence[Move]) -> None:
        change = (
            sa.update(chunks)
            .where(
                chunks.c.entity_id == entity_id,
                chunks.c.digest == sa.bindparam("moved"),
                chunks.c.pack_id == sa.bindparam("from_pack"),
            )
            .values(pack_id=sa.bindparam("to_pack"), record_offset=sa.bindparam("to_offset"))
        )
        rows: list[dict[str, Any]] = [
            {
                "moved": each.digest,
                "from_pack": pack,
                "to_pack": each.location.pack.bytes,
                "to_offset": each.location.offset,
            }
            for each in sorted(moves)
        ]
        if rows:
            await connection.execute(change, rows)


async def count_packs(connection: AsyncConnection, database: Database, ids: Collection[bytes], sign: int) -> None:
    """Count the content of packs as stored from now on (1), or no longer (-1). Locks usage rows, so it comes last."""
    changes: dict[int, int] = {}
    for pack in sorted(ids):
        for entity_id, size_bytes in (await bytes_in_pack(connection, pack)).items():
            changes[entity_id] = changes.get(entity_id, 0) + sign * size_bytes
    await add_usage(connection, database, changes)
