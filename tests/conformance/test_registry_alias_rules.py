"""What rules of aliases promise, on each database: who may move one, and what a version needs for it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import AliasMoved, AliasProtected, AliasRequires, VersionInUse
from lading_server.common.roles import Role
from lading_server.common.settings import Settings
from lading_server.registry.domain import alias_rules as domain
from lading_server.registry.domain.alias_rules import AliasRules
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.commit_request import CommitRequest
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Link, Unlink
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.alias_rules import put_rule
from lading_server.registry.store.pending import add_commit
from lading_server.registry.store.rows import AliasRule, VersionRow
from lading_server.registry.store.schema import alias_rules, commits, entities, events, versions
from lading_server.registry.store.store import RegistryStore
from tests.support.index import DATABASES, database_url
from tests.support.registry import (
    PinsInMemory,
    commit,
    count,
    event_kinds,
    get,
    opened_registry,
    registry_at,
    rows,
    until,
)
from tests.support.statements import noted_statements

ADMIN = Caller("acme", "ada", "10.0.0.1", Role.ADMIN)
MEMBER = Caller("acme", "max", "10.0.0.2", Role.MEMBER)
ANYBODY = Caller("acme", "anonymous")
READER = "model-registry/Reader"
PROTECTED = AliasRule("vision", "digits", "production", is_protected=True)
APPROVED = AliasRule("vision", "", "production", required_tags=("approved",))
MEASURED = AliasRule("vision", "digits", "production", required_metadata=("eval.accuracy",))


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path, pins: PinsInMemory) -> AsyncIterator[Registry]:
    """A registry with `vision/digits:v0` and `v1`."""
    async with opened_registry(request.param, tmp_path, pins, max_tags=4) as opened:
        for _ in range(2):
            await commit(opened, pins.new_tree(), caller=MEMBER)
        yield opened


def rules_of(registry: Registry) -> AliasRules:
    return AliasRules(registry.settings, registry.store)


async def set_alias(registry: Registry, caller: Caller, reference: str, *aliases: str, remove: bool = False) -> None:
    changes = tuple(AliasChange(alias, remove=remove) for alias in aliases)
    await registry.refs.update(caller, [ChangeAliases(reference_of(caller, reference), changes)])


async def link(registry: Registry, caller: Caller, source: str, *aliases: str) -> VersionRow:
    changes = tuple(AliasChange(alias) for alias in aliases)
    (outcome,) = await registry.refs.update(caller, [Link(reference_of(caller, source), "Reader", changes)])
    return outcome.version


async def unlink(registry: Registry, caller: Caller, reference: str) -> None:
    await registry.refs.update(caller, [Unlink(reference_of(caller, reference), force=True)])


async def tag(registry: Registry, reference: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
    await registry.versions.update(MEMBER, reference_of(MEMBER, reference), add_tags=add, remove_tags=remove)


async def describe(registry: Registry, reference: str, metadata: object) -> None:
    await registry.versions.update(MEMBER, reference_of(MEMBER, reference), metadata=json.dumps(metadata))


async def aliases_of(registry: Registry, reference: str) -> tuple[str, ...]:
    return (await get(registry, reference, MEMBER)).aliases


# --- rules themselves ---


async def test_a_rule_is_kept_told_and_taken_away_with_its_events(registry: Registry) -> None:
    rule = await rules_of(registry).set(
        ADMIN, AliasRule("vision", "digits", "prod", True, ("b", "a", "b"), ("z.y", "x"))
    )
    assert rule == AliasRule("vision", "digits", "prod", True, ("a", "b"), ("x", "z.y"))
    assert await rules_of(registry).list(MEMBER, "") == [rule]
    other = rule._replace(is_protected=False, required_metadata=())
    await rules_of(registry).set(ADMIN, other)
    await rules_of(registry).set(ADMIN, other)
    await rules_of(registry).delete(ADMIN, "vision", "digits", "prod")
    await rules_of(registry).delete(ADMIN, "vision", "digits", "prod")
    assert await rules_of(registry).list(MEMBER, "") == []
    query = sa.select(events).where(events.c.kind.startswith("alias_rule")).order_by(events.c.revision)
    told = [
        (row.kind, row.project, row.collection, row.actor, row.before, row.after) for row in await rows(registry, query)
    ]
    was = '{"alias":"prod","protected":true,"required_tags":["a","b"],"required_metadata":["x","z.y"]}'
    now = '{"alias":"prod","protected":false,"required_tags":["a","b"],"required_metadata":[]}'
    place = ("vision", "digits", "ada")
    assert told == [
        ("alias_rule.set", *place, "", was),
        ("alias_rule.set", *place, was, now),
        ("alias_rule.deleted", *place, now, ""),
    ]
    assert (await rows(registry, sa.select(entities.c.alias_rule_count)))[0] == (0,)


async def test_rules_are_listed_in_order_of_one_project_or_of_all_and_of_one_entity(registry: Registry) -> None:
    wanted = [
        AliasRule("model-registry", "", "production"),
        AliasRule("model-registry", "Digit Reader", "production"),
        AliasRule("vision", "", "b"),
        AliasRule("vision", "a", "b"),
        AliasRule("vision", "a", "c"),
    ]
    for rule in reversed(wanted):
        await rules_of(registry).set(ADMIN, rule)
    assert await rules_of(registry).list(ADMIN, "") == wanted
    assert await rules_of(registry).list(ADMIN, "vision") == wanted[2:]
    assert await rules_of(registry).list(Caller("rival", "eve"), "") == []


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (AliasRule("", "", "a"), "project"),
        (AliasRule("vision", "two words", "a"), "collection"),
        (AliasRule("vision", "", "latest"), "alias"),
        (AliasRule("vision", "", "v3"), "alias"),
        (AliasRule("vision", "", "a", required_tags=(",",)), "tag"),
        (AliasRule("vision", "", "a", required_metadata=("",)), "required_metadata"),
        (AliasRule("vision", "", "a", required_metadata=("a,b",)), "required_metadata"),
        (AliasRule("vision", "", "a", required_metadata=("k" * 257,)), "required_metadata"),
    ],
)
async def test_a_rule_of_malformed_names_is_refused(registry: Registry, rule: AliasRule, field: str) -> None:
    with pytest.raises(InvalidName) as error:
        await rules_of(registry).set(ADMIN, rule)
    assert error.value.metadata["field"] == field


async def test_conditions_and_rules_have_limits(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = AliasRule("vision", "", "a", required_tags=("a", "b"), required_metadata=("c", "d"))
    await rules_of(registry).set(ADMIN, rule)
    with pytest.raises(TooManyItems) as error:
        await rules_of(registry).set(ADMIN, rule._replace(required_tags=("a", "b", "e")))
    assert error.value.metadata["limit_name"] == "max_tags"
    monkeypatch.setattr(domain, "_MOST_RULES", 1)
    await rules_of(registry).set(ADMIN, rule._replace(is_protected=True))
    with pytest.raises(TooManyItems, match="rules"):
        await rules_of(registry).set(ADMIN, rule._replace(alias="b"))
    assert await count(registry, alias_rules) == 1


# --- protected aliases ---


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
async def test_only_admins_set_move_and_remove_a_protected_alias(registry: Registry, role: Role) -> None:
    await rules_of(registry).set(ADMIN, PROTECTED)
    caller = MEMBER._replace(role=role)
    with pytest.raises(AliasProtected) as error:
        await set_alias(registry, caller, "vision/digits:v0", "best", "production")
    assert error.value.metadata == {"alias": "production"}
    assert await aliases_of(registry, "vision/digits:v0") == ()
    await set_alias(registry, ADMIN, "vision/digits:v0", "best", "production")
    for attempt in (False, True):
        with pytest.raises(AliasProtected):
            await set_alias(registry, caller, "vision/digits:v1", "production", remove=attempt)
    # Neither moves it.
    await set_alias(registry, caller, "vision/digits:v0", "production")
    await set_alias(registry, caller, "vision/digits:v1", "best")
    assert await aliases_of(registry, "vision/digits:v0") == ("production",)
    await set_alias(registry, ADMIN, "vision/digits:v1", "production")
    await set_alias(registry, ADMIN, "vision/digits:v1", "production", remove=True)
    await set_alias(registry, caller, "vision/digits:v1", "production", remove=True)
    assert await aliases_of(registry, "vision/digits:v1") == ("best", "latest")


async def test_where_no_keys_are_asked_for_everybody_may_do_all(registry: Registry) -> None:
    await rules_of(registry).set(ANYBODY, PROTECTED)
    await set_alias(registry, ANYBODY, "vision/digits:v0", "production")
    assert await aliases_of(registry, "vision/digits:v0") == ("production",)


async def test_a_rule_is_for_its_collection_its_alias_and_its_entity_alone(
    registry: Registry, pins: PinsInMemory
) -> None:
    await rules_of(registry).set(ADMIN, PROTECTED)
    await commit(registry, pins.new_tree(), "letters", caller=MEMBER, aliases=(AliasChange("production"),))
    await set_alias(registry, MEMBER, "vision/digits:v0", "staging")
    gus = Caller("globex", "gus", role=Role.MEMBER)
    await commit(registry, pins.new_tree(), caller=gus, aliases=(AliasChange("production"),))
    assert (await get(registry, "vision/digits:production", gus)).number == 0


async def test_a_rule_for_a_project_is_for_every_collection_and_is_not_weakened_by_one_for_a_collection(
    registry: Registry,
) -> None:
    await rules_of(registry).set(ADMIN, AliasRule("model-registry", "", "production", is_protected=True))
    await rules_of(registry).set(ADMIN, AliasRule("model-registry", "Reader", "production"))
    with pytest.raises(AliasProtected, match="all of model-registry"):
        await link(registry, MEMBER, "vision/digits:v0", "production")
    with pytest.raises(Exception, match="no collection"):
        await get(registry, f"{READER}:v0", MEMBER)
    await link(registry, ADMIN, "vision/digits:v0", "production")
    await set_alias(registry, MEMBER, "vision/digits:v0", "production")


async def test_a_commit_that_would_move_a_protected_alias_costs_no_pin(registry: Registry, pins: PinsInMemory) -> None:
    await rules_of(registry).set(ADMIN, PROTECTED)
    before = pins.calls
    with pytest.raises(AliasProtected):
        await commit(registry, pins.new_tree(), caller=MEMBER, aliases=(AliasChange("production"),))
    await rules_of(registry).set(ADMIN, PROTECTED._replace(collection="new"))
    with pytest.raises(AliasProtected):
        await commit(registry, pins.new_tree(), "new", caller=MEMBER, aliases=(AliasChange("production"),))
    assert pins.calls == before
    tree = pins.new_tree()
    version, _ = await commit(registry, tree, caller=ADMIN, aliases=(AliasChange("production"),))
    assert version.aliases == ("latest", "production")
    # Committed again by somebody else, it stays where it is.
    await commit(registry, tree, caller=MEMBER, aliases=(AliasChange("production"),))
    with pytest.raises(AliasProtected):
        await commit(registry, tree, caller=MEMBER, aliases=(AliasChange("production", remove=True),))


async def test_nothing_that_takes_a_protected_alias_away_is_a_way_around(registry: Registry) -> None:
    for project in ("vision", "model-registry"):
        await rules_of(registry).set(ADMIN, AliasRule(project, "", "production", is_protected=True))
    await link(registry, ADMIN, "vision/digits:v0", "production")
    await set_alias(registry, ADMIN, "vision/digits:v1", "production")
    with pytest.raises(AliasProtected):
        await unlink(registry, MEMBER, f"{READER}:v0")
    for version in ("v0", "v1"):
        reference = reference_of(MEMBER, f"vision/digits:{version}")
        with pytest.raises(VersionInUse):
            await registry.versions.delete(MEMBER, reference)
        with pytest.raises(AliasProtected):
            await registry.versions.delete(MEMBER, reference, force=True)
    assert await aliases_of(registry, f"{READER}:v0") == ("latest", "production")
    await registry.versions.delete(ADMIN, reference_of(ADMIN, "vision/digits:v0"), force=True)
    await registry.versions.delete(ADMIN, reference_of(ADMIN, "vision/digits:v1"), force=True)
    removed = [one.before for one in await rows(registry, sa.select(events).where(events.c.kind == "alias.removed"))]
    assert removed.count('{"alias":"production","number":0}') == 1
    assert removed.count('{"alias":"production","number":1}') == 1


async def test_a_commit_that_a_crash_left_is_resumed_with_the_role_and_origin_of_its_caller(tmp_path: Path) -> None:
    pins = PinsInMemory()
    async with database_url("sqlite", tmp_path) as url:
        store = await RegistryStore.open(url)
        try:
            for caller in (MEMBER, ADMIN):
                await leave_commit(store, pins, caller)
            await AliasRules(Settings(), store).set(ADMIN, PROTECTED)
        finally:
            await store.close()
        async with registry_at(url, pins) as registry:

            async def is_done() -> bool:
                return await count(registry, commits) == 0

            await until(is_done)
            version = await get(registry, "vision/digits:production", MEMBER)
            assert (version.number, version.created_by) == (0, "ada")
            query = sa.select(events.c.actor, events.c.origin).where(events.c.version_uid == version.uid)
            assert {tuple(row) for row in await rows(registry, query)} == {("ada", "10.0.0.1")}
            assert await count(registry, versions) == 1


async def leave_commit(store: RegistryStore, pins: PinsInMemory, caller: Caller) -> None:
    """Leave a commit as a crash would that came before its pin."""
    wish = (AliasChange("production"),)
    request = CommitRequest("vision", "digits", "dataset", pins.new_tree(), aliases=wish)
    async with store.change(caller) as change:
        await add_commit(change, os.urandom(16), request.checked(Settings()).to_json(caller))


# --- what is required ---


async def test_a_required_tag_has_to_be_there_first(registry: Registry) -> None:
    await rules_of(registry).set(ADMIN, APPROVED._replace(required_tags=("approved", "reviewed")))
    await tag(registry, "vision/digits:v0", add=["reviewed"])
    with pytest.raises(AliasRequires, match="approved") as error:
        await set_alias(registry, ADMIN, "vision/digits:v0", "production")
    assert error.value.metadata == {"alias": "production", "tags": "approved", "metadata": ""}
    await tag(registry, "vision/digits:v0", add=["approved"])
    await set_alias(registry, MEMBER, "vision/digits:v0", "production")
    assert await aliases_of(registry, "vision/digits:v0") == ("production",)
    # Removing needs nothing.
    await set_alias(registry, MEMBER, "vision/digits:v1", "production", remove=True)


async def test_a_required_key_of_metadata_has_to_have_a_value(registry: Registry) -> None:
    await rules_of(registry).set(ADMIN, MEASURED)
    for lacking in ({}, {"eval": 0.9}, {"eval": {"accuracy": None}}, {"eval": [{"accuracy": 1}]}, {"accuracy": 1}):
        await describe(registry, "vision/digits:v0", lacking)
        with pytest.raises(AliasRequires) as error:
            await set_alias(registry, MEMBER, "vision/digits:v0", "production")
        assert error.value.metadata == {"alias": "production", "tags": "", "metadata": "eval.accuracy"}
    for number, having in enumerate(({"eval": {"accuracy": 0}}, {"eval.accuracy": False}, {"eval": {"accuracy": {}}})):
        await describe(registry, f"vision/digits:v{number % 2}", having)
        await set_alias(registry, MEMBER, f"vision/digits:v{number % 2}", "production")


async def test_all_rules_for_an_alias_count_together(registry: Registry) -> None:
    await rules_of(registry).set(ADMIN, APPROVED)
    await rules_of(registry).set(ADMIN, MEASURED)
    with pytest.raises(AliasRequires, match="approved"):
        await set_alias(registry, MEMBER, "vision/digits:v0", "production")
    await tag(registry, "vision/digits:v0", add=["approved"])
    with pytest.raises(AliasRequires, match="accuracy"):
        await set_alias(registry, MEMBER, "vision/digits:v0", "production")
    await describe(registry, "vision/digits:v0", {"eval": {"accuracy": 1}})
    await set_alias(registry, MEMBER, "vision/digits:v0", "production")


async def test_a_commit_may_bring_what_is_required(registry: Registry, pins: PinsInMemory) -> None:
    await rules_of(registry).set(ADMIN, APPROVED)
    await rules_of(registry).set(ADMIN, MEASURED)
    tree, wish = pins.new_tree(), (AliasChange("production"),)
    before = pins.calls
    lackings: list[dict[str, Any]] = [{}, {"tags": ("approved",)}, {"metadata": '{"eval":{"accuracy":1}}'}]
    for lacking in lackings:
        with pytest.raises(AliasRequires):
            await commit(registry, tree, caller=MEMBER, aliases=wish, **lacking)
    assert pins.calls == before
    enough: dict[str, Any] = {"tags": ("approved",), "metadata": '{"eval":{"accuracy":1}}'}
    version, _ = await commit(registry, tree, caller=MEMBER, aliases=wish, **enough)
    assert version.aliases == ("latest", "production")
    # A tree that is there already gets the tags of the commit first, and keeps its metadata.
    await describe(registry, "vision/digits:v2", {"eval": {"accuracy": 2}})
    other, _ = await commit(registry, pins.new_tree(), caller=MEMBER, metadata='{"eval":{"accuracy":1}}')
    again, created = await commit(registry, other.tree_digest, caller=MEMBER, aliases=wish, tags=("approved",))
    assert (created, again.aliases) == (False, ("latest", "production"))


async def test_of_a_link_its_own_tags_and_its_sources_count(registry: Registry) -> None:
    rule = AliasRule("model-registry", "", "production", required_tags=("a", "b"), required_metadata=("m",))
    await rules_of(registry).set(ADMIN, rule)
    await tag(registry, "vision/digits:v0", add=["a"])
    with pytest.raises(AliasRequires) as error:
        await link(registry, MEMBER, "vision/digits:v0", "production")
    assert error.value.metadata == {"alias": "production", "tags": "b", "metadata": "m"}
    await link(registry, MEMBER, "vision/digits:v0")
    await tag(registry, f"{READER}:v0", add=["b"])
    await describe(registry, "vision/digits:v0", {"m": "x"})
    await set_alias(registry, MEMBER, f"{READER}:v0", "production")


async def test_what_a_rule_requires_is_not_taken_away_while_the_alias_points_there(registry: Registry) -> None:
    for rule in (APPROVED, MEASURED):
        await rules_of(registry).set(ADMIN, rule)
    await tag(registry, "vision/digits:v0", add=["approved", "other"])
    await describe(registry, "vision/digits:v0", {"eval": {"accuracy": 1, "loss": 2}})
    await set_alias(registry, MEMBER, "vision/digits:v0", "production")
    with pytest.raises(AliasRequires, match="move it before") as error:
        await tag(registry, "vision/digits:v0", remove=["approved", "other"])
    assert error.value.metadata == {"alias": "production", "tags": "approved", "metadata": ""}
    with pytest.raises(AliasRequires) as error:
        await describe(registry, "vision/digits:v0", {"eval": {"loss": 2}})
    assert error.value.metadata == {"alias": "production", "tags": "", "metadata": "eval.accuracy"}
    assert (await get(registry, "vision/digits:v0", MEMBER)).tags == ("approved", "other")
    await tag(registry, "vision/digits:v0", remove=["other"])
    await describe(registry, "vision/digits:v0", {"eval": {"accuracy": 3}})
    await set_alias(registry, MEMBER, "vision/digits:v0", "production", remove=True)
    await tag(registry, "vision/digits:v0", remove=["approved"])
    await describe(registry, "vision/digits:v0", {})


async def test_a_links_alias_keeps_what_its_source_has(registry: Registry) -> None:
    rule = AliasRule("model-registry", "Reader", "production", required_tags=("approved",), required_metadata=("m",))
    await rules_of(registry).set(ADMIN, rule)
    await tag(registry, "vision/digits:v0", add=["approved"])
    await describe(registry, "vision/digits:v0", {"m": 1})
    await link(registry, MEMBER, "vision/digits:v0", "production")
    with pytest.raises(AliasRequires):
        await tag(registry, "vision/digits:v0", remove=["approved"])
    with pytest.raises(AliasRequires):
        await describe(registry, "vision/digits:v0", {})
    # The link's own tag is enough.
    await tag(registry, f"{READER}:v0", add=["approved"])
    await tag(registry, "vision/digits:v0", remove=["approved"])
    with pytest.raises(AliasRequires):
        await tag(registry, f"{READER}:v0", remove=["approved"])


async def test_a_rule_says_nothing_of_where_its_alias_points_already(registry: Registry) -> None:
    await set_alias(registry, MEMBER, "vision/digits:v0", "production")
    await rules_of(registry).set(ADMIN, APPROVED)
    await tag(registry, "vision/digits:v0", add=["other"])
    await tag(registry, "vision/digits:v0", remove=["other"])
    await set_alias(registry, MEMBER, "vision/digits:v0", "production")
    with pytest.raises(AliasRequires):
        await set_alias(registry, MEMBER, "vision/digits:v1", "production")


async def test_a_wrong_belief_is_told_before_a_rule(registry: Registry) -> None:
    await rules_of(registry).set(ADMIN, PROTECTED)
    belief = AliasChange("production", expected_number=0)
    with pytest.raises(AliasMoved):
        await registry.refs.update(MEMBER, [ChangeAliases(reference_of(MEMBER, "vision/digits:v1"), (belief,))])


async def test_one_refused_alias_undoes_the_whole_call(registry: Registry) -> None:
    await rules_of(registry).set(ADMIN, PROTECTED)
    before = await event_kinds(registry)
    changes = [
        ChangeAliases(reference_of(MEMBER, f"vision/digits:v{number}"), (AliasChange(alias),))
        for number, alias in enumerate(("free", "production"))
    ]
    with pytest.raises(AliasProtected):
        await registry.refs.update(MEMBER, changes)
    assert await event_kinds(registry) == before


# --- what it costs, and races ---


async def test_without_rules_no_statement_is_about_them(registry: Registry) -> None:
    with noted_statements(registry.store.database) as statements:

        def about_rules() -> list[str]:
            found = [one.text for one in statements if "alias_rules" in one.text]
            statements.clear()
            return found

        await set_alias(registry, MEMBER, "vision/digits:v0", "production")
        await rules_of(registry).set(ADMIN, PROTECTED._replace(alias="other"))
        assert about_rules()
        await set_alias(registry, MEMBER, "vision/digits:v1", "production")
        assert len(about_rules()) == 1
        await rules_of(registry).delete(ADMIN, "vision", "digits", "other")
        statements.clear()
        await set_alias(registry, MEMBER, "vision/digits:v0", "production")
        await tag(registry, "vision/digits:v0", add=["a"])
        await tag(registry, "vision/digits:v0", remove=["a"])
        assert statements
        assert about_rules() == []


async def test_an_alias_that_waits_for_the_first_rule_is_held_against_it(registry: Registry) -> None:
    """The change that sets the rule is open while the alias waits for its turn, and is committed in between."""
    async with registry.store.change(ADMIN) as change:
        await put_rule(change, PROTECTED, None)
        moving = asyncio.create_task(set_alias(registry, MEMBER, "vision/digits:v0", "production"))
        await until_somebody_waits(registry)
    with pytest.raises(AliasProtected):
        await moving
    assert "production" not in await aliases_of(registry, "vision/digits:v0")


async def until_somebody_waits(registry: Registry) -> None:
    database = registry.store.database

    async def waits() -> bool:
        await asyncio.sleep(0)
        if database.dialect == "sqlite":
            turn = database._turn
            assert isinstance(turn, asyncio.Lock)
            return bool(turn._waiters)
        locks = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool((await rows(registry, sa.text(locks)))[0][0])  # type: ignore[arg-type]

    await until(waits)


async def test_of_a_rule_and_moves_that_race_the_events_tell_an_order_that_keeps_the_rule(registry: Registry) -> None:
    async def move(number: int) -> bool:
        try:
            await set_alias(registry, MEMBER, f"vision/digits:v{number % 2}", "production")
        except AliasProtected:
            return False
        return True

    moves = [asyncio.create_task(move(number)) for number in range(12)]
    setting = asyncio.create_task(rules_of(registry).set(ADMIN, PROTECTED))
    moves += [asyncio.create_task(move(number)) for number in range(12)]
    done = await asyncio.gather(*moves)
    await setting
    kinds = await event_kinds(registry)
    after = kinds[kinds.index("alias_rule.set") + 1 :]
    assert "alias.set" not in after
    assert not all(done[12:]), "no move came after the rule: the test shows nothing"


async def test_of_a_tag_that_goes_and_an_alias_that_comes_one_is_refused(registry: Registry) -> None:
    await rules_of(registry).set(ADMIN, APPROVED)
    for _ in range(8):
        await tag(registry, "vision/digits:v0", add=["approved"])
        results = await asyncio.gather(
            tag(registry, "vision/digits:v0", remove=["approved"]),
            set_alias(registry, MEMBER, "vision/digits:v0", "production"),
            return_exceptions=True,
        )
        assert [type(one) for one in results].count(AliasRequires) == 1, results
        version = await get(registry, "vision/digits:v0", MEMBER)
        assert ("production" in version.aliases) == ("approved" in version.tags)
        await set_alias(registry, MEMBER, "vision/digits:v0", "production", remove=True)
