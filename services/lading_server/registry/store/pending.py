"""What is not finished: commits without a number, pins to release, and requests that are remembered for a while."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.common.direct import count_of, leave
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import PendingCommit, PinRelease
from lading_server.registry.store.schema import commits, entities, pin_releases, requests

# Made once: to make a statement costs more than to run it.
_ADD_COMMIT = sa.insert(commits)
_END_COMMIT = sa.delete(commits).where(commits.c.uid == sa.bindparam("ended"))


async def add_commit(change: Change, uid: bytes, request: str) -> None:
    """Keep that a version is being committed, before its pin is asked for."""
    new = {"uid": uid, "entity_id": change.entity_id, "request": request, "created_at_ms": change.now_ms}
    await leave(change.connection, _ADD_COMMIT, [new])


async def end_commit(change: Change, uid: bytes) -> bool:
    """Forget that a version is being committed; return False when somebody else did so before.

    Whoever is told True decides what becomes of the version, and nobody else: a commit that is resumed may run at
    the same time as the one that began it.
    """
    return await count_of(change.connection, _END_COMMIT, {"ended": uid}) == 1


async def release_pin(change: Change, uid: bytes) -> None:
    """Have ingest told, in time, that a version's pin is not needed."""
    new = sa.insert(pin_releases).values(uid=uid, entity_id=change.entity_id, created_at_ms=change.now_ms)
    await change.connection.execute(new)


class PendingRows:
    """Rows that wait for a task in the background."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._now_ms = now_ms

    async def abort_commit(self, uid: bytes) -> bool:
        """Have a commit not happen, and its pin released. Return False when it was ended before."""
        async with self._database.write() as connection:
            ended = sa.delete(commits).where(commits.c.uid == uid).returning(commits.c.entity_id)
            entity_id = (await connection.execute(ended)).scalar_one_or_none()
            if entity_id is None:
                return False
            new = sa.insert(pin_releases).values(uid=uid, entity_id=entity_id, created_at_ms=self._now_ms())
            await connection.execute(new)
        return True

    async def commits(self, min_age_seconds: float) -> list[PendingCommit]:
        """Return the commits that began this long ago, or longer, the oldest first."""
        query = (
            sa.select(commits.c.uid, entities.c.name, commits.c.request)
            .join(entities, entities.c.id == commits.c.entity_id)
            .where(commits.c.created_at_ms <= self._now_ms() - int(min_age_seconds * 1000))
            .order_by(commits.c.created_at_ms, commits.c.uid)
        )
        async with self._database.read() as connection:
            return [PendingCommit(*row) for row in await connection.execute(query)]

    async def releases(self, after: bytes, limit: int) -> list[PinRelease]:
        """Return up to `limit` pins to release, by their uids, from the one after `after`."""
        query = (
            sa.select(pin_releases.c.uid, entities.c.name)
            .join(entities, entities.c.id == pin_releases.c.entity_id)
            .where(pin_releases.c.uid > after)
            .order_by(pin_releases.c.uid)
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [PinRelease(*row) for row in await connection.execute(query)]

    async def released(self, uid: bytes) -> None:
        """Forget a pin: ingest said that it is released."""
        async with self._database.write() as connection:
            await connection.execute(sa.delete(pin_releases).where(pin_releases.c.uid == uid))

    async def sweep_requests(self, max_age_seconds: float, limit: int) -> int:
        """Forget up to `limit` requests that came longer ago than this, and return how many that were."""
        old = (
            sa.select(requests.c.entity_id, requests.c.request_id)
            .where(requests.c.created_at_ms < self._now_ms() - int(max_age_seconds * 1000))
            .order_by(requests.c.created_at_ms)
            .limit(limit)
        )
        mine = sa.tuple_(requests.c.entity_id, requests.c.request_id)
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(requests).where(mine.in_(old)))).rowcount
