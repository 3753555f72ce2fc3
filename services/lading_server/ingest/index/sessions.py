"""Leases of uploaders, and the packs that they hold."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database, insert_into
from lading_server.common.direct import count_of, leave, rows_of
from lading_server.common.errors import SessionExpired
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.schema import ID_BYTES, session_packs, sessions
from lading_server.ingest.index.sql import ByteParameter, byte_table

# A lease with more than this part left is not written again: a session that is busy for an hour costs few writes.
_FRESH = 0.75

# Made once: to make a statement costs more than to run it.
_MINE = sa.and_(sessions.c.id == sa.bindparam("session"), sessions.c.entity_id == sa.bindparam("of_entity"))
_NOT_LAPSED = sessions.c.expires_at_ms > sa.bindparam("now_ms")
_INSERT = sa.insert(sessions)
_EXPIRY = sa.select(sessions.c.expires_at_ms).where(_MINE, _NOT_LAPSED)
_RENEW = sa.update(sessions).where(_MINE, _NOT_LAPSED).values(expires_at_ms=sa.bindparam("until_ms"))
_DELETE = sa.delete(sessions).where(_MINE)


class Lease(NamedTuple):
    """A session, and the entity that it must belong to."""

    entity_id: int
    session: bytes


def session_expired() -> SessionExpired:
    """The same words for a session that lapsed, was closed, never was, or is another entity's."""
    return SessionExpired("the session lapsed or was closed; open another one and ask again what is missing")


async def hold(
    connection: AsyncConnection, database: Database, now_ms: int, holds: Mapping[Lease, AbstractSet[bytes]]
) -> set[Lease]:
    """Hold packs for those of the sessions that have not lapsed, and return these."""
    if not holds:
        return set()
    wanted, query, _ = _holding(database.dialect)
    parameters = {"now_ms": now_ms, **wanted.of({lease.session for lease in holds})}
    found = {Lease(row.entity_id, row.id) for row in await rows_of(connection, query, parameters)}
    live = found & holds.keys()
    await _insert_holds(connection, database, ((lease.session, pack) for lease in live for pack in holds[lease]))
    return live


async def _insert_holds(connection: AsyncConnection, database: Database, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    rows = [{"session_id": session, "pack_id": pack} for session, pack in sorted(set(pairs))]
    if rows:
        await leave(connection, _holding(database.dialect)[2], rows)


@cache
def _holding(dialect: str) -> tuple[ByteParameter, sa.Select[Any], sa.Insert]:
    """Return what finds and locks sessions that have not lapsed, and what adds holds; made once for each dialect."""
    wanted = ByteParameter(dialect, ID_BYTES)
    # The lock keeps a sweep from removing a session between the question and the insert.
    query = (
        sa.select(sessions.c.entity_id, sessions.c.id)
        .join_from(wanted.table, sessions, sessions.c.id == wanted.value)
        .where(sessions.c.expires_at_ms > sa.bindparam("now_ms"))
        .order_by(sessions.c.id)
        .with_for_update(read=True, key_share=True, of=sessions)
    )
    return wanted, query, insert_into(dialect, session_packs).on_conflict_do_nothing()


class SessionIndex:
    """Leases of uploaders. Times come from the clock that was passed in."""

    def __init__(self, database: Database, entities: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities
        self._clock = clock

    async def open(self, entity: str, ttl_seconds: float) -> bytes:
        """Make a lease and return its id: 16 bytes that nobody can guess."""
        entity_id = await self._entities.ensure(entity)
        session = secrets.token_bytes(ID_BYTES)
        expires_at_ms = self._now_ms() + int(ttl_seconds * 1000)
        async with self._database.write() as connection:
            row = {"id": session, "entity_id": entity_id, "expires_at_ms": expires_at_ms}
            await leave(connection, _INSERT, [row])
        return session

    async def renew(self, entity: str, session: bytes, ttl_seconds: float) -> None:
        """Let the lease last `ttl_seconds` from now, about: it is not written while most of it is left.

        Raises:
            SessionExpired: It lapsed, was closed, never was, or is another entity's.
        """
        entity_id = await self._entities.find(entity)
        now_ms = self._now_ms()
        ttl_ms = int(ttl_seconds * 1000)
        mine = {"of_entity": entity_id, "session": session, "now_ms": now_ms}
        found = await self._database.fetch(_EXPIRY, mine)
        if not found:
            raise session_expired()
        if found[0].expires_at_ms - now_ms > ttl_ms * _FRESH:
            return
        async with self._database.write() as connection:
            if not await count_of(connection, _RENEW, {**mine, "until_ms": now_ms + ttl_ms}):
                raise session_expired()

    async def close(self, entity: str, session: bytes) -> None:
        """End a lease and its holds. One that lapsed, or is another entity's, is left alone."""
        entity_id = await self._entities.find(entity)
        async with self._database.write() as connection:
            await leave(connection, _DELETE, [{"of_entity": entity_id, "session": session}])

    async def sweep(self, limit: int) -> int:
        """Remove up to `limit` lapsed leases with their holds, and return how many that were."""
        lapsed = (
            sa.select(sessions.c.id)
            .where(sessions.c.expires_at_ms <= self._now_ms())
            .order_by(sessions.c.expires_at_ms)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self._database.write() as connection:
            ids = (await connection.scalars(lapsed)).all()
            if ids:
                table = byte_table(self._database.dialect, ids, ID_BYTES)
                await connection.execute(
                    sa.delete(sessions).where(sessions.c.id.in_(sa.select(table.value).select_from(table.table)))
                )
        return len(ids)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
