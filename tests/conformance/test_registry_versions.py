"""What is promised of versions and collections that are there: found, described, deleted; on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.errors import InvalidDigest, InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import (
    CollectionExists,
    CollectionNotFound,
    InvalidMetadata,
    RequestIdReused,
    TextTooLong,
    VersionInUse,
    VersionNotFound,
    WrongKind,
)
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import CollectionKind, events, pin_releases, version_fields
from tests.support.index import DATABASES, FakeClock
from tests.support.registry import (
    ANN,
    PinsInMemory,
    commit,
    count,
    event_kinds,
    get,
    link,
    opened_registry,
    rows,
    set_aliases,
)

READER = "model-registry/Digit Reader"


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
    """A registry with `vision/digits:v0` and `v1`."""
    async with opened_registry(request.param, tmp_path, pins, clock, max_tags=3) as opened:
        for _ in range(2):
            await commit(opened, pins.new_tree(), tags=("raw",))
        yield opened


async def update(registry: Registry, reference: str = "vision/digits:v0", **fields: Any) -> VersionRow:
    return await registry.versions.update(ANN, reference_of(ANN, reference), **fields)


async def delete(registry: Registry, reference: str, **fields: Any) -> VersionRow:
    return await registry.versions.delete(ANN, reference_of(ANN, reference), **fields)


# --- found ---


async def test_a_version_is_found_by_alias_number_tree_and_id(registry: Registry) -> None:
    version = await set_aliases(registry, "vision/digits:v0", "best")
    for reference in (
        "vision/digits:v0",
        "vision/digits:best",
        f"vision/digits@b3:{version.tree_digest.hex()}",
        "acme/vision/digits:v0",
        "lading://acme/vision/digits:best",
    ):
        assert await get(registry, reference) == version
    assert await registry.versions.get_by_uid(ANN, version.uid) == version


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("vision/digits:v2", VersionNotFound),
        ("vision/digits:best", VersionNotFound),
        ("vision/digits@b3:" + "0" * 64, VersionNotFound),
        ("vision/nothing", CollectionNotFound),
        ("other/digits:v0", CollectionNotFound),
    ],
)
async def test_what_is_not_there_is_told_apart(registry: Registry, reference: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await get(registry, reference)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("digits:v0", InvalidName),
        ("rival/vision/digits:v0", InvalidName),
        ("a/b/c/d", InvalidName),
        ("vision/digits:", InvalidName),
        ("vision/digits:v01", InvalidName),
        ("vision/digits@b3:zz", InvalidDigest),
    ],
)
def test_what_is_no_reference_is_refused(reference: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        reference_of(ANN, reference)


async def test_an_entity_that_stored_nothing_has_nothing(registry: Registry) -> None:
    version = await get(registry, "vision/digits:v0")
    eve = Caller("rival", "eve")
    with pytest.raises(CollectionNotFound):
        await get(registry, "vision/digits:v0", eve)
    with pytest.raises(VersionNotFound):
        await registry.versions.get_by_uid(eve, version.uid)


# --- described ---


async def test_card_metadata_and_tags_change_and_nothing_else(registry: Registry) -> None:
    before = await get(registry, "vision/digits:v0")
    after = await update(
        registry, description="# Card", metadata='{"a": {"b": 2}}', add_tags=["clean"], remove_tags=["raw", "no"]
    )
    assert after == before._replace(description="# Card", metadata='{"a":{"b":2}}', tags=("clean",))
    assert await get(registry, "vision/digits:v0") == after
    assert await rows(registry, sa.select(version_fields.c.key, version_fields.c.number)) == [("a.b", 2.0)]


async def test_metadata_takes_the_place_of_all_that_was_there(registry: Registry) -> None:
    await update(registry, metadata='{"a":1,"b":2}')
    assert (await update(registry, metadata='{"c":true}')).metadata == '{"c":true}'
    query = sa.select(version_fields.c.key, version_fields.c.number, version_fields.c.text)
    assert await rows(registry, query) == [("c", None, "true")]
    assert (await update(registry, metadata="")).metadata == "{}"
    assert await count(registry, version_fields) == 0


async def test_what_is_absent_is_left_and_makes_no_event(registry: Registry) -> None:
    await update(registry, description="# Card", metadata='{"a":1}')
    before = await event_kinds(registry)
    after = await update(registry, description="# Card", add_tags=["raw"], remove_tags=["no"])
    assert (after.description, after.metadata, after.tags) == ("# Card", '{"a":1}', ("raw",))
    assert await event_kinds(registry) == before


async def test_an_event_tells_what_changed_and_only_that(registry: Registry) -> None:
    await update(registry, description="# Card", add_tags=["clean"])
    newest = sa.select(events).order_by(events.c.revision.desc()).limit(1)
    (event,) = await rows(registry, newest)
    assert (event.kind, event.actor, event.project, event.collection) == ("version.updated", "ann", "vision", "digits")
    assert event.before == '{"description":"","tags":["raw"]}'
    assert event.after == '{"description":"# Card","tags":["clean","raw"]}'


async def test_of_a_link_only_tags_can_be_changed(registry: Registry) -> None:
    await link(registry, "vision/digits:v0")
    for fields in ({"description": "x"}, {"metadata": "{}"}):
        with pytest.raises(WrongKind, match="vision/digits:v0"):
            await update(registry, f"{READER}:v0", **fields)
    assert (await update(registry, f"{READER}:v0", add_tags=["checked"])).tags == ("checked",)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"metadata": "nonsense"}, InvalidMetadata),
        ({"metadata": "[" * 40 + "]" * 40}, InvalidMetadata),
        ({"metadata": '{"a":' * 40 + "1" + "}" * 40}, InvalidMetadata),
        ({"description": "x" * (257 << 10)}, TextTooLong),
        ({"add_tags": ["a", "b", "c"]}, TooManyItems),
        ({"add_tags": ["a", "b", "c", "d"]}, TooManyItems),
        ({"add_tags": ["no spaces"]}, InvalidName),
        ({"remove_tags": ["no spaces"]}, InvalidName),
    ],
)
async def test_what_breaks_a_rule_changes_nothing(
    registry: Registry, fields: dict[str, Any], kind: type[Exception]
) -> None:
    before = await event_kinds(registry)
    with pytest.raises(kind):
        await update(registry, **fields)
    assert await event_kinds(registry) == before


async def test_an_update_that_comes_again_changes_nothing_more(registry: Registry) -> None:
    first = await update(registry, add_tags=["clean"], request_id="r-1")
    await update(registry, remove_tags=["clean"])
    assert await update(registry, add_tags=["clean"], request_id="r-1") == first
    assert (await get(registry, "vision/digits:v0")).tags == ("raw",)
    with pytest.raises(RequestIdReused):
        await update(registry, add_tags=["other"], request_id="r-1")


# --- deleted ---


async def test_a_deleted_version_is_hidden_and_its_pin_is_kept(registry: Registry, pins: PinsInMemory) -> None:
    version = await get(registry, "vision/digits:v0")
    assert await delete(registry, "vision/digits:v0") == version
    for reference in ("vision/digits:v0", f"vision/digits@b3:{version.tree_digest.hex()}"):
        with pytest.raises(VersionNotFound):
            await get(registry, reference)
    with pytest.raises(VersionNotFound):
        await registry.versions.get_by_uid(ANN, version.uid)
    assert version.uid in pins.pinned
    assert await count(registry, pin_releases) == 0
    assert (await registry.collections.get(ANN, "vision", "digits")).version_count == 1


async def test_latest_moves_to_the_newest_that_is_left_and_then_away(registry: Registry, pins: PinsInMemory) -> None:
    await delete(registry, "vision/digits:latest")
    assert (await get(registry, "vision/digits")).number == 0
    await delete(registry, "vision/digits")
    with pytest.raises(VersionNotFound):
        await get(registry, "vision/digits")
    assert (await commit(registry, pins.new_tree())).version.number == 2
    assert (await get(registry, "vision/digits")).number == 2


async def test_deleting_an_older_version_leaves_latest_where_it_is(registry: Registry) -> None:
    await delete(registry, "vision/digits:v0")
    assert (await get(registry, "vision/digits")).number == 1
    assert (await event_kinds(registry))[-1] == "version.deleted"


async def test_a_version_in_use_is_deleted_only_by_force(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best")
    await link(registry, "vision/digits:v0", "Digit Reader", "staging")
    with pytest.raises(VersionInUse, match="best") as error:
        await delete(registry, "vision/digits:v0")
    assert error.value.metadata == {"aliases": "best", "links": f"{READER}:v0"}
    assert (await delete(registry, "vision/digits:v0", force=True)).aliases == ("best",)
    with pytest.raises(VersionNotFound):
        await get(registry, f"{READER}:v0")
    portfolio = await registry.collections.get(ANN, "model-registry", "Digit Reader")
    assert (portfolio.version_count, portfolio.aliases) == (0, ())
    assert (await registry.collections.get(ANN, "vision", "digits")).aliases == (("latest", 1),)


async def test_a_version_without_aliases_that_is_linked_is_in_use(registry: Registry) -> None:
    await link(registry, "vision/digits:v0")
    with pytest.raises(VersionInUse):
        await delete(registry, "vision/digits:v0")


async def test_a_link_is_not_deleted_but_unlinked(registry: Registry) -> None:
    await link(registry, "vision/digits:v0")
    with pytest.raises(WrongKind, match="unlink"):
        await delete(registry, f"{READER}:v0")


async def test_a_deletion_that_comes_again_deletes_nothing_more(registry: Registry) -> None:
    first = await delete(registry, "vision/digits:latest", request_id="r-1")
    assert await delete(registry, "vision/digits:latest", request_id="r-1") == first
    assert (await get(registry, "vision/digits")).number == 0
    with pytest.raises(VersionNotFound):
        await delete(registry, "vision/digits:v1")


# --- collections ---


async def test_a_collection_is_made_before_it_has_a_version(registry: Registry, pins: PinsInMemory) -> None:
    made = await registry.collections.create(ANN, "text", "corpus", "dataset", description="# Corpus", tags=["b", "a"])
    assert (made.kind, made.type, made.tags, made.aliases) == (CollectionKind.SEQUENCE, "dataset", ("a", "b"), ())
    assert (made.version_count, made.created_by) == (0, "ann")
    assert await registry.collections.get(ANN, "text", "corpus") == made
    assert (await event_kinds(registry))[-2:] == ["project.created", "collection.created"]


async def test_in_the_model_registry_a_portfolio_is_made_with_spaces_in_its_name(registry: Registry) -> None:
    made = await registry.collections.create(ANN, "model-registry", "Digit Reader", "dataset")
    assert made.kind is CollectionKind.PORTFOLIO
    assert (await link(registry, "vision/digits:v0")).version.number == 0
    with pytest.raises(InvalidName):
        await registry.collections.create(ANN, "vision", "Digit Reader", "dataset")


async def test_a_name_that_is_taken_is_refused(registry: Registry) -> None:
    with pytest.raises(CollectionExists) as error:
        await registry.collections.create(ANN, "vision", "digits", "dataset")
    assert error.value.metadata == {"project": "vision", "collection": "digits"}


async def test_a_creation_that_comes_again_is_no_error(registry: Registry) -> None:
    first = await registry.collections.create(ANN, "text", "corpus", "dataset", request_id="r-1")
    before = await event_kinds(registry)
    assert await registry.collections.create(ANN, "text", "corpus", "dataset", request_id="r-1") == first
    assert await event_kinds(registry) == before
    with pytest.raises(RequestIdReused):
        await registry.collections.create(ANN, "text", "other", "dataset", request_id="r-1")


@pytest.mark.parametrize("is_purged", [False, True], ids=["deleted", "purged"])
async def test_what_made_and_changed_a_collection_is_answered_again_after_it_is_gone(
    registry: Registry, clock: FakeClock, is_purged: bool
) -> None:
    fields: dict[str, Any] = {"type_": "dataset", "description": "# Card", "tags": ["a"], "request_id": "r-1"}
    more: dict[str, Any] = {"add_tags": ["b"], "remove_tags": ["a"], "request_id": "r-2"}
    made = await registry.collections.create(ANN, "text", "corpus", **fields)
    changed = await registry.collections.update(ANN, "text", "corpus", **more)
    # Of one with versions, what goes with them is told as it was, too.
    with_versions = await registry.collections.update(ANN, "vision", "digits", add_tags=["b"], request_id="r-3")
    assert (with_versions.aliases, with_versions.version_count) == ((("latest", 1),), 2)
    clock.seconds += 5
    await registry.deleting.delete_collection(ANN, "text", "corpus", purge=is_purged)
    await registry.deleting.delete_collection(ANN, "vision", "digits", purge=is_purged)
    before = await event_kinds(registry)
    assert await registry.collections.create(ANN, "text", "corpus", **fields) == made
    assert await registry.collections.update(ANN, "text", "corpus", **more) == changed
    again = await registry.collections.update(ANN, "vision", "digits", add_tags=["b"], request_id="r-3")
    assert again == with_versions
    assert await event_kinds(registry) == before
    with pytest.raises(CollectionNotFound):
        await registry.collections.get(ANN, "text", "corpus")


async def test_a_collection_tells_its_aliases_and_how_many_versions_it_has(registry: Registry) -> None:
    await set_aliases(registry, "vision/digits:v0", "best", "a")
    row = await registry.collections.get(ANN, "vision", "digits")
    assert row.aliases == (("a", 0), ("best", 0), ("latest", 1))
    assert row.version_count == 2


async def test_card_and_tags_of_a_collection_change(registry: Registry, clock: FakeClock) -> None:
    clock.seconds += 5
    changed = await registry.collections.update(ANN, "vision", "digits", description="# Card", add_tags=["a", "b"])
    assert (changed.description, changed.tags) == ("# Card", ("a", "b"))
    assert (changed.created_at_ms, changed.updated_at_ms) == (1_800_000_000_000, 1_800_000_005_000)
    clock.seconds += 5
    same = await registry.collections.update(ANN, "vision", "digits", description="# Card", remove_tags=["c"])
    assert same == changed
    assert (await registry.collections.update(ANN, "vision", "digits", remove_tags=["a"])).tags == ("b",)
    assert (await event_kinds(registry))[-2:] == ["collection.updated", "collection.updated"]


async def test_an_update_of_a_collection_that_comes_again_changes_nothing_more(registry: Registry) -> None:
    for _ in range(2):
        await registry.collections.update(ANN, "vision", "digits", add_tags=["a"], request_id="r-1")
    await registry.collections.update(ANN, "vision", "digits", remove_tags=["a"])
    await registry.collections.update(ANN, "vision", "digits", add_tags=["a"], request_id="r-1")
    assert (await registry.collections.get(ANN, "vision", "digits")).tags == ()


async def test_what_changes_in_a_collection_changes_its_time(registry: Registry, clock: FakeClock) -> None:
    async def updated_at() -> int:
        return (await registry.collections.get(ANN, "vision", "digits")).updated_at_ms - 1_800_000_000_000

    clock.seconds += 1
    await set_aliases(registry, "vision/digits:v0", "best")
    assert await updated_at() == 1_000
    clock.seconds += 1
    await update(registry, add_tags=["clean"])
    assert await updated_at() == 2_000
    clock.seconds += 1
    await delete(registry, "vision/digits:v1")
    assert await updated_at() == 3_000


async def test_a_collection_that_is_not_there_is_told(registry: Registry) -> None:
    for project, name in (("vision", "nothing"), ("nothing", "digits")):
        with pytest.raises(CollectionNotFound) as error:
            await registry.collections.get(ANN, project, name)
        assert error.value.metadata == {"project": project, "collection": name}
        with pytest.raises(CollectionNotFound):
            await registry.collections.update(ANN, project, name, description="x")


async def test_what_breaks_a_rule_of_collections_is_refused(registry: Registry) -> None:
    for kind, fields in (
        (InvalidName, {"tags": ["a b"]}),
        (TooManyItems, {"tags": ["a", "b", "c", "d"]}),
        (TextTooLong, {"description": "x" * (257 << 10)}),
        (InvalidName, {"request_id": "a b"}),
    ):
        with pytest.raises(kind):
            await registry.collections.create(ANN, "text", "corpus", "dataset", **fields)
    with pytest.raises(InvalidName):
        await registry.collections.create(ANN, "text", "corpus", "")
    with pytest.raises(TextTooLong):
        await registry.collections.update(ANN, "vision", "digits", description="x" * (257 << 10))
