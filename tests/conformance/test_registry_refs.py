"""What UpdateRefs promises, on each database: aliases and links, changed together or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import (
    AliasMoved,
    AliasNotFound,
    CollectionNotFound,
    RequestIdReused,
    RunNotFound,
    TypeMismatch,
    VersionInUse,
    VersionNotFound,
    WrongKind,
)
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Link, RefChange, Unlink
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import collections, versions
from tests.support.index import DATABASES
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
)

READER = "model-registry/Digit Reader"


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path, pins: PinsInMemory) -> AsyncIterator[Registry]:
    """A registry with `vision/digits:v0` to `v2`."""
    async with opened_registry(request.param, tmp_path, pins, max_ref_changes=4) as opened:
        for _ in range(3):
            await commit(opened, pins.new_tree())
        yield opened


def aliases_of(text: str, *aliases: AliasChange) -> ChangeAliases:
    return ChangeAliases(reference_of(ANN, text), aliases)


async def targets(registry: Registry, collection: str = "digits", project: str = "vision") -> dict[str, int]:
    """Return where each alias points."""
    return dict((await registry.collections.get(ANN, project, collection)).aliases)


# --- aliases ---


async def test_an_alias_moves_from_one_version_to_another(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    version = await set_aliases(registry, "vision/digits:v1", "best")
    assert version.aliases == ("best",)
    assert (await get(registry, "vision/digits:v0")).aliases == ()
    assert await targets(registry) == {"best": 1, "latest": 2}


async def test_setting_an_alias_where_it_points_already_makes_no_event(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    before = await event_kinds(registry)
    await set_aliases(registry, "vision/digits:best", "best")
    assert await event_kinds(registry) == before


async def test_any_number_of_aliases_are_set_moved_and_removed_at_once(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "a", "b")
    version = await set_aliases(registry, "vision/digits:v1", "b", "c", AliasChange("a", remove=True))
    assert version.aliases == ("b", "c")
    assert await targets(registry) == {"b": 1, "c": 1, "latest": 2}


async def test_an_alias_is_removed_whatever_version_it_points_at(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    await set_aliases(registry, "vision/digits:v1", AliasChange("best", remove=True))
    assert await targets(registry) == {"latest": 2}


async def test_removing_what_is_not_there_is_an_error_only_with_a_belief(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", AliasChange("best", remove=True))
    with pytest.raises(AliasNotFound) as error:
        await set_aliases(registry, "vision/digits:v0", AliasChange("best", remove=True, expected_number=0))
    assert error.value.metadata == {"alias": "best"}


async def test_a_belief_that_holds_lets_the_alias_move(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", AliasChange("best", must_not_exist=True))
    await set_aliases(registry, "vision/digits:v1", AliasChange("best", expected_number=0))
    await set_aliases(registry, "vision/digits:v1", AliasChange("best", remove=True, expected_number=1))
    assert await targets(registry) == {"latest": 2}


@pytest.mark.parametrize("remove", [False, True])
async def test_a_belief_that_is_wrong_says_what_is(registry: Registry, remove: bool) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    for wrong in (
        AliasChange("best", remove, expected_number=1),
        AliasChange("best", remove, must_not_exist=True),
    ):
        with pytest.raises(AliasMoved, match="v0") as error:
            await set_aliases(registry, "vision/digits:v2", wrong)
        assert error.value.metadata == {"alias": "best", "actual": "v0"}


async def test_of_many_who_move_an_alias_from_where_they_saw_it_one_wins(registry: Registry) -> None:
    change = AliasChange("best", must_not_exist=True)
    outcomes = await asyncio.gather(
        *(set_aliases(registry, f"vision/digits:v{number % 3}", change) for number in range(9)), return_exceptions=True
    )
    assert sorted(type(outcome) is AliasMoved for outcome in outcomes) == [False] + [True] * 8
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, VersionRow)]
    assert (await get(registry, "vision/digits:best")).number == winner.number


@pytest.mark.parametrize("name", ["latest", "v7", "v007", "", "a b", "-a", "a" * 129, "a:b"])
async def test_names_that_no_alias_may_have_are_refused(registry: Registry, name: str) -> None:
    for remove in (False, True):
        with pytest.raises(InvalidName) as error:
            await set_aliases(registry, "vision/digits:v0", AliasChange(name, remove))
        assert error.value.metadata["field"] == "alias"


# --- links ---


async def test_a_link_makes_the_portfolio_with_the_type_of_its_source(registry: Registry) -> None:
    source = await get(registry, "vision/digits:v1")
    version, created = await link(registry, "vision/digits:v1", "Digit Reader", "staging")
    assert created
    assert (version.name, version.type, version.tree_digest) == (f"{READER}:v0", "dataset", source.tree_digest)
    assert (version.source, version.source_uid, version.size_bytes) == ("vision/digits:v1", source.uid, 4096)
    assert version.uid != source.uid
    assert version.aliases == ("latest", "staging")
    assert (await get(registry, f"{READER}:staging")) == version
    assert (await get(registry, "vision/digits:v1")).aliases == ()
    assert (await event_kinds(registry))[-5:] == [
        "project.created",
        "collection.created",
        "version.linked",
        "alias.set",
        "alias.set",
    ]


async def test_a_portfolio_numbers_its_own_versions(registry: Registry) -> None:
    for number, source in enumerate(("v2", "v0", "v1")):
        version, _ = await link(registry, f"vision/digits:{source}")
        assert version.number == number
    assert await targets(registry, "Digit Reader", "model-registry") == {"latest": 2}


async def test_linking_the_same_source_again_moves_aliases_and_makes_no_version(registry: Registry) -> None:
    first, _ = await link(registry, "vision/digits:v0", "Digit Reader", "staging")
    await link(registry, "vision/digits:v1", "Digit Reader", "staging")
    again, created = await link(registry, "vision/digits:v0", "Digit Reader", "staging")
    assert not created
    assert (again.uid, again.aliases) == (first.uid, ("staging",))
    assert await targets(registry, "Digit Reader", "model-registry") == {"staging": 0, "latest": 1}
    assert await count(registry, versions) == 5


async def test_a_link_of_a_link_points_at_the_source(registry: Registry) -> None:
    await link(registry, "vision/digits:v0")
    version, created = await link(registry, f"{READER}:v0", "Best Readers")
    assert created
    assert (version.name, version.source) == ("model-registry/Best Readers:v0", "vision/digits:v0")
    same, created = await link(registry, "model-registry/Best Readers:v0")
    assert (same.name, created) == (f"{READER}:v0", False)


async def test_a_link_has_card_and_metadata_of_its_source_and_tags_of_its_own(registry: Registry) -> None:
    await link(registry, "vision/digits:v0")
    source = reference_of(ANN, "vision/digits:v0")
    await registry.versions.update(ANN, source, description="# Card", metadata='{"a":1}', add_tags=["raw"])
    version = await registry.versions.update(ANN, reference_of(ANN, f"{READER}:v0"), add_tags=["checked"])
    assert (version.description, version.metadata, version.tags) == ("# Card", '{"a":1}', ("checked",))


async def test_a_link_knows_the_run_that_made_it(registry: Registry) -> None:
    run = await add_run(registry)
    change = Link(reference_of(ANN, "vision/digits:v0"), "Digit Reader", run=run)
    (outcome,) = await registry.refs.update(ANN, [change])
    assert outcome.version.run == run
    with pytest.raises(RunNotFound):
        await registry.refs.update(ANN, [Link(reference_of(ANN, "vision/digits:v1"), "Digit Reader", run="no-run")])


async def test_two_sources_of_the_same_tree_have_a_link_each(registry: Registry, pins: PinsInMemory) -> None:
    tree = pins.new_tree()
    for name in ("one", "two"):
        await commit(registry, tree, name)
        assert (await link(registry, f"vision/{name}:v0")).created
    found = await get(registry, f"{READER}@b3:{tree.hex()}")
    assert found.number == 1


async def test_a_portfolio_of_another_type_is_refused(registry: Registry, pins: PinsInMemory) -> None:
    await link(registry, "vision/digits:v0")
    await commit(registry, pins.new_tree(), "reader", type_="model")
    with pytest.raises(TypeMismatch) as error:
        await link(registry, "vision/reader:v0")
    assert error.value.metadata == {"expected": "dataset", "actual": "model"}


async def test_links_at_one_moment_have_dense_numbers(registry: Registry, pins: PinsInMemory) -> None:
    sources = [(await commit(registry, pins.new_tree(), f"data-{number}")).version.name for number in range(12)]
    outcomes = await asyncio.gather(*(link(registry, source) for source in sources * 2))
    assert sorted(outcome.created for outcome in outcomes) == [False] * 12 + [True] * 12
    assert {outcome.version.number for outcome in outcomes} == set(range(12))


# --- unlinking ---


async def test_unlinking_leaves_the_source_alone_and_the_number_is_not_given_again(registry: Registry) -> None:
    linked, _ = await link(registry, "vision/digits:v0")
    source = await get(registry, "vision/digits:v0")
    assert await unlink(registry, f"{READER}:v0") == linked
    with pytest.raises(VersionNotFound):
        await get(registry, f"{READER}:v0")
    assert await get(registry, "vision/digits:v0") == source
    version, created = await link(registry, "vision/digits:v0")
    assert (version.number, created) == (1, True)
    assert (await event_kinds(registry))[-4:] == ["alias.removed", "version.unlinked", "version.linked", "alias.set"]


async def test_latest_of_a_portfolio_moves_back_and_away(registry: Registry) -> None:
    await link(registry, "vision/digits:v0")
    await link(registry, "vision/digits:v1")
    await unlink(registry, f"{READER}:latest")
    assert await targets(registry, "Digit Reader", "model-registry") == {"latest": 0}
    await unlink(registry, f"{READER}:latest")
    assert await targets(registry, "Digit Reader", "model-registry") == {}
    query = sa.select(collections.c.next_number, collections.c.version_count)
    assert (2, 0) in await rows(registry, query)


async def test_a_link_with_aliases_is_unlinked_only_by_force(registry: Registry) -> None:
    await link(registry, "vision/digits:v0", "Digit Reader", "staging")
    with pytest.raises(VersionInUse, match="staging") as error:
        await unlink(registry, f"{READER}:v0")
    assert error.value.metadata == {"aliases": "staging", "links": ""}
    assert (await unlink(registry, f"{READER}:v0", force=True)).aliases == ("latest", "staging")
    assert await targets(registry, "Digit Reader", "model-registry") == {}


async def test_what_is_no_link_cannot_be_unlinked(registry: Registry) -> None:
    with pytest.raises(WrongKind, match="delete"):
        await unlink(registry, "vision/digits:v0")


# --- all or none ---


async def test_each_change_sees_those_before_it(registry: Registry) -> None:
    changes: list[RefChange] = [
        aliases_of("vision/digits:v0", AliasChange("best")),
        Link(reference_of(ANN, "vision/digits:best"), "Digit Reader"),
        Unlink(reference_of(ANN, f"{READER}:v0")),
    ]
    outcomes = await registry.refs.update(ANN, changes)
    assert [outcome.version.name for outcome in outcomes] == ["vision/digits:v0", f"{READER}:v0", f"{READER}:v0"]
    assert [outcome.created for outcome in outcomes] == [False, True, False]
    assert await targets(registry, "Digit Reader", "model-registry") == {}


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (aliases_of("vision/digits:v1", AliasChange("best", must_not_exist=True)), AliasMoved),
        (aliases_of("vision/digits:v1", AliasChange("no", remove=True, expected_number=1)), AliasNotFound),
        (aliases_of("vision/digits:v9", AliasChange("best")), VersionNotFound),
        (aliases_of("vision/nothing:v0", AliasChange("best")), CollectionNotFound),
        (Link(reference_of(ANN, "vision/digits:v0"), "a/b"), InvalidName),
        (Unlink(reference_of(ANN, f"{READER}:v7")), VersionNotFound),
    ],
)
async def test_one_change_that_fails_undoes_them_all(
    registry: Registry, last: RefChange, kind: type[Exception]
) -> None:
    before = await event_kinds(registry)
    first = aliases_of("vision/digits:v0", AliasChange("best"))
    source = Link(reference_of(ANN, "vision/digits:v0"), "Digit Reader")
    with pytest.raises(kind):
        await registry.refs.update(ANN, [first, source, last])
    assert await event_kinds(registry) == before
    assert await targets(registry) == {"latest": 2}
    assert await count(registry, versions) == 3


async def test_more_changes_than_the_limit_are_refused_aliases_counted(registry: Registry) -> None:
    change = aliases_of("vision/digits:v0", *(AliasChange(f"a{number}") for number in range(4)))
    await registry.refs.update(ANN, [change])
    with pytest.raises(TooManyItems, match="max_ref_changes"):
        await registry.refs.update(ANN, [change, change])
    with pytest.raises(TooManyItems):
        await registry.refs.update(ANN, [Link(reference_of(ANN, "vision/digits:v0"), "Reader", change.aliases)])


async def test_a_request_that_comes_again_changes_nothing_more(registry: Registry) -> None:
    changes = [aliases_of("vision/digits:v0", AliasChange("best")), aliases_of("vision/digits:v0", AliasChange("a"))]
    first = await registry.refs.update(ANN, changes, request_id="r-1")
    await set_aliases(registry, "vision/digits:v1", "best")
    assert await registry.refs.update(ANN, changes, request_id="r-1") == first
    assert (await get(registry, "vision/digits:best")).number == 1
    with pytest.raises(RequestIdReused):
        await registry.refs.update(ANN, changes[:1], request_id="r-1")


async def test_a_removal_that_comes_again_is_answered_with_what_was_removed(registry: Registry) -> None:
    linked, _ = await link(registry, "vision/digits:v0")
    change = Unlink(reference_of(ANN, f"{READER}:v0"))
    for _ in range(2):
        (outcome,) = await registry.refs.update(ANN, [change], request_id="r-1")
        assert outcome.version == linked


async def test_another_entitys_versions_cannot_be_named(registry: Registry) -> None:
    eve = Caller("rival", "eve")
    with pytest.raises(InvalidName, match="acme"):
        reference_of(eve, "acme/vision/digits:v0")
    with pytest.raises(CollectionNotFound):
        await registry.refs.update(eve, [Link(reference_of(eve, "vision/digits:v0"), "Digit Reader")])
