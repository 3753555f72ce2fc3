"""Collections and projects that go and come back: told at once, done in batches, whatever happens between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_server.common.callers import Caller
from lading_server.common.registry_errors import (
    AliasProtected,
    CollectionDeleting,
    CollectionInUse,
    CollectionNotFound,
    ProjectNotEmpty,
    ProjectNotFound,
    SourceDeleted,
    TypeMismatch,
    VersionNotFound,
    WrongKind,
)
from lading_server.common.roles import Role
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.purging import Purging
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.alias_rules import put_rule
from lading_server.registry.store.rows import AliasRule
from lading_server.registry.store.schema import CollectionState, collections, events, pin_releases, versions
from tests.support.index import DATABASES, FakeClock, database_url
from tests.support.registry import (
    ANN,
    PinsInMemory,
    add_run,
    commit,
    count,
    event_kinds,
    get,
    link,
    registry_at,
    rows,
    set_aliases,
    until,
)

READER = "model-registry/Digit Reader"
WEEK = 7 * 86_400


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=DATABASES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with database_url(request.param, tmp_path) as empty:
        yield empty


@pytest.fixture
async def registry(url: str, pins: PinsInMemory, clock: FakeClock) -> AsyncIterator[Registry]:
    """A registry with `vision/digits:v0` to `v4`."""
    async with registry_at(url, pins, clock) as opened:
        for _ in range(5):
            await commit(opened, pins.new_tree())
        yield opened


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions a change."""
    monkeypatch.setattr("lading_server.registry.domain.batches.BATCH", 2)


async def delete(registry: Registry, name: str = "digits", project: str = "vision", **fields: Any) -> bool:
    return (await registry.deleting.delete_collection(ANN, project, name, **fields)).is_done


async def undelete(registry: Registry, name: str = "digits", project: str = "vision") -> bool:
    return (await registry.deleting.undelete_collection(ANN, project, name)).is_done


async def states(registry: Registry) -> list[str]:
    return [row.state for row in await rows(registry, sa.select(versions.c.state).order_by(versions.c.id))]


async def collection_state(registry: Registry, name: str = "digits") -> str:
    query = sa.select(collections.c.state).where(collections.c.name == name)
    return str((await rows(registry, query))[0][0])


async def numbers(registry: Registry, name: str = "digits") -> list[int]:
    page = await registry.lists.versions(ANN, "vision", name, PageRequest(0, ""))
    return [row.number for row in page.rows]


async def is_in(registry: Registry, state: CollectionState, name: str = "digits") -> bool:
    return await collection_state(registry, name) == state.value


# --- gone and back ---


async def test_a_deleted_collection_and_its_versions_are_found_by_nothing(
    registry: Registry, pins: PinsInMemory
) -> None:
    row = await get(registry, "vision/digits:v1")
    assert await delete(registry)
    for found in (get(registry, "vision/digits:v1"), registry.collections.get(ANN, "vision", "digits")):
        with pytest.raises((CollectionNotFound, VersionNotFound)):
            await found
    with pytest.raises(VersionNotFound, match="it can be undeleted until"):
        await registry.versions.get_by_uid(ANN, row.uid)
    assert (await registry.lists.search_versions(ANN, "", "", PageRequest(0, ""))).rows == []
    assert (await registry.lists.collections(ANN, "", "", PageRequest(0, ""))).rows == []
    (gone,) = (await registry.lists.collections(ANN, "", "", PageRequest(0, ""), deleted=True)).rows
    assert (gone.name, gone.deleted_at_ms) == ("digits", registry.store.now_ms())
    assert len((await registry.lists.versions(ANN, "vision", "digits", PageRequest(0, ""), deleted=True)).rows) == 5
    assert row.uid in pins.pinned
    with pytest.raises(CollectionNotFound):
        await delete(registry)


async def test_what_went_with_a_collection_comes_back_with_it_and_nothing_else(registry: Registry) -> None:
    await registry.collections.update(ANN, "vision", "digits", description="# Card", add_tags=["tag"])
    await registry.versions.delete(ANN, reference_of(ANN, "vision/digits:v1"))
    before = await registry.collections.get(ANN, "vision", "digits")
    await delete(registry)
    assert await undelete(registry)
    assert await registry.collections.get(ANN, "vision", "digits") == before
    assert (await numbers(registry), (await get(registry, "vision/digits")).number) == ([4, 3, 2, 0], 4)
    assert await undelete(registry)
    kinds = await event_kinds(registry)
    assert (kinds.count("collection.deleted"), kinds.count("collection.undeleted")) == (1, 1)


async def test_a_collection_that_is_pointed_into_goes_by_force_alone(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    await link(registry, "vision/digits:v1")
    with pytest.raises(CollectionInUse, match=f"best, {READER}:v0 point into it") as caught:
        await delete(registry)
    assert caught.value.metadata == {"aliases": "best", "links": f"{READER}:v0"}
    assert await states(registry) == ["live"] * 6
    assert await delete(registry, force=True)
    assert await states(registry) == ["deleted"] * 6
    with pytest.raises(VersionNotFound):
        await get(registry, READER)


async def test_a_portfolio_goes_and_comes_back_without_links_to_what_is_gone(registry: Registry) -> None:
    for number in range(3):
        await link(registry, f"vision/digits:v{number}")
    await delete(registry, "Digit Reader", "model-registry")
    await registry.versions.delete(ANN, reference_of(ANN, "vision/digits:v2"))
    await undelete(registry, "Digit Reader", "model-registry")
    assert (await get(registry, READER)).source == "vision/digits:v1"
    assert (await registry.collections.get(ANN, "model-registry", "Digit Reader")).version_count == 2


async def test_a_single_version_brings_its_collection_back_alone(registry: Registry) -> None:
    await registry.collections.update(ANN, "vision", "digits", description="# Card")
    await delete(registry)
    await registry.undeleting.undelete(ANN, reference_of(ANN, "vision/digits:v3"))
    assert (await registry.collections.get(ANN, "vision", "digits")).description == "# Card"
    assert await numbers(registry) == [3]
    await undelete(registry)
    assert await numbers(registry) == [4, 3, 2, 1, 0]


# --- its name ---


async def test_a_name_is_free_and_its_numbers_go_on(registry: Registry, pins: PinsInMemory) -> None:
    same = (await get(registry, "vision/digits:v4")).tree_digest
    await delete(registry)
    new, created = await commit(registry, same)
    assert (created, new.number) == (True, 5)
    assert await numbers(registry) == [5]
    # The old ones join it.
    assert await undelete(registry)
    assert await numbers(registry) == [5, 4, 3, 2, 1, 0]
    assert (await get(registry, "vision/digits")).number == 5


async def test_a_name_takes_another_type_when_nothing_of_the_old_one_can_come_back(
    registry: Registry, pins: PinsInMemory
) -> None:
    await delete(registry)
    with pytest.raises(TypeMismatch, match="purge it first"):
        await commit(registry, pins.new_tree(), type_="model")
    assert await delete(registry, purge=True)
    assert (await commit(registry, pins.new_tree(), type_="model")).version.number == 5
    assert (await registry.collections.get(ANN, "vision", "digits")).type == "model"


async def test_rules_of_aliases_stay_with_the_name(registry: Registry, pins: PinsInMemory) -> None:
    async with registry.store.change(ANN) as change:
        await put_rule(change, AliasRule("vision", "digits", "prod", is_protected=True), None)
    await set_aliases(registry, "vision/digits:v0", "prod")
    await delete(registry, force=True)
    await commit(registry, pins.new_tree())
    moved = ChangeAliases(reference_of(ANN, "vision/digits:v5"), (AliasChange("prod"),))
    with pytest.raises(AliasProtected):
        await registry.refs.update(Caller("acme", "bob", role=Role.MEMBER), [moved])


# --- purged ---


async def test_a_collection_is_purged_after_its_time(registry: Registry, pins: PinsInMemory, clock: FakeClock) -> None:
    await delete(registry)
    clock.seconds += WEEK - 1
    await Purging(registry.settings, registry.store, Closing(), lambda: None).run()
    assert await states(registry) == ["deleted"] * 5
    clock.seconds += 1
    await Purging(registry.settings, registry.store, Closing(), lambda: None).run()
    assert await states(registry) == ["purged"] * 5
    with pytest.raises(CollectionNotFound, match="purged"):
        await undelete(registry)
    assert (await registry.lists.collections(ANN, "", "", PageRequest(0, ""), deleted=True)).rows == []
    assert (await event_kinds(registry))[-1] == "collection.purged"
    assert (await commit(registry, pins.new_tree())).version.number == 5


async def test_a_collection_is_purged_at_once_with_what_was_deleted_before(
    registry: Registry, pins: PinsInMemory
) -> None:
    await registry.versions.delete(ANN, reference_of(ANN, "vision/digits:v1"))
    assert await delete(registry, purge=True, request_id="r-1")
    assert await states(registry) == ["purged"] * 5
    await until(lambda: _no_releases(registry))
    assert (pins.pinned, len(pins.released)) == ({}, 5)
    assert await delete(registry, purge=True, request_id="r-1")


async def _no_releases(registry: Registry) -> bool:
    return await count(registry, pin_releases) == 0


# --- in batches ---


@pytest.mark.usefixtures("small_batches")
async def test_the_rest_of_a_large_collection_goes_in_the_background(registry: Registry) -> None:
    await link(registry, "vision/digits:v3")
    assert not await delete(registry, force=True)
    await until(lambda: is_in(registry, CollectionState.DELETED))
    assert await states(registry) == ["deleted"] * 6
    gone = sa.select(events.c.actor).where(events.c.kind == "version.deleted")
    assert await rows(registry, gone) == [("ann",)] * 5
    assert not await undelete(registry)
    await until(lambda: is_in(registry, CollectionState.LIVE))
    assert await numbers(registry) == [4, 3, 2, 1, 0]
    assert (await registry.collections.get(ANN, "vision", "digits")).version_count == 5


@pytest.mark.usefixtures("small_batches")
async def test_more_links_than_a_batch_go_before_their_version(registry: Registry) -> None:
    for name in ("A", "B", "C", "D", "E"):
        await link(registry, "vision/digits:v0", name)
    await delete(registry, force=True)
    await until(lambda: is_in(registry, CollectionState.DELETED))
    assert await states(registry) == ["deleted"] * 10


@contextmanager
def no_background(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block nothing goes on in the background: what is begun stays as its first change left it."""

    async def nothing(self: Any) -> None:
        return None

    with monkeypatch.context() as patched:
        patched.setattr("lading_server.registry.domain.batches.Batches.run", nothing)
        yield


async def begin(url: str, pins: PinsInMemory, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Have a process end after the first change of a deletion of five versions."""
    monkeypatch.setattr("lading_server.registry.domain.batches.BATCH", 2)
    with no_background(monkeypatch):
        async with registry_at(url, pins) as registry:
            for _ in range(5):
                await commit(registry, pins.new_tree())
            assert not await delete(registry, **fields)


@pytest.mark.parametrize("purge", [False, True])
async def test_a_deletion_that_a_crash_cut_off_goes_on_at_the_next_start(
    url: str, pins: PinsInMemory, monkeypatch: pytest.MonkeyPatch, purge: bool
) -> None:
    await begin(url, pins, monkeypatch, purge=purge)
    async with registry_at(url, pins) as registry:
        await until(lambda: is_in(registry, CollectionState.DELETED))
        assert await states(registry) == ["purged" if purge else "deleted"] * 5
        kinds = await event_kinds(registry)
        assert (kinds.count("version.deleted"), kinds.count("version.purged")) == (5, 5 if purge else 0)


async def test_what_is_half_gone_is_hidden_whole_and_takes_nothing_new(
    url: str, pins: PinsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(url, pins, monkeypatch)
    with no_background(monkeypatch):
        async with registry_at(url, pins) as registry:
            assert (await states(registry)).count("live") == 3
            with pytest.raises(CollectionNotFound):
                await get(registry, "vision/digits:v4")
            assert (await registry.lists.search_versions(ANN, "type=dataset", "", PageRequest(0, ""))).rows == []
            for refused in (commit(registry, pins.new_tree()), link_into(registry)):
                with pytest.raises((CollectionDeleting, CollectionNotFound)):
                    await refused
            with pytest.raises(CollectionDeleting):
                await registry.undeleting.undelete(ANN, reference_of(ANN, "vision/digits:v0"))
            await until(lambda: _no_releases(registry))
            # What is on its way can be turned round.
            assert not await undelete(registry)
    async with registry_at(url, pins) as registry:
        await until(lambda: is_in(registry, CollectionState.LIVE))
        assert await numbers(registry) == [4, 3, 2, 1, 0]


async def test_a_link_to_what_is_half_gone_is_not_linked_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await link(registry, "vision/digits:v4")
    monkeypatch.setattr("lading_server.registry.domain.batches.BATCH", 2)
    with no_background(monkeypatch):
        assert not await delete(registry, force=True)
        with pytest.raises(SourceDeleted) as refused:
            await link(registry, f"{READER}:v0", "Other Reader")
        assert refused.value.metadata == {"source": "vision/digits:v4"}


async def link_into(registry: Registry) -> None:
    await link(registry, "vision/digits:v4")


async def test_two_processes_at_one_deletion_do_it_once(
    url: str, pins: PinsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(url, pins, monkeypatch)
    async with registry_at(url, pins) as registry, registry_at(url, pins) as other:
        await until(lambda: is_in(other, CollectionState.DELETED))
        kinds = await event_kinds(registry)
        assert kinds.count("version.deleted") == 5


async def test_a_commit_in_flight_into_a_collection_that_goes_makes_it_anew(
    registry: Registry, pins: PinsInMemory
) -> None:
    pins.open.clear()
    begun = asyncio.create_task(commit(registry, pins.new_tree()))
    await pins.until_called(6)
    await delete(registry)
    pins.open.set()
    assert (await begun).version.number == 5
    assert await numbers(registry) == [5]


# --- projects ---


async def test_a_project_goes_when_it_is_empty_or_by_force(registry: Registry, pins: PinsInMemory) -> None:
    run = await add_run(registry)
    with pytest.raises(ProjectNotEmpty, match="digits"):
        await registry.deleting.delete_project(ANN, "vision")
    await registry.deleting.delete_project(ANN, "vision", force=True)
    await until(lambda: is_in(registry, CollectionState.DELETED))
    assert (await registry.lists.projects(ANN, PageRequest(0, ""))).rows == []
    assert (await registry.runs.get(ANN, run)).run.project == "vision"
    assert [row.run for row in (await registry.lists.runs(ANN, "vision", PageRequest(0, ""))).rows] == [run]
    with pytest.raises(ProjectNotFound):
        await registry.deleting.delete_project(ANN, "vision")
    await undelete(registry)
    assert [row.name for row in (await registry.lists.projects(ANN, PageRequest(0, ""))).rows] == ["vision"]
    assert await numbers(registry) == [4, 3, 2, 1, 0]
    await delete(registry)
    assert (await registry.deleting.delete_project(ANN, "vision")).is_done
    await commit(registry, pins.new_tree())
    assert [row.name for row in (await registry.lists.projects(ANN, PageRequest(0, ""))).rows] == ["vision"]


async def test_the_project_of_registered_models_stays(registry: Registry) -> None:
    with pytest.raises(WrongKind):
        await registry.deleting.delete_project(ANN, "model-registry", force=True)


async def test_a_project_with_many_collections_goes_on_after_a_crash(
    url: str, pins: PinsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading_server.registry.domain.batches._COLLECTIONS", 2)
    with no_background(monkeypatch):
        async with registry_at(url, pins) as registry:
            for name in ("a", "b", "c", "d", "e"):
                await commit(registry, pins.new_tree(), name)
            assert not (await registry.deleting.delete_project(ANN, "vision", force=True)).is_done
            with pytest.raises(CollectionDeleting):
                await commit(registry, pins.new_tree(), "new")
    async with registry_at(url, pins) as registry:
        for name in ("a", "b", "c", "d", "e"):
            await until(lambda name=name: is_in(registry, CollectionState.DELETED, name))  # type: ignore[misc]
        assert await states(registry) == ["deleted"] * 5
        assert (await commit(registry, pins.new_tree(), "new")).created
