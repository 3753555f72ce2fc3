"""Group commit: append, sync, one transaction, acknowledge, in that order, for many streams at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from lading_server.common.database import told_to_callers
from lading_server.common.errors import DatabaseAway, DiskLow, StorageFailed
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import IndexBatch
from lading_server.ingest.packs.writer import PackWriter

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Writes a group's index rows in one transaction."""

    async def record(self, batches: Sequence[IndexBatch], durable: dict[UUID, int]) -> list[Exception | None]:
        """Return, for each batch, None or why it was not written.

        Raises only when nothing was written; but DatabaseUnavailable also when nobody knows whether it was.
        """


@dataclass(slots=True, eq=False)
class Unit:
    """Records that were appended to a pack, and the rows that name them."""

    writer: PackWriter | None
    batch: IndexBatch
    size_bytes: int
    done: asyncio.Future[None]


class GroupCommitter:
    """Makes units durable, in the order in which they came, many at a time.

    Guarantee: a unit's future has a result only after its pack was synced and its rows were committed. When a sync
    fails it is never retried: everything from then on fails with StorageFailed until the server is started again,
    because the operating system may have dropped the dirty pages. What was acknowledged before is not affected.
    A database that is away fails the groups of that time alone. Whether the last of them was written is not known, and
    whoever sends it again does no harm: content has its digest for a name, and uploads their offsets.

    While one group's rows are written, the next group's packs are synced already.
    """

    def __init__(
        self,
        recorder: Recorder,
        workers: Workers,
        *,
        group_bytes: int,
        linger_seconds: float,
        on_group: Callable[[int, float], None] | None = None,
    ) -> None:
        """`group_bytes` and `linger_seconds`: a group is committed when it has this much, or is this old.

        `on_group` is told the units and the seconds of each group.
        """
        self._recorder = recorder
        self._workers = workers
        self._group_bytes = group_bytes
        self._linger_seconds = linger_seconds
        self._on_group = on_group
        self._pending: list[Unit] = []
        self._pending_bytes = 0
        self._arrived = asyncio.Event()
        self._due = asyncio.Event()
        self._failure: StorageFailed | None = None
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="group-committer")

    @property
    def failure(self) -> StorageFailed | None:
        """Why nothing can be written any more, or None."""
        return self._failure

    def submit(self, writer: PackWriter | None, batch: IndexBatch, size_bytes: int) -> asyncio.Future[None]:
        """Take a unit whose records are appended; the future is done when it is durable, or holds the reason why not.

        Raises:
            StorageFailed: An earlier write failed; the server must be started again.
        """
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise StorageFailed("the store is being closed; retry when the server runs again")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append(Unit(writer, batch, size_bytes, future))
        self._pending_bytes += size_bytes
        self._arrived.set()
        if self._pending_bytes >= self._group_bytes:
            self._due.set()
        return future

    def flush(self) -> None:
        """Commit what waits now: somebody has nothing more to send."""
        if self._pending:
            self._due.set()

    async def commit(self, writer: PackWriter | None, batch: IndexBatch, size_bytes: int) -> None:
        """Submit and wait until durable, without lingering. Raises as `submit` and why the unit was rejected."""
        future = self.submit(writer, batch, size_bytes)
        self.flush()
        await future

    async def close(self) -> None:
        """Commit what waits and stop."""
        self._closing = True
        self._arrived.set()
        self._due.set()
        await self._task

    def fail(self, reason: StorageFailed) -> None:
        """Refuse every later write: a pack file could not be written."""
        if self._failure is None:
            self._failure = reason
            _log.critical("no more writes until the server is started again: %s", reason.message)

    async def _run(self) -> None:
        recording: asyncio.Task[None] | None = None
        while True:
            await self._arrived.wait()
            if not self._closing and not self._due.is_set():
                await self._linger()
            units, self._pending, self._pending_bytes = self._pending, [], 0
            self._arrived.clear()
            self._due.clear()
            if units:
                began = time.monotonic()
                durable = await self._sync(units)
                if recording is not None:
                    await recording
                recording = asyncio.create_task(self._record(units, durable, began))
            if self._closing and not self._pending:
                break
        if recording is not None:
            await recording

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._linger_seconds):
                await self._due.wait()
        except TimeoutError:
            return

    async def _sync(self, units: list[Unit]) -> dict[UUID, int] | None:
        """Sync every pack involved; None when one failed."""
        writers = list({unit.writer for unit in units if unit.writer is not None})
        if self._failure is not None:
            return None
        results = await asyncio.gather(*(self._workers.run(w.sync) for w in writers), return_exceptions=True)
        durable: dict[UUID, int] = {}
        for writer, result in zip(writers, results, strict=True):
            if isinstance(result, StorageFailed):
                self.fail(result)
            elif isinstance(result, BaseException):
                self.fail(StorageFailed(f"pack {writer.pack} could not be synced: {result!r}"))
            else:
                durable[writer.pack] = result
        return durable if len(durable) == len(writers) else None

    async def _record(self, units: list[Unit], durable: dict[UUID, int] | None, began: float) -> None:
        if durable is None or self._failure is not None:
            failure = self._failure or StorageFailed("a pack could not be synced")
            _settle(units, [failure] * len(units))
            return
        try:
            with told_to_callers():
                rejections = await self._recorder.record([unit.batch for unit in units], durable)
        except DatabaseAway as error:
            _log.warning("the index was away for a group of %d units", len(units))
            _settle(units, [error] * len(units))
            return
        except DiskLow as error:
            # What was appended is dead weight. The next group may find space again.
            _log.warning("the index had no space for a group of %d units", len(units))
            _settle(units, [error] * len(units))
            return
        except Exception:  # noqa: BLE001 - every waiter is told, and the log has the traceback
            _log.exception("the index refused a group of %d units", len(units))
            failure = StorageFailed(
                "the index could not be written, and the log of the server says why; tell the operator"
            )
            _settle(units, [failure] * len(units))
            return
        _settle(units, rejections)
        if self._on_group is not None:
            self._on_group(len(units), time.monotonic() - began)


def _settle(units: Sequence[Unit], outcomes: Sequence[Exception | None]) -> None:
    for unit, outcome in zip(units, outcomes, strict=True):
        if unit.done.done():  # its stream was cancelled
            continue
        if outcome is None:
            unit.done.set_result(None)
        else:
            unit.done.set_exception(outcome)
