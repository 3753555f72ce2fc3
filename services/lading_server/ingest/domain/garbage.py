"""Runs of the collector: reconcile and collect, one entity after the other, one run at a time.

Nothing is collected of an entity whose pins were not held against the registry's versions in the same run, nor of one
with a version whose content is gone: what is left of it may be the only copy.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from lading_server.common.drain import Drain
from lading_server.common.errors import CollectionRunning, Draining
from lading_server.common.kept_versions import KeptVersions
from lading_server.common.metrics import Metrics
from lading_server.common.registry_errors import NoRegistry, RegistryUnavailable
from lading_server.ingest.domain.collector import CollectionReport
from lading_server.ingest.domain.reconcile import Reconciler, Reconciliation
from lading_server.ingest.index.store import ContentIndex

_log = logging.getLogger(__name__)

# Names of entities that are read at once.
_NAMES = 500
# The note of the last run.
_NOTE = "garbage"
# Of the runs that refused, so many entities are named in the note.
_REFUSALS = 20


class Step(StrEnum):
    """What a run does with an entity."""

    RECONCILE = "reconcile"
    COLLECT = "collect"


class Progress(NamedTuple):
    """What is being done now, and for which entity."""

    entity: str
    step: Step


class EntityOutcome(NamedTuple):
    """What came of an entity. `refused` says why nothing of it was collected, and is empty when it was."""

    entity: str
    refused: str
    reconciled: Reconciliation | None
    report: CollectionReport | None


Tell = Callable[[Progress | EntityOutcome], Awaitable[None]]


class Outcome(StrEnum):
    """How a run ended. One that was cut short by a drain, or by whoever asked for it, leaves no note."""

    DONE = "done"
    # Some entities were refused.
    REFUSED = "refused"
    FAILED = "failed"


@dataclass
class LastRun:
    """What is remembered of a run."""

    began_at_ms: int
    ended_at_ms: int = 0
    outcome: str = Outcome.DONE.value
    message: str = ""
    entities: int = 0
    refused_entities: int = 0
    bytes_condemned: int = 0
    bytes_freed: int = 0
    bytes_in_trash: int = 0

    def add(self, outcome: EntityOutcome) -> None:
        """Count an entity."""
        if outcome.refused:
            self.outcome = Outcome.REFUSED.value
            self.refused_entities += 1
            if self.refused_entities <= _REFUSALS:
                self.message += f"{'; ' if self.message else ''}{outcome.entity}: {outcome.refused}"
        elif outcome.report is not None:
            self.entities += 1
            self.bytes_condemned += outcome.report.bytes_condemned
            self.bytes_freed += outcome.report.bytes_freed
            self.bytes_in_trash += outcome.report.bytes_in_trash


class EntityCollector(Protocol):
    """What condemns and deletes: see ingest/domain/collector.py."""

    async def finish_deletions(self) -> object:
        """Delete what was beyond return when the last run, or the process, ended."""

    async def collect(self, entity: str, *, dry_run: bool, reconciled_at_ms: int) -> CollectionReport:
        """Condemn what nothing keeps, delete what was long enough in the trash, and compact."""


class Garbage:
    """Runs the collector. For one event loop."""

    def __init__(
        self,
        index: ContentIndex,
        versions: KeptVersions,
        reconciler: Reconciler,
        collector: EntityCollector,
        drain: Drain,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`drain`: when it begins, a run ends. `clock` tells seconds since 1970."""
        self._index = index
        self._versions = versions
        self._reconciler = reconciler
        self._collector = collector
        self._drain = drain
        self._metrics = metrics
        self._clock = clock
        self._began_at_ms = 0

    @property
    def is_running(self) -> bool:
        """Whether a run is at it."""
        return self._began_at_ms > 0

    async def last(self) -> LastRun | None:
        """Return what the last run came to; None when there never was one. Dry runs do not count."""
        note = await self._index.notes.read(_NOTE)
        return LastRun(**note) if note else None

    async def run(
        self, tell: Tell, *, name: str = "", dry_run: bool = False, release_unknown_pins: bool = False
    ) -> None:
        """Reconcile and collect. To cancel this is to end the run, as a crash would: the next one goes on from there.

        Args:
            tell: Told of each step and of what came of each entity. The run waits for it, and what it raises ends it.
            name: The one entity that is meant; empty for all.
            dry_run: Change nothing.
            release_unknown_pins: See Reconciler.reconcile.

        Raises:
            CollectionRunning: Another run is at it.
            NoRegistry: Nobody knows what is kept.
            RegistryUnavailable: The registry does not answer; nothing more is deleted.
            Draining: The server is about to stop.
        """
        if self.is_running:
            since = datetime.fromtimestamp(self._began_at_ms / 1000, UTC)
            raise CollectionRunning(
                f"garbage is being collected since {since:%Y-%m-%d %H:%M:%S}Z, and one run goes at a time; "
                "ask again when it has ended"
            )
        run = LastRun(self._now_ms())
        self._began_at_ms = run.began_at_ms
        try:
            work = self._all(run, tell, name=name, dry_run=dry_run, release_unknown_pins=release_unknown_pins)
            await self._unless_draining(work if dry_run else self._noted(run, work, is_whole=not name))
        finally:
            self._began_at_ms = 0

    async def _noted(self, run: LastRun, work: Coroutine[Any, Any, None], *, is_whole: bool) -> None:
        """Do the work, and remember what it came to."""
        try:
            await work
        except Exception as error:
            run.outcome, run.message = Outcome.FAILED.value, str(error) or type(error).__name__
            await self._note(run)
            raise
        await self._note(run)
        seconds = (run.ended_at_ms - run.began_at_ms) / 1000
        self._metrics.garbage_collected(run.bytes_freed, run.bytes_in_trash if is_whole else None, seconds)
        _log.info("collected garbage of %d entities: %d bytes freed", run.entities, run.bytes_freed)

    async def _note(self, run: LastRun) -> None:
        run.ended_at_ms = self._now_ms()
        await self._index.notes.write(_NOTE, asdict(run))

    async def _all(self, run: LastRun, tell: Tell, *, name: str, dry_run: bool, release_unknown_pins: bool) -> None:
        # Before anything else: with the registry away nothing is deleted, not even what is beyond return.
        await self._versions.entities("", 1)
        if not dry_run:
            await self._collector.finish_deletions()
        async for entity in _only(name) if name else self._names():
            outcome = await self._one(entity, tell, dry_run, release_unknown_pins)
            run.add(outcome)
            await tell(outcome)

    async def _one(self, entity: str, tell: Tell, dry_run: bool, release_unknown: bool) -> EntityOutcome:
        await tell(Progress(entity, Step.RECONCILE))
        reconciled = None
        try:
            began_ms = self._now_ms()
            reconciled = await self._reconciler.reconcile(entity, dry_run=dry_run, release_unknown=release_unknown)
            refused = _refusal(reconciled, dry_run)
            if refused:
                _log.error("nothing of entity %s is collected: %s", entity, refused)
                return EntityOutcome(entity, refused, reconciled, None)
        except (RegistryUnavailable, NoRegistry):
            raise
        except Exception as error:  # noqa: BLE001 - logged and told; the other entities have their turn
            return _failed(entity, error, reconciled)
        await tell(Progress(entity, Step.COLLECT))
        try:
            report = await self._collector.collect(entity, dry_run=dry_run, reconciled_at_ms=began_ms)
        except Exception as error:  # noqa: BLE001 - the same
            return _failed(entity, error, reconciled)
        return EntityOutcome(entity, "", reconciled, report)

    async def _names(self) -> AsyncIterator[str]:
        """Yield the entities that either service knows, sorted, a page at a time."""
        after = ""
        while True:
            pages = [
                await self._versions.entities(after, _NAMES),
                await self._index.entities.names(after, _NAMES),
            ]
            if not any(pages):
                return
            # Up to where both lists are known. Either may give less than was asked for.
            after = min(page[-1] for page in pages if page)
            for name in sorted({name for page in pages for name in page if name <= after}):
                yield name

    async def _unless_draining(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work. Raises Draining when a drain begins first: the work is cancelled then."""
        task = asyncio.ensure_future(work)
        forget = self._drain.watch(task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            mine = asyncio.current_task()
            if self._drain.started and mine is not None and not mine.cancelling():
                raise Draining("the server is about to stop; the next run goes on where this one was") from None
            raise
        finally:
            forget()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


async def _only(name: str) -> AsyncIterator[str]:
    yield name


def _refusal(reconciled: Reconciliation, dry_run: bool) -> str:
    """Return why an entity must not be collected; empty where it may."""
    if reconciled.lost_versions:
        first = reconciled.lost[0]
        return (
            f"versions whose content is gone: {reconciled.lost_versions:,}, {first.uid.hex()} for one "
            f"({first.message}); restore a backup or upload the content again, or purge them, and collect again"
        )
    if dry_run and reconciled.repinned:
        return (
            f"versions without a pin: {reconciled.repinned:,}; a run that is not dry pins them first, and only then "
            "can be told what goes"
        )
    return ""


def _failed(entity: str, error: Exception, reconciled: Reconciliation | None) -> EntityOutcome:
    _log.error("collecting the garbage of entity %s failed", entity, exc_info=error)
    return EntityOutcome(entity, f"it failed ({error}); the server's log says more", reconciled, None)
