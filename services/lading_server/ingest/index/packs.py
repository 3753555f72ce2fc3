"""The list of packs: which there are, whose, and whether what is in them counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import cache
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.direct import leave, rows_of
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.rows import OpenPack, PacksGone
from lading_server.ingest.index.schema import ID_BYTES, PackState, entities, packs
from lading_server.ingest.index.sql import ByteParameter, is_one_of
from lading_server.ingest.index.usage import add_usage, bytes_in_pack

# The states in which a pack's content counts.
LIVE_STATES = (PackState.OPEN, PackState.SEALED)


def is_live() -> sa.ColumnElement[bool]:
    """The condition under which a pack's content counts."""
    return is_one_of(packs.c.state, (state.value for state in LIVE_STATES))


async def refer_to(connection: AsyncConnection, dialect: str, wanted: Collection[bytes]) -> set[bytes]:
    """Note new references to packs and return those that are live; no collector can condemn these before the commit.

    Locks them in the order of their ids, so that two transactions never wait for each other.
    """
    if not wanted:
        return set()
    parameter, lock, count = _referring(dialect)
    live = {row.id for row in await rows_of(connection, lock, parameter.of(wanted))}
    if live:
        await leave(connection, count, [parameter.of(live)])
    return live


@cache
def _referring(dialect: str) -> tuple[ByteParameter, sa.Select[Any], sa.Update]:
    """Return what locks packs that are live, and what counts a reference to packs; made once for each dialect."""
    wanted = ByteParameter(dialect, ID_BYTES)
    lock = (
        sa.select(packs.c.id)
        .join_from(wanted.table, packs, packs.c.id == wanted.value)
        .where(is_live())
        .order_by(packs.c.id)
        .with_for_update(key_share=True, of=packs)
    )
    ids = sa.select(wanted.value).select_from(wanted.table)
    return wanted, lock, sa.update(packs).where(packs.c.id.in_(ids)).values(generation=packs.c.generation + 1)


class PackIndex:
    """The list of packs."""

    def __init__(self, database: Database, entities_: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities_
        self._clock = clock

    async def add(self, pack: UUID, pack_class: int, entity: str, epoch: int) -> None:
        """Remember a new pack before anything in it counts. Ids are never used twice."""
        entity_id = await self._entities.ensure(entity)
        async with self._database.write() as connection:
            await connection.execute(
                sa.insert(packs).values(
                    id=pack.bytes,
                    entity_id=entity_id,
                    pack_class=pack_class,
                    state=PackState.OPEN.value,
                    generation=0,
                    writer_epoch=epoch,
                    durable_bytes=0,
                    created_at_ms=int(self._clock() * 1000),
                )
            )

    async def open_packs(self) -> list[OpenPack]:
        """Return every pack that was never sealed, oldest first."""
        query = (
            sa.select(packs.c.id, packs.c.pack_class, entities.c.name, packs.c.durable_bytes, packs.c.writer_epoch)
            .join_from(packs, entities)
            .where(packs.c.state == PackState.OPEN.value)
            .order_by(packs.c.id)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [OpenPack(UUID(bytes=pack), *rest) for pack, *rest in rows]

    async def mark_sealed(self, pack: UUID, total_bytes: int) -> None:
        """Remember that a pack is complete and how long it is. Doing it again is no error.

        Raises:
            PacksGone: The pack is not one that can be sealed.
        """
        change = (
            sa.update(packs)
            .where(packs.c.id == pack.bytes, is_live())
            .values(state=PackState.SEALED.value, durable_bytes=total_bytes)
        )
        async with self._database.write() as connection:
            if (await connection.execute(change)).rowcount == 0:
                raise PacksGone(frozenset({pack}))

    async def mark_damaged(self, pack: UUID) -> None:
        """Let everything in the pack count as missing, so that it is stored anew when it is next sent."""
        change = (
            sa.update(packs)
            .where(packs.c.id == pack.bytes, is_live())
            .values(state=PackState.DAMAGED.value, generation=packs.c.generation + 1)
        )
        async with self._database.write() as connection:
            if (await connection.execute(change)).rowcount:
                lost = await bytes_in_pack(connection, pack.bytes)
                await add_usage(connection, self._database, {entity_id: -lost[entity_id] for entity_id in lost})

    async def remove(self, pack: UUID) -> None:
        """Forget a pack that never held anything durable; any other is left alone."""
        async with self._database.write() as connection:
            await connection.execute(
                sa.delete(packs).where(
                    packs.c.id == pack.bytes, packs.c.state == PackState.OPEN.value, packs.c.durable_bytes == 0
                )
            )
