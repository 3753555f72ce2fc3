"""Open packs: one to a stream at a time, so that what is uploaded together lies together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from uuid import UUID

from lading_server.common.errors import DiskLow, StorageFailed
from lading_server.common.ids import uuid7
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import IndexBatch
from lading_server.ingest.packs.recovery import seal_after_crash
from lading_server.ingest.packs.storage import PackClass, PackStorage
from lading_server.ingest.packs.writer import Location, NewRecord, PackWriter

_log = logging.getLogger(__name__)

# Idle open packs kept for the next stream, an entity and class. More are sealed: each costs a file descriptor and,
# in memory, the pack's index.
IDLE_PACKS = 4
# The same over all entities.
IDLE_PACKS_IN_ALL = 64
# A pack with so many records is full, whatever its size: an open one takes about 200 bytes of memory for each, 13 MB.
# Files of 4 KiB and more fill it by their bytes first.
MOST_RECORDS = 1 << 16


class PackRows(Protocol):
    """The index's list of packs."""

    async def add(self, pack: UUID, pack_class: int, entity: str, epoch: int) -> None:
        """Remember a pack before anything in it counts."""

    async def mark_sealed(self, pack: UUID, total_bytes: int) -> None:
        """Remember that a pack is complete."""

    async def remove(self, pack: UUID) -> None:
        """Forget a pack that never held anything durable."""


class OpenPack:
    """One open pack, held by one stream. Appends go to worker threads, one at a time."""

    def __init__(self, writer: PackWriter, committer: GroupCommitter, workers: Workers) -> None:
        self._committer = committer
        self._workers = workers
        self._outstanding: set[asyncio.Future[None]] = set()
        self.writer = writer

    async def append(self, records: Sequence[NewRecord]) -> list[Location]:
        """Append records; they count for nothing until `submit`. Raises DiskLow, StorageFailed."""
        try:
            return await self._workers.run(self.writer.append, records)
        except StorageFailed as error:
            self._committer.fail(error)
            raise

    def submit(self, batch: IndexBatch, size_bytes: int) -> asyncio.Future[None]:
        """Commit what was appended; see GroupCommitter.submit."""
        future = self._committer.submit(self.writer, batch, size_bytes)
        self._outstanding.add(future)
        future.add_done_callback(self._outstanding.discard)
        # Whoever waits may be cancelled, and the unit is still in its group: the pack must not be closed before that
        # was synced.
        return asyncio.shield(future)

    async def settled(self) -> None:
        """Wait until nothing of this pack waits to be committed, whatever became of it."""
        while self._outstanding:
            await asyncio.wait(self._outstanding)


class PackPool:
    """Leases open packs, rotates full ones and seals what is not needed.

    A pack belongs to one entity and one class for ever.
    """

    def __init__(
        self,
        storage: PackStorage,
        rows: PackRows,
        committer: GroupCommitter,
        workers: Workers,
        *,
        store_id: UUID,
        writer_epoch: int,
        target_bytes: int,
        min_free_bytes: int,
    ) -> None:
        """`target_bytes`: a pack this large is sealed. `min_free_bytes`: below it nothing more is written."""
        self._storage = storage
        self._rows = rows
        self._committer = committer
        self._workers = workers
        self._store_id = store_id
        self._writer_epoch = writer_epoch
        self._target_bytes = target_bytes
        self._min_free_bytes = min_free_bytes
        self._idle: dict[tuple[str, PackClass], list[OpenPack]] = {}
        self._sealing: set[asyncio.Task[None]] = set()
        # Packs that could not be sealed because there was no space: their ids and lengths.
        self._torn: dict[UUID, int] = {}

    @asynccontextmanager
    async def lease(self, entity: str, pack_class: PackClass) -> AsyncIterator[PackLease]:
        """Give the right to append, until the end of the block. Makes no pack before the first append."""
        lease = PackLease(self, entity, pack_class)
        try:
            yield lease
        finally:
            if lease.pack is not None:
                self._give_back(entity, pack_class, lease.pack)

    def check_space(self, needed_bytes: int) -> None:
        """Raise DiskLow when storing so much would leave less than the reserve."""
        free_bytes = self._storage.free_bytes()
        if free_bytes is not None and free_bytes - needed_bytes < self._min_free_bytes:
            raise DiskLow(
                f"the store has {free_bytes:,} bytes free and keeps {self._min_free_bytes:,} in reserve; "
                "free some space or ask the operator, then retry",
                free_bytes=free_bytes,
                required_bytes=self._min_free_bytes + needed_bytes,
            )

    async def take(self, entity: str, pack_class: PackClass) -> OpenPack:
        """Take an idle pack, or make one."""
        idle = self._idle.get((entity, pack_class))
        if idle:
            return idle.pop()
        if self._committer.failure is not None:
            raise self._committer.failure
        making = asyncio.create_task(self._make(entity, pack_class), name="make-pack")
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # Whoever wanted it is gone. If it is in the index by now, it would stay open until the next start.
            self._later(self._keep(making, entity, pack_class), "keep-pack")
            raise

    async def _make(self, entity: str, pack_class: PackClass) -> OpenPack:
        pack = uuid7()
        # Before its file is there: one that a crash leaves without a row would lie there for ever. And so after a crash
        # a pack that the index does not know holds nothing acknowledged.
        await self._rows.add(pack, int(pack_class), entity, self._writer_epoch)
        try:
            writer = await self._workers.run(
                PackWriter.create,
                self._storage,
                store_id=self._store_id,
                writer_epoch=self._writer_epoch,
                pack_class=pack_class,
                entity=entity,
                pack=pack,
            )
        except (DiskLow, StorageFailed):
            # Whoever tries again would leave another row each time.
            await self._forget(pack)
            raise
        # There is space again.
        torn, self._torn = self._torn, {}
        for other, whole_bytes in torn.items():
            self._later(self._seal_torn(other, whole_bytes), f"seal-{other}")
        return OpenPack(writer, self._committer, self._workers)

    async def _keep(self, making: asyncio.Task[OpenPack], entity: str, pack_class: PackClass) -> None:
        """Keep a pack that nobody waits for any more for whoever comes next."""
        try:
            pack = await making
        except Exception:  # noqa: BLE001 - logged with its traceback; the next one who wants a pack is told
            _log.exception("a pack of entity %s could not be made", entity)
        else:
            self._give_back(entity, pack_class, pack)

    def is_full(self, pack: OpenPack) -> bool:
        """Tell whether the pack has reached its target, or has as many records as may be open."""
        writer = pack.writer
        return writer.length_bytes >= self._target_bytes or writer.record_count >= MOST_RECORDS

    def seal_later(self, pack: OpenPack) -> None:
        """Seal the pack when everything in it is committed, without anybody waiting."""
        self._later(self._seal(pack), f"seal-{pack.writer.pack}")

    def abandon_later(self, pack: OpenPack) -> None:
        """Let go of a pack that found no space for what was appended last; what is whole in it stays."""
        self._later(self._abandon(pack), f"seal-{pack.writer.pack}")

    async def close(self) -> None:
        """Seal every pack. Leases must have ended."""
        while any(self._idle.values()) or self._sealing:
            for packs in self._idle.values():
                for pack in packs:
                    self.seal_later(pack)
            self._idle.clear()
            await asyncio.wait(self._sealing)

    def _give_back(self, entity: str, pack_class: PackClass, pack: OpenPack) -> None:
        idle = self._idle.setdefault((entity, pack_class), [])
        in_all = sum(len(packs) for packs in self._idle.values())
        if self.is_full(pack) or len(idle) >= IDLE_PACKS or in_all >= IDLE_PACKS_IN_ALL:
            self.seal_later(pack)
        else:
            idle.append(pack)

    def _later(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._sealing.add(task)
        task.add_done_callback(self._sealing.discard)

    async def _abandon(self, pack: OpenPack) -> None:
        await pack.settled()
        await self._workers.run(pack.writer.abandon)
        await self._seal_torn(pack.writer.pack, pack.writer.whole_bytes)

    async def _forget(self, pack: UUID) -> None:
        """Take back a pack whose first bytes could not be written."""
        try:
            await self._workers.run(self._storage.delete, pack)
            await self._rows.remove(pack)
        except (DiskLow, StorageFailed) as error:
            # Nothing is in it, and the next start forgets it.
            _log.warning("pack %s stays until the next start: %s", pack, error)

    async def _seal_torn(self, pack: UUID, whole_bytes: int) -> None:
        """Cut a pack back to its last whole record and seal it, as the next start would, or when there is space."""
        if self._committer.failure is not None:
            return
        try:
            sealed = await self._workers.run(seal_after_crash, self._storage, pack, whole_bytes)
            for damage in sealed.damages:
                # Whoever reads it next, or a check, counts it as lost.
                _log.critical("pack %s is damaged: %s at %d; what is whole stays", pack, damage.what, damage.begin)
            await self._rows.mark_sealed(pack, sealed.total_bytes)
        except DiskLow as error:
            _log.warning("pack %s waits to be sealed until there is space: %s", pack, error)
            self._torn[pack] = whole_bytes
        except StorageFailed as error:
            self._committer.fail(error)
        except Exception:  # noqa: BLE001 - logged with its traceback; the next start seals it
            _log.exception("pack %s could not be sealed", pack)

    async def _seal(self, pack: OpenPack) -> None:
        await pack.settled()
        if self._committer.failure is not None:
            # The next start cuts the pack back to what is durable.
            await self._workers.run(pack.writer.abandon)
            return
        # Without the index, which may be written and the trailer not.
        whole_bytes = pack.writer.whole_bytes
        try:
            total_bytes = await self._workers.run(pack.writer.seal)
            await self._rows.mark_sealed(pack.writer.pack, total_bytes)
        except DiskLow as error:
            _log.warning("pack %s waits to be sealed until there is space: %s", pack.writer.pack, error)
            self._torn[pack.writer.pack] = whole_bytes
        except StorageFailed as error:
            self._committer.fail(error)
        except Exception:  # noqa: BLE001 - logged with its traceback; see below
            # The pack stays open in the index: nothing is lost, and the next start seals it.
            _log.exception("pack %s could not be sealed", pack.writer.pack)


class PackLease:
    """The right to append to packs of one entity and class: one pack after another as they fill."""

    def __init__(self, pool: PackPool, entity: str, pack_class: PackClass) -> None:
        self._pool = pool
        self._entity = entity
        self._pack_class = pack_class
        self.pack: OpenPack | None = None

    async def append(self, records: Sequence[NewRecord]) -> tuple[OpenPack, list[Location]]:
        """Append records to one pack; commit them with that pack's `submit`.

        Raises:
            DiskLow: The store is nearly full, or was full before all was written; nothing of this counts.
            StorageFailed: The disk refused; the server must be started again before it writes more.
        """
        self._pool.check_space(sum(len(record.payload) for record in records))
        if self.pack is not None and self._pool.is_full(self.pack):
            full, self.pack = self.pack, None
            self._pool.seal_later(full)
        if self.pack is None:
            self.pack = await self._pool.take(self._entity, self._pack_class)
        try:
            return self.pack, await self.pack.append(records)
        except DiskLow:
            torn, self.pack = self.pack, None
            self._pool.abandon_later(torn)
            raise
