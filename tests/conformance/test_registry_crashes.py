"""A commit and its pin, whatever happens between them: crashes, an ingest that is gone, callers that go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_server.common.errors import Draining, TreeNotFound
from lading_server.common.registry_errors import IngestUnavailable
from lading_server.common.settings import Settings
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.background import CommitRecovery, PinReleases, RequestSweep
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Refs
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.pending import release_pin
from lading_server.registry.store.schema import commits, pin_releases, requests, versions
from lading_server.registry.store.store import RegistryStore
from tests.support.index import DATABASES, FakeClock, database_url
from tests.support.registry import ANN, PinsInMemory, add_run, commit, count, event_kinds, get, registry_at, until

UNLESS_BEST = (AliasChange("best", must_not_exist=True),)


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture(params=DATABASES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with database_url(request.param, tmp_path) as empty:
        yield empty


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[RegistryStore]:
    """Give a store over which no registry runs."""
    store = await RegistryStore.open(url, clock=FakeClock())
    try:
        yield store
    finally:
        await store.close()


async def begin_and_stop(url: str, pins: PinsInMemory, gate: asyncio.Event, tree: bytes, **more: Any) -> None:
    """Have a process end between the two transactions of a commit, while ingest waits at a gate."""
    gate.clear()
    async with registry_at(url, pins) as registry:
        begun = asyncio.create_task(commit(registry, tree, **more))
        await pins.until_called(pins.calls + 1)
    with pytest.raises(Draining):
        await begun
    gate.set()


async def is_empty(registry: Registry, table: sa.Table) -> bool:
    return await count(registry, table) == 0


async def until_nothing_is_pending(registry: Registry) -> None:
    await until(lambda: is_empty(registry, commits))
    await until(lambda: is_empty(registry, pin_releases))


# --- crashes ---


@pytest.mark.parametrize("is_pinned", [False, True])
async def test_a_commit_that_a_crash_cut_off_is_finished_at_the_next_start(
    url: str, pins: PinsInMemory, is_pinned: bool
) -> None:
    tree = pins.new_tree()
    async with registry_at(url, pins) as registry:
        run = await add_run(registry)
    fields: dict[str, Any] = {"description": "# Card", "metadata": '{"a":1}', "tags": ("raw",), "run": run}
    asked = {"aliases": UNLESS_BEST, "request_id": "r-1", **fields}
    await begin_and_stop(url, pins, pins.answers if is_pinned else pins.open, tree, **asked)
    assert bool(pins.pinned) is is_pinned
    async with registry_at(url, pins) as registry:
        await until(lambda: is_empty(registry, commits))
        version = await get(registry, "vision/digits:best")
        assert (version.number, version.tree_digest, version.description) == (0, tree, "# Card")
        assert (version.metadata, version.tags, version.run, version.created_by) == ('{"a":1}', ("raw",), run, "ann")
        assert pins.pinned == {version.uid: tree}
        # The caller never heard of it, and asks again.
        assert await commit(registry, tree, **asked) == (version, True)


@pytest.mark.parametrize("is_pinned", [False, True])
async def test_a_commit_whose_belief_became_wrong_is_aborted_at_the_next_start(
    url: str, pins: PinsInMemory, is_pinned: bool
) -> None:
    async with registry_at(url, pins) as registry:
        first, _ = await commit(registry, pins.new_tree())
    gate = pins.answers if is_pinned else pins.open
    await begin_and_stop(url, pins, gate, pins.new_tree(), aliases=UNLESS_BEST)
    async with store_at(url) as store:
        moved = ChangeAliases(reference_of(ANN, "vision/digits:v0"), (AliasChange("best"),))
        await Refs(Settings(), store).update(ANN, [moved])
    async with registry_at(url, pins) as registry:
        await until_nothing_is_pending(registry)
        assert await count(registry, versions) == 1
        assert list(pins.pinned) == [first.uid]
        assert len(pins.released) == 1


async def test_a_commit_whose_tree_is_gone_is_aborted_at_the_next_start(url: str, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    await begin_and_stop(url, pins, pins.open, tree)
    del pins.trees[tree]
    async with registry_at(url, pins) as registry:
        await until_nothing_is_pending(registry)
        assert await event_kinds(registry) == []
        assert len(pins.released) == 1


async def test_a_commit_is_left_as_it_was_while_ingest_does_not_answer(url: str, pins: PinsInMemory) -> None:
    await begin_and_stop(url, pins, pins.open, pins.new_tree())
    pins.failure = IngestUnavailable("gone")
    async with registry_at(url, pins) as registry:
        recovery = CommitRecovery(registry.commits, registry.store.pending)
        with pytest.raises(IngestUnavailable):
            await recovery.run()
        assert (await count(registry, commits), await count(registry, pin_releases)) == (1, 0)
        pins.failure = None
        await recovery.run()
        assert (await get(registry, "vision/digits:v0")).uid in pins.pinned


async def test_a_commit_that_ingest_refuses_does_not_keep_others_from_being_resumed(
    url: str, pins: PinsInMemory
) -> None:
    lost, kept = pins.new_tree(), pins.new_tree()
    # The registry that is stopped second would resume the first; it hangs as well.
    await begin_and_stop(url, pins, pins.open, lost)
    await begin_and_stop(url, pins, pins.open, kept, name="kept")
    del pins.trees[lost]
    async with registry_at(url, pins) as registry:
        await until_nothing_is_pending(registry)
        assert (await get(registry, "vision/kept")).tree_digest == kept
        assert await count(registry, versions) == 1


async def test_the_process_that_is_at_a_commit_does_not_resume_it(url: str, pins: PinsInMemory) -> None:
    async with registry_at(url, pins) as registry:
        pins.open.clear()
        begun = asyncio.create_task(commit(registry, pins.new_tree()))
        await pins.until_called(1)
        await CommitRecovery(registry.commits, registry.store.pending).run()
        assert pins.calls == 1
        pins.open.set()
        assert (await begun).created


async def test_after_the_start_only_commits_that_are_stale_are_resumed(url: str, pins: PinsInMemory) -> None:
    clock, elsewhere = FakeClock(), pins.of_another_process()
    async with registry_at(url, pins, clock) as registry, registry_at(url, elsewhere, clock) as other:
        recovery = CommitRecovery(registry.commits, registry.store.pending)
        await recovery.run()
        elsewhere.open.clear()
        begun = asyncio.create_task(commit(other, pins.new_tree()))
        await elsewhere.until_called(1)
        await recovery.run()
        assert pins.calls == 0
        clock.seconds += 301
        await recovery.run()
        version = await get(registry, "vision/digits:v0")
        elsewhere.open.set()
        assert await begun == (version, True)


# --- two processes ---


async def test_a_commit_that_another_process_resumes_makes_one_version(url: str, pins: PinsInMemory) -> None:
    async with registry_at(url, pins) as registry:
        pins.open.clear()
        begun = asyncio.create_task(commit(registry, pins.new_tree()))
        await pins.until_called(1)
        async with registry_at(url, pins.of_another_process()) as other:
            await until(lambda: is_empty(other, commits))
        version = await get(registry, "vision/digits:v0")
        pins.open.set()
        assert await begun == (version, True)
        assert list(pins.pinned) == [version.uid]


async def test_a_commit_that_another_process_aborts_begins_again(url: str, pins: PinsInMemory) -> None:
    async with registry_at(url, pins) as registry:
        pins.open.clear()
        begun = asyncio.create_task(commit(registry, pins.new_tree()))
        await pins.until_called(1)
        elsewhere = pins.of_another_process()
        elsewhere.failure = TreeNotFound("not seen from here")
        async with registry_at(url, elsewhere) as other:
            await until(lambda: is_empty(other, commits))
            elsewhere.failure = None
            await until(lambda: is_empty(other, pin_releases))
        pins.open.set()
        version, created = await begun
        assert created
        assert list(pins.pinned) == [version.uid]
        assert version.uid not in pins.released


# --- an ingest that is gone, and callers that go away ---


async def test_a_commit_that_ingest_does_not_answer_leaves_nothing(url: str, pins: PinsInMemory) -> None:
    async with registry_at(url, pins) as registry:
        pins.failure = IngestUnavailable("gone; retry")
        with pytest.raises(IngestUnavailable):
            await commit(registry, pins.new_tree(), request_id="r-1")
        assert await event_kinds(registry) == []
        assert (await count(registry, commits), await count(registry, pin_releases)) == (0, 1)
        pins.failure = None
        assert (await commit(registry, pins.new_tree(), request_id="r-1")).version.number == 0


async def test_a_commit_whose_caller_went_away_is_finished(url: str, pins: PinsInMemory) -> None:
    async with registry_at(url, pins) as registry:
        pins.open.clear()
        begun = asyncio.create_task(commit(registry, pins.new_tree()))
        await pins.until_called(1)
        begun.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun
        pins.open.set()
        await until(lambda: is_empty(registry, commits))
        assert (await get(registry, "vision/digits:v0")).uid in pins.pinned


# --- pins that are released ---


async def add_release(store: RegistryStore, uid: bytes) -> None:
    async with store.change(ANN) as change:
        await release_pin(change, uid)


async def test_a_release_is_told_until_it_is_acknowledged(url: str, pins: PinsInMemory) -> None:
    async with store_at(url) as store:
        await add_release(store, b"u" * 16)
        releases = PinReleases(pins, store.pending, Closing())
        pins.failure = IngestUnavailable("gone")
        for _ in range(2):
            with pytest.raises(IngestUnavailable):
                await releases.run()
        assert [one.uid for one in await store.pending.releases(b"", 10)] == [b"u" * 16]
        pins.failure = None
        await releases.run()
        assert pins.released == {b"u" * 16}
        assert await store.pending.releases(b"", 10) == []


async def test_a_release_that_fails_does_not_keep_others_from_being_told(url: str, pins: PinsInMemory) -> None:
    class FailsForOne(PinsInMemory):
        async def release(self, entity: str, version_uid: bytes) -> None:
            if version_uid == b"a" * 16:
                raise RuntimeError("a mistake")
            await super().release(entity, version_uid)

    async with store_at(url) as store:
        for uid in (b"a" * 16, b"b" * 16):
            await add_release(store, uid)
        with pytest.raises(RuntimeError):
            await PinReleases(FailsForOne(), store.pending, Closing()).run()
        assert [one.uid for one in await store.pending.releases(b"", 10)] == [b"a" * 16]


async def test_a_release_that_hangs_does_not_keep_the_server_from_stopping(url: str, pins: PinsInMemory) -> None:
    async with store_at(url) as store:
        await add_release(store, b"u" * 16)
    pins.open.clear()
    async with registry_at(url, pins):
        await pins.until_called(1)
    async with store_at(url) as store:
        assert [one.uid for one in await store.pending.releases(b"", 10)] == [b"u" * 16]


# --- old requests ---


async def test_requests_are_forgotten_after_two_days(url: str, pins: PinsInMemory) -> None:
    clock = FakeClock()
    async with registry_at(url, pins, clock) as registry:
        await commit(registry, pins.new_tree(), request_id="old")
        clock.seconds += 86_400
        await commit(registry, pins.new_tree(), request_id="new")
        sweep = RequestSweep(registry.store.pending)
        clock.seconds += 86_400
        await sweep.run()
        assert await count(registry, requests) == 2
        clock.seconds += 1
        await sweep.run()
        assert await count(registry, requests) == 1
