"""What goes comes back, until it is purged: versions, links and what a query finds; on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import (
    CollectionNotFound,
    InvalidQuery,
    RequestIdReused,
    SourceDeleted,
    VersionInUse,
    VersionNotFound,
)
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.delete_by_query import DeleteOutcome, DeletePage, DeleteQuery
from lading_server.registry.domain.lineage import Direction
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.purging import Purging
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.registry import Registry
from lading_server.registry.domain.undeleting import Undeleted
from lading_server.registry.store.alias_rules import put_rule
from lading_server.registry.store.rows import AliasRule, VersionRow
from lading_server.registry.store.schema import VersionState, events, pin_releases, versions
from tests.support.index import DATABASES, FakeClock
from tests.support.registry import (
    ANN,
    PinsInMemory,
    add_run,
    commit,
    count,
    event_kinds,
    get,
    link,
    opened_registry,
    rows,
    set_aliases,
    unlink,
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
async def registry(
    request: pytest.FixtureRequest, tmp_path: Path, pins: PinsInMemory, clock: FakeClock
) -> AsyncIterator[Registry]:
    """A registry with `vision/digits:v0` to `v2`."""
    async with opened_registry(request.param, tmp_path, pins, clock) as opened:
        for number in range(3):
            await commit(opened, pins.new_tree(), tags=("raw",), description="# Card", metadata=f'{{"n":{number}}}')
        yield opened


async def delete(registry: Registry, reference: str, **fields: Any) -> VersionRow:
    return await registry.versions.delete(ANN, reference_of(ANN, reference), **fields)


async def undelete(registry: Registry, reference: str | bytes, **fields: Any) -> Undeleted:
    target = reference if isinstance(reference, bytes) else reference_of(ANN, reference)
    return await registry.undeleting.undelete(ANN, target, **fields)


async def purge(registry: Registry) -> None:
    """Purge what is due."""
    await Purging(registry.settings, registry.store, Closing(), lambda: None).run()


async def states(registry: Registry) -> list[str]:
    """The state of every version, in the order in which they were made."""
    return [row.state for row in await rows(registry, sa.select(versions.c.state).order_by(versions.c.id))]


async def latest(registry: Registry, collection: str = "vision/digits") -> int:
    return (await get(registry, collection)).number


async def deleted(registry: Registry, name: str = "digits", project: str = "vision") -> list[int]:
    """The numbers of what can be undeleted."""
    page = await registry.lists.versions(ANN, project, name, PageRequest(0, ""), deleted=True)
    return [row.number for row in page.rows]


async def by_query(registry: Registry, query: str = "", page: PageRequest | None = None, **fields: Any) -> DeletePage:
    request_id = fields.pop("request_id", "")
    wanted = DeleteQuery(query, **fields)
    return await registry.delete_by_query.page(ANN, wanted, page or PageRequest(0, ""), request_id)


def outcomes(page: DeletePage) -> dict[str, DeleteOutcome]:
    return {one.version.name: one.outcome for one in page.results}


# --- undeleted ---


async def test_what_comes_back_is_what_went_but_for_its_aliases(registry: Registry, pins: PinsInMemory) -> None:
    run = await add_run(registry)
    made, _ = await commit(registry, pins.new_tree(), tags=("a",), description="# D", metadata='{"x":1}', run=run)
    before = await set_aliases(registry, made.name, "best")
    await delete(registry, made.name, force=True)
    assert await latest(registry) == 2
    back = await undelete(registry, made.name)
    assert back == Undeleted(before._replace(aliases=("latest",)), [])
    assert await get(registry, made.name) == back.version
    assert (await registry.runs.get(ANN, run)).outputs[0].uid == made.uid
    graph = await registry.lineage.graph(ANN, made.name, Direction.BOTH, 0)
    assert [one.run for one in graph.runs] == [run]
    assert made.uid in pins.pinned
    with pytest.raises(VersionNotFound):
        await get(registry, "vision/digits:best")


async def test_latest_moves_only_to_what_is_the_newest(registry: Registry) -> None:
    for number in (0, 2):
        await delete(registry, f"vision/digits:v{number}")
    await undelete(registry, "vision/digits:v0")
    assert await latest(registry) == 1
    await undelete(registry, "vision/digits:v2")
    assert await latest(registry) == 2
    assert (await registry.collections.get(ANN, "vision", "digits")).version_count == 3


async def test_a_version_comes_back_by_its_id_and_by_its_tree(registry: Registry) -> None:
    row = await delete(registry, "vision/digits:v1")
    assert (await undelete(registry, row.uid)).version.uid == row.uid
    await delete(registry, "vision/digits:v1")
    assert (await undelete(registry, f"vision/digits@b3:{row.tree_digest.hex()}")).version.uid == row.uid
    with pytest.raises(InvalidName, match="alias 'latest' went with the version"):
        await undelete(registry, "vision/digits")


async def test_one_that_is_there_is_left_as_it_is(registry: Registry) -> None:
    row = await set_aliases(registry, "vision/digits:v1", "best")
    kinds = await event_kinds(registry)
    assert await undelete(registry, "vision/digits:v1") == Undeleted(row, [])
    assert await event_kinds(registry) == kinds


@pytest.mark.parametrize(
    ("reference", "kind"), [("vision/digits:v9", VersionNotFound), ("vision/nothing:v0", CollectionNotFound)]
)
async def test_what_never_was_cannot_come_back(registry: Registry, reference: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await undelete(registry, reference)


async def test_another_tenant_brings_nothing_back(registry: Registry) -> None:
    row = await delete(registry, "vision/digits:v1")
    eve = Caller("rival", "eve")
    with pytest.raises(VersionNotFound):
        await registry.undeleting.undelete(eve, row.uid)
    with pytest.raises(CollectionNotFound):
        await registry.undeleting.undelete(eve, reference_of(eve, "vision/digits:v1"))
    assert await deleted(registry) == [1]


async def test_an_undeletion_that_comes_again_changes_nothing_more(registry: Registry) -> None:
    await delete(registry, "vision/digits:v1")
    first = await undelete(registry, "vision/digits:v1", request_id="r-1")
    await delete(registry, "vision/digits:v1")
    assert await undelete(registry, "vision/digits:v1", request_id="r-1") == first
    assert await deleted(registry) == [1]
    with pytest.raises(RequestIdReused):
        await undelete(registry, "vision/digits:v2", request_id="r-1")


async def test_what_was_deleted_says_until_when_it_can_come_back(registry: Registry, clock: FakeClock) -> None:
    row = await delete(registry, "vision/digits:v1")
    for found in (get(registry, "vision/digits:v1"), registry.versions.get_by_uid(ANN, row.uid)):
        with pytest.raises(VersionNotFound, match=r"was deleted at .*; it can be undeleted until 2027-01-22") as caught:
            await found
        assert caught.value.metadata["state"] == "deleted"
    (listed,) = (await registry.lists.versions(ANN, "vision", "digits", PageRequest(0, ""), deleted=True)).rows
    assert (listed.uid, listed.deleted_at_ms) == (row.uid, int(clock.seconds * 1000))


async def test_the_same_tree_after_a_deletion_is_a_new_version_and_both_can_be_there(
    registry: Registry, pins: PinsInMemory
) -> None:
    old = await delete(registry, "vision/digits:v1")
    new, created = await commit(registry, old.tree_digest)
    assert (created, new.number) == (True, 3)
    await undelete(registry, "vision/digits:v1")
    by_tree = f"vision/digits@b3:{old.tree_digest.hex()}"
    assert (await get(registry, by_tree)).number == 3
    assert await commit(registry, old.tree_digest) == (await get(registry, "vision/digits:v3"), False)
    assert pins.pinned.keys() >= {old.uid, new.uid}


# --- links ---


async def test_links_come_back_with_what_they_point_at_where_that_is_asked(registry: Registry) -> None:
    first, _ = await link(registry, "vision/digits:v1", "Digit Reader", "staging")
    other, _ = await link(registry, "vision/digits:v1", "Other Reader")
    await unlink(registry, other.name, force=True)
    await delete(registry, "vision/digits:v1", force=True)
    with pytest.raises(SourceDeleted, match="vision/digits:v1") as caught:
        await undelete(registry, first.name)
    assert caught.value.metadata["source"] == "vision/digits:v1"
    assert (await undelete(registry, "vision/digits:v1")).links == []
    await delete(registry, "vision/digits:v1")
    await undelete(registry, "vision/digits:v1")
    # Unlinked before, and so by a deletion of its own.
    assert (await undelete(registry, first.name)).version.aliases == ("latest",)
    await delete(registry, "vision/digits:v1", force=True)
    back = await undelete(registry, "vision/digits:v1", with_links=True, request_id="r-1")
    assert await undelete(registry, "vision/digits:v1", with_links=True, request_id="r-1") == back
    assert [one.uid for one in back.links] == [first.uid]
    assert back.links == [await get(registry, READER)]
    assert back.links[0].source == "vision/digits:v1"
    assert await deleted(registry, "Other Reader", "model-registry") == [0]
    assert (await undelete(registry, other.uid)).version.number == 0


# --- purged ---


async def test_what_was_deleted_is_purged_after_its_time_and_its_pin_is_released(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    await link(registry, "vision/digits:v1")
    early = await delete(registry, "vision/digits:v1", force=True)
    clock.seconds += WEEK / 2
    late = await delete(registry, "vision/digits:v2")
    clock.seconds += WEEK / 2 - 1
    await purge(registry)
    assert await states(registry) == ["live", "deleted", "deleted", "deleted"]
    clock.seconds += 1
    await purge(registry)
    assert await states(registry) == ["live", "purged", "deleted", "purged"]
    # A link has no pin of its own.
    released = [row.uid for row in await rows(registry, sa.select(pin_releases.c.uid))]
    assert set(released) | pins.released == {early.uid}
    told = sa.select(events.c.kind, events.c.actor, events.c.origin).where(events.c.kind == "version.purged")
    assert await rows(registry, told) == [("version.purged", "server", "")] * 2
    for found in (undelete(registry, early.name), get(registry, early.name), undelete(registry, early.uid)):
        with pytest.raises(VersionNotFound, match="was purged") as caught:
            await found
        assert caught.value.metadata["state"] == "purged"
    assert await deleted(registry) == [2]
    assert (await undelete(registry, late.name)).version.uid == late.uid


async def test_an_undeletion_before_the_purge_keeps_the_pin_for_ever(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    row = await delete(registry, "vision/digits:v1")
    clock.seconds += 2 * WEEK
    await undelete(registry, "vision/digits:v1")
    await purge(registry)
    assert row.uid in pins.pinned
    assert (await states(registry), await count(registry, pin_releases)) == (["live"] * 3, 0)


async def test_more_than_a_batch_is_purged_in_several_changes(
    registry: Registry, pins: PinsInMemory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading_server.registry.domain.purging._BATCH", 2)
    for number in range(3):
        await delete(registry, f"vision/digits:v{number}")
    clock.seconds += WEEK
    woken: list[None] = []
    await Purging(registry.settings, registry.store, Closing(), lambda: woken.append(None)).run()
    assert (await states(registry), len(woken)) == (["purged"] * 3, 2)


async def test_a_version_is_purged_at_once_by_name_also_when_it_was_deleted_before(
    registry: Registry, pins: PinsInMemory
) -> None:
    row = await delete(registry, "vision/digits:v1", purge=True, request_id="r-1")
    await until(lambda: _released(registry, pins, row.uid))
    assert (await delete(registry, "vision/digits:v1", purge=True, request_id="r-1")).uid == row.uid
    other = await delete(registry, "vision/digits:v0")
    await delete(registry, "vision/digits:v0", purge=True)
    await until(lambda: _released(registry, pins, other.uid))
    with pytest.raises(VersionNotFound):
        await delete(registry, "vision/digits:v0", purge=True)
    assert (await event_kinds(registry)).count("version.purged") == 2


async def test_with_no_time_to_undelete_what_is_deleted_is_purged_at_once(tmp_path: Path, pins: PinsInMemory) -> None:
    async with opened_registry("sqlite", tmp_path, pins, undelete_seconds=0.0) as registry:
        row, _ = await commit(registry, pins.new_tree())
        await delete(registry, row.name)
        await until(lambda: _released(registry, pins, row.uid))


async def _released(registry: Registry, pins: PinsInMemory, uid: bytes) -> bool:
    return await count(registry, pin_releases) == 0 and uid in pins.released and uid not in pins.pinned


async def test_numbers_are_never_given_again(registry: Registry, pins: PinsInMemory) -> None:
    await delete(registry, "vision/digits:v2", purge=True)
    assert (await commit(registry, pins.new_tree())).version.number == 3


# --- by a query ---


async def test_a_query_deletes_what_is_not_in_use_and_says_why_not(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    await link(registry, "vision/digits:v1")
    wanted = {
        "vision/digits:v0": DeleteOutcome.HAS_ALIAS,
        "vision/digits:v1": DeleteOutcome.HAS_LINK,
        "vision/digits:v2": DeleteOutcome.DELETED,
        f"{READER}:v0": DeleteOutcome.IS_LINK,
    }
    kinds = await event_kinds(registry)
    dry = await by_query(registry, "created>2020-01-01", dry_run=True)
    assert outcomes(dry) == wanted
    assert [one.used_by for one in dry.results] == [("best",), (f"{READER}:v0",), (), ()]
    assert await event_kinds(registry) == kinds
    assert outcomes(await by_query(registry, "created>2020-01-01")) == wanted
    assert (await deleted(registry), await latest(registry)) == ([2], 1)
    assert outcomes(await by_query(registry, "created>2020-01-01", force=True)) == {
        "vision/digits:v0": DeleteOutcome.DELETED,
        "vision/digits:v1": DeleteOutcome.DELETED,
        f"{READER}:v0": DeleteOutcome.IS_LINK,
    }
    assert await deleted(registry) == [2, 1, 0]
    # Each went by itself, with its own links.
    assert (await undelete(registry, "vision/digits:v0", with_links=True)).links == []
    assert [one.name for one in (await undelete(registry, "vision/digits:v1", with_links=True)).links] == [
        f"{READER}:v0"
    ]


async def test_a_protected_alias_is_stronger_than_a_query(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "prod")
    await link(registry, "vision/digits:v1", "Digit Reader", "prod")
    async with registry.store.change(ANN) as change:
        for project in ("vision", "model-registry"):
            await put_rule(change, AliasRule(project, "", "prod", is_protected=True), None)
    page = await by_query(registry, "name=digits", force=True, purge=True)
    protected = DeleteOutcome.PROTECTED
    assert [(one.outcome, one.used_by) for one in page.results[:2]] == [(protected, ("prod",))] * 2
    assert await states(registry) == ["live", "live", "purged", "live"]


async def test_pages_go_on_where_the_last_one_ended(registry: Registry, pins: PinsInMemory) -> None:
    for _ in range(4):
        await commit(registry, pins.new_tree(), "other")
    seen, page = [], PageRequest(2, "")
    while True:
        found = await by_query(registry, "type=dataset", page)
        seen += [one.version.name for one in found.results]
        if not found.token:
            break
        page = PageRequest(2, found.token)
    assert len(seen) == len(set(seen)) == 7
    assert await states(registry) == ["deleted"] * 7


async def test_a_page_that_comes_again_deletes_nothing_more(registry: Registry) -> None:
    wanted: dict[str, Any] = {"project": "vision", "collection": "digits", "request_id": "r-1"}
    first = await by_query(registry, page=PageRequest(2, ""), **wanted)
    kinds = await event_kinds(registry)
    again = await by_query(registry, page=PageRequest(2, ""), **wanted)
    assert (outcomes(again), again.token) == (outcomes(first), first.token)
    assert [one.version.aliases for one in again.results] == [one.version.aliases for one in first.results]
    assert await event_kinds(registry) == kinds
    with pytest.raises(RequestIdReused):
        await by_query(registry, page=PageRequest(2, first.token), **wanted)


async def test_an_empty_query_needs_a_collection(registry: Registry) -> None:
    with pytest.raises(InvalidQuery, match="everything"):
        await by_query(registry, "")
    with pytest.raises(CollectionNotFound):
        await by_query(registry, "", project="vision", collection="nothing")
    await by_query(registry, "number>0", project="vision", collection="digits")
    assert await states(registry) == ["live", "deleted", "deleted"]


async def test_a_version_with_more_links_than_find_place_is_left(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading_server.registry.domain.delete_by_query._MOST_LINKS", 2)
    for name in ("A", "B", "C"):
        await link(registry, "vision/digits:v0", name)
    await link(registry, "vision/digits:v1", "A")
    page = await by_query(registry, "name=digits", force=True)
    assert list(outcomes(page).values()) == [DeleteOutcome.HAS_LINK, DeleteOutcome.DELETED, DeleteOutcome.DELETED]
    assert (await states(registry)).count(VersionState.LIVE) == 4


async def test_what_is_in_use_is_refused_as_before(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    with pytest.raises(VersionInUse):
        await delete(registry, "vision/digits:v0", purge=True)
    assert await states(registry) == ["live"] * 3
