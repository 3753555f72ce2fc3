"""What CommitVersion promises, on each database: numbers, the same tree again, requests that come twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems, TreeNotFound
from lading_server.common.registry_errors import (
    AliasMoved,
    AliasNotFound,
    InvalidMetadata,
    RequestIdReused,
    RunNotFound,
    TextTooLong,
    TypeMismatch,
    VersionNotFound,
    WrongKind,
)
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.commit_request import CommitRequest
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.schema import (
    collections,
    commits,
    events,
    pin_releases,
    run_outputs,
    version_fields,
    versions,
)
from tests.support.index import DATABASES
from tests.support.registry import (
    ANN,
    PinsInMemory,
    add_run,
    commit,
    count,
    event_kinds,
    get,
    opened_registry,
    rows,
    set_aliases,
    until,
)


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path, pins: PinsInMemory) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, pins, max_tags=5, max_ref_changes=4) as opened:
        yield opened


# --- a new version ---


async def test_a_first_commit_makes_project_collection_and_version(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    version, created = await commit(
        registry,
        tree,
        description="# Digits",
        metadata='{ "rows": 1797 }',
        tags=("raw", "2026"),
        aliases=(AliasChange("best"),),
    )
    assert created
    assert (version.name, version.type, version.tree_digest) == ("vision/digits:v0", "dataset", tree)
    assert (version.file_count, version.reference_count, version.size_bytes) == (3, 1, 4096)
    assert (version.description, version.metadata) == ("# Digits", '{"rows":1797}')
    assert (version.tags, version.aliases) == (("2026", "raw"), ("best", "latest"))
    assert (version.created_by, version.created_at_ms, version.source) == ("ann", 1_800_000_000_000, "")
    assert version == await get(registry, "vision/digits")
    assert await event_kinds(registry) == [
        "project.created",
        "collection.created",
        "version.committed",
        "alias.set",
        "alias.set",
    ]


async def test_a_version_has_a_pin_and_no_intent_is_left(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    version, _ = await commit(registry, tree)
    assert pins.pinned == {version.uid: tree}
    assert (await count(registry, commits), await count(registry, pin_releases)) == (0, 0)


async def test_latest_moves_to_each_new_version(registry: Registry, pins: PinsInMemory) -> None:
    for number in range(3):
        await commit(registry, pins.new_tree())
        assert (await get(registry, "vision/digits:latest")).number == number


async def test_numbers_of_fifty_concurrent_commits_are_dense(registry: Registry, pins: PinsInMemory) -> None:
    outcomes = await asyncio.gather(*(commit(registry, pins.new_tree()) for _ in range(50)))
    assert sorted(outcome.version.number for outcome in outcomes) == list(range(50))
    assert all(outcome.created for outcome in outcomes)
    assert (await get(registry, "vision/digits")).number == 49
    assert await rows(registry, sa.select(collections.c.next_number, collections.c.version_count)) == [(50, 50)]
    revisions = [row.revision for row in await rows(registry, sa.select(events.c.revision).order_by(events.c.revision))]
    assert revisions == list(range(1, len(revisions) + 1))


async def test_metadata_can_be_searched_by_dotted_keys(registry: Registry, pins: PinsInMemory) -> None:
    metadata = {"accuracy": 0.5, "ok": True, "opt": {"name": "sgd", "lr": 1}, "list": [1], "no": None, "é" * 257: 1}
    await commit(registry, pins.new_tree(), metadata=json.dumps(metadata))
    query = sa.select(version_fields.c.key, version_fields.c.number, version_fields.c.text)
    assert sorted(await rows(registry, query)) == [
        ("accuracy", 0.5, None),
        ("ok", None, "true"),
        ("opt.lr", 1.0, None),
        ("opt.name", None, "sgd"),
    ]


async def test_text_that_no_database_keeps_is_kept_as_far_as_it_can_be(registry: Registry, pins: PinsInMemory) -> None:
    metadata = '{"text":"a\\u0000b","k\\u0000":1,"huge":1' + "0" * 400 + "}"
    version, _ = await commit(registry, pins.new_tree(), description="a\0b", metadata=metadata)
    assert (version.description, version.metadata) == ("a\N{REPLACEMENT CHARACTER}b", metadata)


async def test_the_type_can_be_left_out_where_the_collection_is_there(registry: Registry, pins: PinsInMemory) -> None:
    await commit(registry, pins.new_tree())
    version, _ = await commit(registry, pins.new_tree(), type_="")
    assert (version.number, version.type) == (1, "dataset")


async def test_entities_do_not_see_each_other(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    mine, _ = await commit(registry, tree)
    theirs, created = await commit(registry, tree, caller=Caller("rival", "eve"))
    assert created
    assert theirs.number == 0
    with pytest.raises(VersionNotFound):
        await registry.versions.get_by_uid(Caller("rival", "eve"), mine.uid)


# --- the same tree again ---


async def test_the_same_tree_makes_no_version_and_needs_no_pin(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    first, _ = await commit(registry, tree)
    again, created = await commit(registry, tree, description="ignored", metadata='{"ignored":1}')
    assert not created
    assert again == first
    assert pins.calls == 1


async def test_the_same_tree_gets_tags_aliases_and_the_run(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    await commit(registry, tree, tags=("raw",))
    await commit(registry, pins.new_tree(), aliases=(AliasChange("best"),))
    run = await add_run(registry)
    version, created = await commit(registry, tree, tags=("clean",), aliases=(AliasChange("best"),), run=run)
    assert not created
    assert (version.number, version.tags, version.aliases, version.run) == (0, ("clean", "raw"), ("best",), "")
    assert await count(registry, run_outputs) == 1
    assert (await event_kinds(registry))[-3:] == ["version.updated", "alias.set", "version.committed"]


async def test_the_same_commit_by_the_same_run_makes_no_more_events(registry: Registry, pins: PinsInMemory) -> None:
    tree, run = pins.new_tree(), await add_run(registry)
    version, _ = await commit(registry, tree, run=run, tags=("raw",), aliases=(AliasChange("best"),))
    assert version.run == run
    before = await event_kinds(registry)
    await commit(registry, tree, run=run, tags=("raw",), aliases=(AliasChange("best"),))
    assert await event_kinds(registry) == before


async def test_a_tree_whose_version_was_deleted_gets_a_new_number(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    version, _ = await commit(registry, tree)
    await registry.versions.delete(ANN, reference_of(ANN, "vision/digits:v0"))
    again, created = await commit(registry, tree)
    assert created
    assert (again.number, again.uid != version.uid) == (1, True)


async def test_of_commits_of_one_tree_at_one_moment_one_makes_the_version(
    registry: Registry, pins: PinsInMemory
) -> None:
    tree = pins.new_tree()
    pins.open.clear()
    racing = [asyncio.create_task(commit(registry, tree)) for _ in range(5)]
    await pins.until_called(5)
    pins.open.set()
    outcomes = await asyncio.gather(*racing)
    assert sorted(outcome.created for outcome in outcomes) == [False] * 4 + [True]
    assert {outcome.version.number for outcome in outcomes} == {0}
    await until(lambda: _is_empty(registry, pin_releases))
    assert list(pins.pinned) == [outcomes[0].version.uid]
    assert len(pins.released) == 4


# --- requests that come twice ---


async def test_a_request_that_comes_again_is_answered_as_the_first_time(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    first = await commit(registry, tree, aliases=(AliasChange("best"),), request_id="r-1")
    await commit(registry, pins.new_tree(), aliases=(AliasChange("best"),))
    before = await event_kinds(registry)
    assert await commit(registry, tree, aliases=(AliasChange("best"),), request_id="r-1") == first
    assert await event_kinds(registry) == before
    assert (await get(registry, "vision/digits:best")).number == 1


async def test_a_request_is_remembered_although_its_version_was_deleted(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    first = await commit(registry, tree, request_id="r-1")
    await registry.versions.delete(ANN, reference_of(ANN, "vision/digits:v0"))
    assert await commit(registry, tree, request_id="r-1") == first
    assert await count(registry, versions) == 1


async def test_a_request_that_comes_twice_at_one_moment_is_one(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    pins.open.clear()
    twice = [asyncio.create_task(commit(registry, tree, request_id="r-1")) for _ in range(2)]
    await pins.until_called(2)
    pins.open.set()
    first, second = await asyncio.gather(*twice)
    assert first == second
    assert first.created
    await until(lambda: _is_empty(registry, pin_releases))
    assert list(pins.pinned) == [first.version.uid]


async def test_a_request_id_of_another_call_is_refused(registry: Registry, pins: PinsInMemory) -> None:
    await commit(registry, pins.new_tree(), request_id="r-1")
    with pytest.raises(RequestIdReused, match="fresh"):
        await commit(registry, pins.new_tree(), request_id="r-1")
    version, _ = await commit(registry, pins.new_tree(), caller=Caller("rival", "eve"), request_id="r-1")
    assert version.number == 0


# --- what cannot be ---


async def test_a_tree_that_ingest_does_not_have_leaves_nothing(registry: Registry, pins: PinsInMemory) -> None:
    with pytest.raises(TreeNotFound):
        await commit(registry, b"t" * 32)
    assert await event_kinds(registry) == []
    assert await count(registry, commits) == 0
    await until(lambda: _is_empty(registry, pin_releases))
    assert len(pins.released) == 1


async def test_another_type_than_the_collections_is_refused(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    await commit(registry, tree)
    for other in (tree, pins.new_tree()):
        with pytest.raises(TypeMismatch) as error:
            await commit(registry, other, type_="model")
        assert error.value.metadata == {"expected": "dataset", "actual": "model"}
    assert pins.calls == 1


async def test_of_first_commits_with_different_types_at_one_moment_one_wins(
    registry: Registry, pins: PinsInMemory
) -> None:
    pins.open.clear()
    racing = [asyncio.create_task(commit(registry, pins.new_tree(), type_=type_)) for type_ in ("dataset", "model")]
    await pins.until_called(2)
    pins.open.set()
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert [type(outcome) is TypeMismatch for outcome in outcomes].count(True) == 1
    await until(lambda: _is_empty(registry, pin_releases))
    assert len(pins.pinned) == 1


async def test_the_model_registry_takes_no_commits(registry: Registry, pins: PinsInMemory) -> None:
    with pytest.raises(WrongKind, match="links"):
        await registry.commits.commit(ANN, CommitRequest("model-registry", "Reader", "model", pins.new_tree()))
    assert pins.calls == 0


async def test_a_belief_that_is_wrong_changes_nothing_and_costs_no_pin(registry: Registry, pins: PinsInMemory) -> None:
    await commit(registry, pins.new_tree(), aliases=(AliasChange("best"),))
    before = await event_kinds(registry)
    wrong = [
        (AliasChange("best", must_not_exist=True), AliasMoved, {"alias": "best", "actual": "v0"}),
        (AliasChange("best", expected_number=7), AliasMoved, {"alias": "best", "actual": "v0"}),
        (AliasChange("good", expected_number=0), AliasMoved, {"alias": "good", "actual": "none"}),
        (AliasChange("good", remove=True, expected_number=0), AliasNotFound, {"alias": "good"}),
    ]
    for change, kind, metadata in wrong:
        with pytest.raises(kind) as error:
            await commit(registry, pins.new_tree(), aliases=(AliasChange("fine"), change))
        assert error.value.metadata == metadata
    assert await event_kinds(registry) == before
    assert pins.calls == 1


async def test_a_belief_that_became_wrong_while_the_pin_was_taken_changes_nothing(
    registry: Registry, pins: PinsInMemory
) -> None:
    await commit(registry, pins.new_tree())
    pins.open.clear()
    change = AliasChange("best", must_not_exist=True)
    racing = asyncio.create_task(commit(registry, pins.new_tree(), aliases=(change,)))
    await pins.until_called(2)
    await set_aliases(registry, "vision/digits:v0", "best")
    pins.open.set()
    with pytest.raises(AliasMoved):
        await racing
    assert await count(registry, versions) == 1
    await until(lambda: _is_empty(registry, pin_releases))
    assert len(pins.pinned) == 1


async def test_a_run_that_is_not_there_is_refused_and_costs_no_pin(registry: Registry, pins: PinsInMemory) -> None:
    await add_run(registry, "theirs", Caller("rival", "eve"))
    with pytest.raises(RunNotFound) as error:
        await commit(registry, pins.new_tree(), run="theirs")
    assert error.value.metadata == {"run_id": "theirs"}
    assert pins.calls == 0


async def test_what_breaks_a_rule_is_refused_before_anything_is_written(registry: Registry, pins: PinsInMemory) -> None:
    aliases = tuple(AliasChange(f"a{number}") for number in range(5))
    refused: list[tuple[type[Exception], dict[str, object]]] = [
        (InvalidName, {"name": "no spaces"}),
        (InvalidName, {"type_": ""}),
        (InvalidName, {"type_": "a b"}),
        (InvalidName, {"tags": ("a,b",)}),
        (InvalidName, {"run": "a/b"}),
        (InvalidName, {"request_id": "a/b"}),
        (InvalidName, {"aliases": (AliasChange("latest"),)}),
        (InvalidName, {"aliases": (AliasChange("v7"),)}),
        (InvalidMetadata, {"metadata": "[]"}),
        (InvalidMetadata, {"metadata": '{"a":1e999}'}),
        (InvalidMetadata, {"metadata": '{"a":"\\ud800"}'}),
        (InvalidMetadata, {"metadata": '{"a":"' + "x" * (256 << 10) + '"}'}),
        (TextTooLong, {"description": "é" * (129 << 10)}),
        (TooManyItems, {"tags": ("a", "b", "c", "d", "e", "f")}),
        (TooManyItems, {"aliases": aliases}),
    ]
    for kind, fields in refused:
        with pytest.raises(kind):
            await commit(registry, pins.new_tree(), **fields)  # type: ignore[arg-type]
    assert pins.calls == 0
    assert await event_kinds(registry) == []


async def test_tags_of_a_tree_that_is_there_stay_within_the_limit(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    await commit(registry, tree, tags=("a", "b", "c"))
    with pytest.raises(TooManyItems):
        await commit(registry, tree, tags=("c", "d", "e", "f"))
    version, _ = await commit(registry, tree, tags=("c", "d", "e"))
    assert version.tags == ("a", "b", "c", "d", "e")


async def _is_empty(registry: Registry, table: sa.Table) -> bool:
    return await count(registry, table) == 0
