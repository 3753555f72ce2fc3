"""Pins: the promises to the registry that trees stay whole, and the tombstones of those that were taken back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database, is_conflict
from lading_server.common.direct import count_of, leave, rows_of
from lading_server.common.errors import ContentMoved, MissingBlobs, TreeNotFound
from lading_server.ingest.index.digests import DigestSet
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.group import LostRace
from lading_server.ingest.index.holdings import BATCH, TreeHoldings
from lading_server.ingest.index.packs import is_live, refer_to
from lading_server.ingest.index.rows import PinRow
from lading_server.ingest.index.schema import DIGEST_BYTES, ID_BYTES, ContentState, PinState, blobs, packs, pins, trees
from lading_server.ingest.index.sql import ByteParameter

# How often an acquisition that lost against a collector, a compaction or another server is tried again.
_RETRIES = 10
# Missing blobs that an error names; the client asks StatBlobs for the rest.
_NAMED = 20


class PinIndex:
    """Acquires, releases and lists pins. Each change is one transaction."""

    def __init__(self, database: Database, entities: Entities, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._entities = entities
        self._clock = clock
        self._statements = _Statements(database)

    async def find(self, entity: str, version_uid: bytes) -> PinRow | None:
        """Return a version's pin or tombstone, or None when there never was one."""
        entity_id = await self._entities.find(entity)
        if entity_id is None:
            return None
        rows = await self._database.fetch(self._statements.find, {"entity": entity_id, "version": version_uid})
        return _pin(version_uid, rows)

    async def acquire(self, entity: str, version_uid: bytes, tree_digest: bytes, blobs_: DigestSet) -> PinRow:
        """Hold the tree for the version, if all of it is live; return the version's pin as it is then.

        That is the pin or tombstone which the version had already, where it had one: nothing is changed in that case.

        Args:
            blobs_: Every blob of the tree.

        Raises:
            TreeNotFound: There is no such tree.
            MissingBlobs: A page, a blob or a chunk of the tree is not there, or in a pack that is not live.
            ContentMoved: Content was moved again and again while it was looked for.
        """
        return await self._acquire(entity, version_uid, tree_digest, blobs_, over_tombstone=False)

    async def restore(self, entity: str, version_uid: bytes, tree_digest: bytes, blobs_: DigestSet) -> PinRow:
        """Hold the tree for the version as `acquire` does, over a tombstone too. Only the reconciler may ask for that.

        A tombstone is for ever as long as nobody puts back an older database. The reconciler has asked the registry
        after it saw the tombstone, and was told that the version is kept.

        Raises:
            TreeNotFound, MissingBlobs, ContentMoved: As `acquire`; the tombstone stays.
        """
        return await self._acquire(entity, version_uid, tree_digest, blobs_, over_tombstone=True)

    async def _acquire(
        self, entity: str, version_uid: bytes, tree_digest: bytes, blobs_: DigestSet, *, over_tombstone: bool
    ) -> PinRow:
        entity_id = await self._entities.find(entity)
        if entity_id is None:
            raise _no_tree(tree_digest)
        lost: Exception | None = None
        for _ in range(_RETRIES):
            try:
                return await self._try(entity_id, version_uid, tree_digest, blobs_, over_tombstone)
            except LostRace as error:
                lost = error
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
                lost = error
        raise ContentMoved("the tree's content is being moved at this moment; repeat the call") from lost

    async def _try(
        self, entity_id: int, version_uid: bytes, tree_digest: bytes, blobs_: DigestSet, over_tombstone: bool
    ) -> PinRow:
        # Where others write meanwhile, packs are looked for before the transaction, because they are locked before
        # blobs, and once more at its end. On SQLite nobody does, so they are looked for once.
        is_alone = self._database.dialect == "sqlite"
        holders: set[bytes] = set()
        if not is_alone:
            async with self._database.read() as connection:
                holders = await self._holders(connection, entity_id, tree_digest, blobs_)
        async with self._database.write() as connection:
            if is_alone:
                holders = await self._holders(connection, entity_id, tree_digest, blobs_)
            now_ms = int(self._clock() * 1000)
            acquisition = _Acquisition(connection, self._statements, entity_id, tree_digest, blobs_, is_alone=is_alone)
            return await acquisition.run(version_uid, holders, now_ms, over_tombstone=over_tombstone)

    async def _holders(
        self, connection: AsyncConnection, entity_id: int, tree_digest: bytes, blobs_: DigestSet
    ) -> set[bytes]:
        try:
            return await self._statements.holdings.packs(connection, entity_id, tree_digest, blobs_)
        except MissingBlobs:
            # It cannot tell whose chunk it was. Where that is known to be lost, the blob says it.
            await self._refuse_missing(connection, entity_id, blobs_)
            raise

    async def release(self, entity: str, version_uid: bytes) -> None:
        """Take a promise back, for ever. One that never was gets a tombstone all the same."""
        entity_id = await self._entities.ensure(entity)
        now_ms = int(self._clock() * 1000)
        tombstone = self._database.insert(pins).values(
            entity_id=entity_id, version_uid=version_uid, state=PinState.RELEASED.value, released_at_ms=now_ms
        )
        tombstone = tombstone.on_conflict_do_update(
            index_elements=["entity_id", "version_uid"],
            set_={"state": PinState.RELEASED.value, "released_at_ms": now_ms},
            where=pins.c.state == PinState.HELD.value,
        )
        async with self._database.write() as connection:
            await connection.execute(tombstone)

    async def rows(self, entity: str, version_uids: Collection[bytes]) -> dict[bytes, PinRow]:
        """Return the pins and tombstones of versions, by version. What never had one is left out."""
        entity_id = await self._entities.find(entity)
        if entity_id is None:
            return {}
        wanted = {"entity": entity_id, **self._statements.versions.of(version_uids)}
        rows = await self._database.fetch(self._statements.find_several, wanted)
        return {uid: PinRow(uid, tree_digest, state == PinState.HELD.value) for uid, tree_digest, state in rows}

    async def held(self, entity: str, after: bytes, limit: int, until: bytes | None = None) -> list[PinRow]:
        """Return up to `limit` pins that hold, in the order of their versions, of those that come after one.

        Args:
            until: The last version that counts; None for all.
        """
        entity_id = await self._entities.find(entity)
        query = (
            sa.select(pins.c.version_uid, pins.c.tree_digest)
            .where(pins.c.entity_id == entity_id, pins.c.version_uid > after, pins.c.state == PinState.HELD.value)
            .order_by(pins.c.version_uid)
            .limit(limit)
        )
        if until is not None:
            query = query.where(pins.c.version_uid <= until)
        async with self._database.read() as connection:
            return [PinRow(uid, tree_digest, True) for uid, tree_digest in (await connection.execute(query)).all()]

    async def _refuse_missing(self, connection: AsyncConnection, entity_id: int, blobs_: DigestSet) -> None:
        """Raise MissingBlobs, with the first of the blobs that are not live, if there are any."""
        missing: list[bytes] = []
        for batch in blobs_.batches(BATCH):
            wanted = {"entity": entity_id, **self._statements.blobs.of(batch)}
            live = {row.digest for row in await rows_of(connection, self._statements.live_blobs, wanted)}
            missing += [digest for digest in batch if digest not in live]
            if len(missing) >= _NAMED:
                break
        if missing:
            raise _missing(missing)


class _Statements:
    """What an acquisition runs, made once: to make a statement costs more than to run it."""

    def __init__(self, database: Database) -> None:
        mine: sa.BindParameter[int] = sa.bindparam("entity")
        version: sa.BindParameter[bytes] = sa.bindparam("version")
        tree: sa.BindParameter[bytes] = sa.bindparam("tree")
        self.dialect = database.dialect
        self.holdings = TreeHoldings(self.dialect)
        self.find = sa.select(pins.c.tree_digest, pins.c.state).where(
            pins.c.entity_id == mine, pins.c.version_uid == version
        )
        new = database.insert(pins).values(
            entity_id=mine,
            version_uid=version,
            tree_digest=tree,
            state=PinState.HELD.value,
            acquired_at_ms=sa.bindparam("now_ms"),
        )
        self.insert = new.on_conflict_do_nothing(index_elements=["entity_id", "version_uid"])
        self.versions = ByteParameter(self.dialect, ID_BYTES)
        self.find_several = (
            sa.select(pins.c.version_uid, pins.c.tree_digest, pins.c.state)
            .select_from(self.versions.table)
            .join(pins, sa.and_(pins.c.entity_id == mine, pins.c.version_uid == self.versions.value))
        )
        # What a tombstone becomes when the version that it is of turns out to be kept.
        self.take_back = (
            sa.update(pins)
            .where(
                pins.c.entity_id == mine,
                pins.c.version_uid == version,
                pins.c.state == PinState.RELEASED.value,
            )
            .values(
                tree_digest=tree,
                state=PinState.HELD.value,
                acquired_at_ms=sa.bindparam("now_ms"),
                released_at_ms=None,
            )
        )
        self.packs = ByteParameter(self.dialect, ID_BYTES)
        self.live_packs = (
            sa.select(packs.c.id).join_from(self.packs.table, packs, packs.c.id == self.packs.value).where(is_live())
        )
        wanted = self.blobs = ByteParameter(self.dialect, DIGEST_BYTES)
        # An UPDATE would lock in whatever order its plan has, and SQLite does not count the rows of one with a CTE.
        self.live_blobs = (
            sa.select(blobs.c.digest)
            .join_from(wanted.table, blobs, sa.and_(blobs.c.entity_id == mine, blobs.c.digest == wanted.value))
            .where(blobs.c.state == ContentState.LIVE.value)
            .order_by(blobs.c.digest)
        )
        self.lock_blobs = self.live_blobs.with_for_update(key_share=True, of=blobs)
        digests = sa.select(wanted.value).select_from(wanted.table)
        self.refer_to_blobs = (
            sa.update(blobs)
            .where(blobs.c.entity_id == mine, blobs.c.digest.in_(digests))
            .values(generation=blobs.c.generation + 1)
        )
        self.refer_to_tree = (
            sa.update(trees)
            .where(trees.c.entity_id == mine, trees.c.digest == tree, trees.c.state == ContentState.LIVE.value)
            .values(generation=trees.c.generation + 1)
        )


class _Acquisition:
    """One transaction. Rows are locked in this order by everybody: pins, packs, blobs, trees; each by its key."""

    def __init__(
        self,
        connection: AsyncConnection,
        statements: _Statements,
        entity_id: int,
        tree_digest: bytes,
        blobs_: DigestSet,
        *,
        is_alone: bool,
    ) -> None:
        """`blobs_`: every blob of the tree. `is_alone`: whether nobody else can write before this is committed."""
        self._connection = connection
        self._statements = statements
        self._entity_id = entity_id
        self._tree_digest = tree_digest
        self._blobs = blobs_
        self._is_alone = is_alone

    async def run(
        self, version_uid: bytes, holders: set[bytes], now_ms: int, *, over_tombstone: bool = False
    ) -> PinRow:
        """Make the pin.

        Args:
            holders: The packs that held the content a moment ago; those that hold it, where nobody else can write.
            over_tombstone: Make it although it was released.

        Raises:
            TreeNotFound, MissingBlobs: As PinIndex.acquire; the transaction must be undone.
            LostRace: The content lies elsewhere by now, or where it lies is not live; the same, and look again.
        """
        old = await self._insert(version_uid, now_ms)
        if old is not None and (old.is_held or not over_tombstone):
            return old
        if old is not None:
            await leave(self._connection, self._statements.take_back, [self._pin(version_uid, now_ms)])
        live = await refer_to(self._connection, self._statements.dialect, holders)
        if live != holders:
            await self._refuse_dead(live)
        for batch in self._blobs.batches(BATCH):
            await self._refer_to_blobs(batch)
        await self._refer_to_tree()
        # From here on nothing of it can move: a chunk leaves its pack only when that is not live, or by a compaction
        # that locks the pack, and a recipe changes only together with its blob's row. So what is found now is what the
        # pin holds.
        if not self._is_alone and not await self._holders() <= live:
            raise LostRace
        return PinRow(version_uid, self._tree_digest, True)

    async def _holders(self) -> set[bytes]:
        return await self._statements.holdings.packs(self._connection, self._entity_id, self._tree_digest, self._blobs)

    async def _insert(self, version_uid: bytes, now_ms: int) -> PinRow | None:
        """Write the pin; return the row that was there before, if one was. Waits for another call for the version."""
        pin = self._pin(version_uid, now_ms)
        if await count_of(self._connection, self._statements.insert, pin) == 1:
            return None
        name = {"entity": self._entity_id, "version": version_uid}
        old = _pin(version_uid, await rows_of(self._connection, self._statements.find, name))
        if old is None:
            raise AssertionError("a pin was in the way and is not there: pins are never deleted")
        return old

    def _pin(self, version_uid: bytes, now_ms: int) -> dict[str, Any]:
        return {"entity": self._entity_id, "version": version_uid, "tree": self._tree_digest, "now_ms": now_ms}

    async def _refuse_dead(self, live: set[bytes]) -> None:
        """Raise MissingBlobs where content still lies in packs that are not live, or LostRace where it was moved."""
        others = await self._holders() - live
        wanted = self._statements.packs.of(others)
        if others.difference(row.id for row in await rows_of(self._connection, self._statements.live_packs, wanted)):
            raise MissingBlobs("content of the tree was collected; upload it again, then commit again", digests="")
        raise LostRace

    async def _refer_to_blobs(self, digests: Sequence[bytes]) -> None:
        """Count one more reference to each blob. Raises MissingBlobs unless all of them are live."""
        wanted = {"entity": self._entity_id, **self._statements.blobs.of(digests)}
        live = {row.digest for row in await rows_of(self._connection, self._statements.lock_blobs, wanted)}
        missing = [digest for digest in digests if digest not in live]
        if missing:
            raise _missing(missing)
        await leave(self._connection, self._statements.refer_to_blobs, [wanted])

    async def _refer_to_tree(self) -> None:
        name = {"entity": self._entity_id, "tree": self._tree_digest}
        if await count_of(self._connection, self._statements.refer_to_tree, name) != 1:
            raise _no_tree(self._tree_digest)


def _pin(version_uid: bytes, rows: Sequence[Any]) -> PinRow | None:
    """Return the pin or tombstone of the one row, or None."""
    return PinRow(version_uid, rows[0].tree_digest, rows[0].state == PinState.HELD.value) if rows else None


def _missing(digests: Sequence[bytes]) -> MissingBlobs:
    return MissingBlobs(
        f"blobs of the tree were collected or lost, b3:{digests[0].hex()} for one; "
        "upload them again, then commit again",
        digests=",".join(f"b3:{digest.hex()}" for digest in digests[:_NAMED]),
    )


def _no_tree(digest: bytes) -> TreeNotFound:
    return TreeNotFound(
        f"there is no tree b3:{digest.hex()} here; upload it, then commit again", digest=f"b3:{digest.hex()}"
    )
