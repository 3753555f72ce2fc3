"""Runs of the collector, on each database: in order, one at a time, and never past what was not reconciled."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lading_server.common.drain import Drain
from lading_server.common.errors import CollectionRunning, Draining
from lading_server.common.metrics import Metrics
from lading_server.common.registry_errors import NoRegistry, RegistryUnavailable
from lading_server.ingest.domain.collector import CollectionReport
from lading_server.ingest.domain.garbage import EntityOutcome, Garbage, LastRun, Progress, Step
from lading_server.ingest.domain.garbage_schedule import GarbageSchedule
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.reconcile import Reconciler
from lading_server.ingest.registry_versions import NoRegistryVersions
from tests.support.content import opened_ingest, put_tree
from tests.support.index import DATABASES, FakeClock
from tests.support.kept_versions import VersionsInMemory
from tests.support.registry import PATIENCE_SECONDS

FILES = {"small.txt": (b"a file of one chunk",)}


class CollectorInMemory:
    """What the collector is asked, and when.

    Attributes:
        asked: Every call, in order.
        reconciled_at_ms: What the last `collect` was told.
        before: Awaited in every `collect`: holds it, or lets it fail.
        collected: Set whenever a `collect` has begun.
        ended: The entities whose `collect` was held by `before` and is no more.
        held: Set then.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.reconciled_at_ms = 0
        self.before: Callable[[str], Awaitable[object]] | None = None
        self.collected = asyncio.Event()
        self.ended: list[str] = []
        self.held = asyncio.Event()

    async def finish_deletions(self) -> None:
        self.asked.append("finish")

    async def collect(self, entity: str, *, dry_run: bool, reconciled_at_ms: int) -> CollectionReport:
        self.reconciled_at_ms = reconciled_at_ms
        self.asked.append(f"{'try' if dry_run else 'collect'} {entity}")
        self.collected.set()
        if self.before is not None:
            try:
                await self.before(entity)
            finally:
                self.ended.append(entity)
                self.held.set()
        return CollectionReport(entity=entity, bytes_condemned=10, bytes_freed=3, bytes_in_trash=7)

    async def revive(self, entity: str, tree_digest: bytes) -> bool:
        return False


async def soon(event: asyncio.Event) -> None:
    """Wait for an event, and for the next one the next time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await event.wait()
    event.clear()


@pytest.fixture(params=DATABASES)
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with opened_ingest(request.param, tmp_path) as opened:
        yield opened


class Run:
    """Garbage over what a test decides, and what it tells."""

    def __init__(self, ingest: Ingest) -> None:
        self.versions = VersionsInMemory()
        self.collector = CollectorInMemory()
        self.drain = Drain()
        self.metrics = Metrics()
        self.clock = FakeClock()
        self.told: list[Progress | EntityOutcome] = []
        self.pins = ingest.pins
        reconciler = Reconciler(self.versions, ingest.pins, ingest.index.pins, self.collector.revive)
        self.garbage = Garbage(
            ingest.index, self.versions, reconciler, self.collector, self.drain, self.metrics, self.clock
        )

    async def __call__(self, **options: bool | str) -> list[EntityOutcome]:
        self.told.clear()
        await self.garbage.run(self._tell, **options)  # type: ignore[arg-type]
        return [event for event in self.told if isinstance(event, EntityOutcome)]

    async def _tell(self, event: Progress | EntityOutcome) -> None:
        self.told.append(event)

    def metric(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


@pytest.fixture
def run(ingest: Ingest) -> Run:
    return Run(ingest)


async def test_every_entity_of_either_service_is_reconciled_and_then_collected(ingest: Ingest, run: Run) -> None:
    for entity in ("acme", "acme-2", "acme0", "zoo"):
        await put_tree(ingest, FILES, entity)
    run.versions.kept = {"acme": {}, "beta": {}, "acme_c": {}}
    names = sorted(["acme", "acme-2", "acme0", "zoo", "beta", "acme_c"])
    outcomes = await run()
    assert [one.entity for one in outcomes] == names
    assert run.collector.asked == ["finish", *[f"collect {name}" for name in names]]
    steps = [event for event in run.told if isinstance(event, Progress)]
    assert steps == [Progress(name, step) for name in names for step in (Step.RECONCILE, Step.COLLECT)]


async def test_one_entity_can_be_meant_alone(ingest: Ingest, run: Run) -> None:
    for entity in ("acme", "zoo"):
        await put_tree(ingest, FILES, entity)
    assert [one.entity for one in await run(name="zoo")] == ["zoo"]
    assert run.collector.asked == ["finish", "collect zoo"]


async def test_many_entities_come_once_each(ingest: Ingest, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading_server.ingest.domain.garbage._NAMES", 2)
    here, there = [f"e{number}" for number in range(0, 12, 2)], [f"e{number}" for number in range(0, 12, 3)]
    for entity in here:
        await ingest.index.entities.ensure(entity)
    run.versions.kept = {name: {} for name in there}
    assert [one.entity for one in await run()] == sorted({*here, *there})


async def test_what_is_past_its_time_is_judged_by_when_the_registry_was_asked(ingest: Ingest, run: Run) -> None:
    asked_at_ms = int(run.clock.seconds * 1000)

    async def hours_pass() -> None:
        run.clock.seconds += 3600

    run.versions.after_page = hours_pass
    await run(name="acme")
    assert run.collector.reconciled_at_ms == asked_at_ms < int(run.clock.seconds * 1000)


async def test_with_the_registry_away_nothing_is_deleted(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)
    run.versions.is_away = True
    with pytest.raises(RegistryUnavailable):
        await run()
    assert run.collector.asked == []
    last = await run.garbage.last()
    assert last is not None
    assert (last.outcome, last.message) == ("failed", "the registry does not answer")
    run.versions.is_away = False
    await run()
    assert run.collector.asked == ["finish", "collect acme"]


async def test_a_registry_that_goes_away_in_a_run_ends_it(ingest: Ingest, run: Run) -> None:
    for entity in ("acme", "zoo"):
        await put_tree(ingest, FILES, entity)

    async def away(entity: str) -> None:
        run.versions.is_away = True

    run.collector.before = away
    with pytest.raises(RegistryUnavailable):
        await run()
    assert run.collector.asked == ["finish", "collect acme"]


async def test_an_entity_with_a_lost_version_is_refused_and_the_others_are_not(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)
    await put_tree(ingest, FILES, "zoo")
    lost = run.versions.keep(os.urandom(16), os.urandom(32))
    mine, others = await run()
    assert mine.report is None
    assert lost.hex() in mine.refused
    assert (others.refused, others.report is not None) == ("", True)
    assert run.collector.asked == ["finish", "collect zoo"]
    last = await run.garbage.last()
    assert last is not None
    assert (last.outcome, last.entities, last.refused_entities) == ("refused", 1, 1)
    assert "acme: versions whose content is gone: 1" in last.message


async def test_an_entity_that_fails_is_told_and_the_others_have_their_turn(ingest: Ingest, run: Run) -> None:
    for entity in ("acme", "zoo"):
        await put_tree(ingest, FILES, entity)

    async def fail(entity: str) -> None:
        if entity == "acme":
            raise RuntimeError("a disk is on fire")

    run.collector.before = fail
    mine, others = await run()
    assert "a disk is on fire" in mine.refused
    assert others.report is not None


async def test_a_dry_run_changes_nothing_and_leaves_no_note(ingest: Ingest, run: Run) -> None:
    tree = await put_tree(ingest, FILES)
    await run(dry_run=True)
    assert run.collector.asked == ["try acme"]
    assert await run.garbage.last() is None
    run.versions.keep(os.urandom(16), tree)
    (refused,) = await run(dry_run=True)
    assert "versions without a pin: 1" in refused.refused
    assert await ingest.index.pins.held("acme", b"", 10) == []
    assert run.collector.asked == ["try acme"]


async def test_a_version_is_pinned_before_its_entity_is_collected(ingest: Ingest, run: Run) -> None:
    tree = await put_tree(ingest, FILES)
    uid = run.versions.keep(os.urandom(16), tree)
    held: list[bytes] = []

    async def look(entity: str) -> None:
        held.extend(row.version_uid for row in await ingest.index.pins.held(entity, b"", 10))

    run.collector.before = look
    await run()
    assert held == [uid]


async def test_two_runs_do_not_go_at_once(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)
    go_on = asyncio.Event()

    async def wait(entity: str) -> None:
        await go_on.wait()

    run.collector.before = wait
    first = asyncio.create_task(run())
    await run.collector.collected.wait()
    during = run.garbage.is_running
    with pytest.raises(CollectionRunning):
        await run.garbage.run(run._tell)
    go_on.set()
    assert len(await first) == 1
    assert (during, run.garbage.is_running) == (True, False)
    assert len(await run()) == 1


async def test_the_last_run_is_remembered_and_measured(ingest: Ingest, run: Run) -> None:
    for entity in ("acme", "zoo"):
        await put_tree(ingest, FILES, entity)

    async def takes_time(entity: str) -> None:
        run.clock.seconds += 2.5

    run.collector.before = takes_time
    began_at_ms = int(run.clock() * 1000)
    await run()
    expected = LastRun(
        began_at_ms,
        began_at_ms + 5000,
        entities=2,
        bytes_condemned=20,
        bytes_freed=6,
        bytes_in_trash=14,
    )
    assert await run.garbage.last() == expected
    assert run.metric("lading_garbage_trash_bytes") == 14
    assert run.metric("lading_garbage_freed_bytes_total") == 6
    assert run.metric("lading_garbage_run_seconds") == 5
    # A run that did not look at all of it does not know what all of the trash is.
    await run(name="zoo")
    assert run.metric("lading_garbage_trash_bytes") == 14
    assert run.metric("lading_garbage_freed_bytes_total") == 9


async def test_a_drain_ends_a_run_and_waits_for_its_end(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)

    async def forever(entity: str) -> None:
        await asyncio.Event().wait()

    run.collector.before = forever
    running = asyncio.create_task(run())
    await run.collector.collected.wait()
    run.drain.begin()
    with pytest.raises(Draining):
        await running
    assert run.collector.ended == ["acme"]
    assert not run.garbage.is_running


async def test_whoever_leaves_ends_the_run(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)

    async def forever(entity: str) -> None:
        await asyncio.Event().wait()

    run.collector.before = forever
    running = asyncio.create_task(run())
    await run.collector.collected.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert run.collector.ended == ["acme"]
    assert not run.garbage.is_running
    assert await run.garbage.last() is None


async def test_without_a_registry_it_says_what_to_set(ingest: Ingest, run: Run) -> None:
    nobody = NoRegistryVersions()
    reconciler = Reconciler(nobody, ingest.pins, ingest.index.pins, run.collector.revive)
    garbage = Garbage(ingest.index, nobody, reconciler, run.collector, run.drain, run.metrics)
    with pytest.raises(NoRegistry, match="--registry-target"):
        await garbage.run(run._tell)
    assert run.collector.asked == []


# --- by itself ---


async def test_it_runs_by_itself_again_and_again(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)
    schedule = GarbageSchedule(run.garbage, run.drain, 0.01)
    assert run.collector.asked == []
    try:
        for _ in range(3):
            await soon(run.collector.collected)
    finally:
        await schedule.close()
    assert (await run.garbage.last()) is not None


async def test_it_goes_on_by_itself_when_the_registry_is_back(ingest: Ingest, run: Run) -> None:
    await put_tree(ingest, FILES)
    run.versions.is_away = True
    schedule = GarbageSchedule(run.garbage, run.drain, 0.01)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (last := await run.garbage.last()) is None or last.outcome != "failed":
                continue
        assert run.collector.asked == []
        run.versions.is_away = False
        await soon(run.collector.collected)
    finally:
        await schedule.close()


@pytest.mark.parametrize("by", ["drain", "close"])
async def test_it_ends_in_the_middle_of_a_run(ingest: Ingest, run: Run, by: str) -> None:
    await put_tree(ingest, FILES)

    async def forever(entity: str) -> None:
        await asyncio.Event().wait()

    run.collector.before = forever
    schedule = GarbageSchedule(run.garbage, run.drain, 0.01)
    await run.collector.collected.wait()
    if by == "drain":
        run.drain.begin()
        await soon(run.collector.held)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await schedule.close()
    assert run.collector.ended == ["acme"]
    assert not run.garbage.is_running
