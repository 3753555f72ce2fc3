"""Times to live and rules of retention: what would go, and what goes, on either database."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidPageToken, InvalidRange, TooManyItems
from lading_server.common.page_tokens import make_token
from lading_server.common.registry_errors import (
    CollectionNotFound,
    InvalidRetentionRule,
    RoleDenied,
    VersionNotFound,
    WrongKind,
)
from lading_server.common.roles import Role
from lading_server.registry.domain import retention as retention_module
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.registry import Registry
from lading_server.registry.domain.retention import Judged
from lading_server.registry.domain.retention_sweep import ACTOR, RetentionSweep
from lading_server.registry.store.retention import RetentionQueries, Scope
from lading_server.registry.store.rows import RetentionFacts, RetentionRule, VersionRow
from lading_server.registry.store.schema import events, retention_rules, versions
from tests.support.index import DATABASES, FakeClock, database_url
from tests.support.registry import (
    ANN,
    PinsInMemory,
    commit,
    count,
    get,
    link,
    registry_at,
    rows,
    set_aliases,
    unlink,
    until,
)
from tests.support.retention import going, ranks_of

BOB = Caller("acme", "bob", role=Role.MEMBER)
EVE = Caller("globex", "eve")
DAY = 86_400


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
    """One that applies nothing by itself."""
    async with registry_at(url, pins, clock, retention_period_seconds=0) as opened:
        yield opened


async def update(registry: Registry, reference: str, caller: Caller = ANN, **more: Any) -> VersionRow:
    return await registry.versions.update(caller, reference_of(caller, reference), **more)


async def fill(registry: Registry, pins: PinsInMemory, versions: int, name: str = "digits") -> None:
    for number in range(versions):
        await commit(registry, pins.new_tree(), name, metadata=json.dumps({"accuracy": number % 4}))


async def set_rule(registry: Registry, collection: str = "digits", caller: Caller = ANN, **parts: Any) -> RetentionRule:
    return await registry.retention.rules.set(caller, RetentionRule("vision", collection, **parts))


async def simulated(
    registry: Registry, rule: RetentionRule | None = None, name: str = "digits", page_size: int = 0
) -> list[Judged]:
    found: list[Judged] = []
    token = ""
    while True:
        page = await registry.retention.simulate(ANN, "vision", name, rule, PageRequest(page_size, token))
        found += page.rows
        token = page.token
        if not token:
            gone = [row.facts.size_bytes for row in found if row.verdict.goes]
            assert page.totals == (len(found) - len(gone), len(gone), sum(gone))
            return found


async def applied(
    registry: Registry, project: str = "", collection: str = "", caller: Caller = ANN
) -> list[tuple[str, int]]:
    """Apply until nothing is left, and return what was deleted."""
    deleted: list[Judged] = []
    token = ""
    while True:
        some, token = await registry.retention.apply(caller, project, collection, token)
        deleted += some
        if not token:
            return [(row.key.name, row.facts.number) for row in deleted]


async def has_only(registry: Registry, number: int) -> bool:
    return await live(registry) == [number]


async def live(registry: Registry, name: str = "digits") -> list[int]:
    page = await registry.lists.versions(ANN, "vision", name, PageRequest(1000, ""))
    return sorted(row.number for row in page.rows)


# --- times to live ---


async def test_a_version_goes_when_its_time_is_over_and_not_before(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    made = (await commit(registry, pins.new_tree(), ttl_seconds=60)).version
    assert made.expires_at_ms == made.created_at_ms + 60_000
    clock.seconds += 59
    assert await applied(registry) == []
    clock.seconds += 1
    assert await applied(registry) == [("digits", 0)]
    with pytest.raises(VersionNotFound):
        await get(registry, "vision/digits:v0")
    # Its pin is kept: it can be had back.
    assert pins.released == set()


async def test_what_an_alias_or_a_link_points_at_stays_until_the_last_has_left(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    await commit(registry, pins.new_tree(), ttl_seconds=60)
    await set_aliases(registry, "vision/digits:v0", "best")
    await link(registry, "vision/digits:v0")
    clock.seconds += 3600
    assert await applied(registry) == []
    assert [row.verdict.why for row in await simulated(registry)] == [
        "alias best; a link points at it; its time to live was over at 2027-01-15 08:01:00Z"
    ]
    await commit(registry, pins.new_tree(), ttl_seconds=0)
    await set_aliases(registry, "vision/digits:v1", "best")
    assert await applied(registry) == []
    await unlink(registry, "model-registry/Digit Reader:v0", force=True)
    assert await applied(registry) == [("digits", 0)]


async def test_latest_keeps_nothing(registry: Registry, pins: PinsInMemory, clock: FakeClock) -> None:
    await commit(registry, pins.new_tree())
    await commit(registry, pins.new_tree(), ttl_seconds=1)
    clock.seconds += 1
    assert await applied(registry) == [("digits", 1)]
    assert (await get(registry, "vision/digits:latest")).number == 0


async def test_to_commit_again_never_makes_a_version_go_sooner(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    tree = pins.new_tree()
    first = (await commit(registry, tree, ttl_seconds=60)).version
    assert (await commit(registry, tree, ttl_seconds=30)).version.expires_at_ms == first.expires_at_ms
    assert (await commit(registry, tree, ttl_seconds=90)).version.expires_at_ms == first.created_at_ms + 90_000
    assert (await commit(registry, tree)).version.expires_at_ms is None
    assert (await commit(registry, tree, ttl_seconds=90)).version.expires_at_ms is None


async def test_a_time_to_live_is_changed_and_only_admins_have_a_version_go_sooner(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    await commit(registry, pins.new_tree(), ttl_seconds=60)
    now_ms = int(clock.seconds * 1000)
    assert (await update(registry, "vision/digits:v0", BOB, ttl_seconds=90)).expires_at_ms == now_ms + 90_000
    with pytest.raises(RoleDenied, match="would go sooner"):
        await update(registry, "vision/digits:v0", BOB, ttl_seconds=30)
    assert (await update(registry, "vision/digits:v0", BOB, ttl_seconds=0)).expires_at_ms is None
    with pytest.raises(RoleDenied):
        await update(registry, "vision/digits:v0", BOB, ttl_seconds=10**9)
    admin = BOB._replace(role=Role.ADMIN)
    assert (await update(registry, "vision/digits:v0", admin, ttl_seconds=30)).expires_at_ms == now_ms + 30_000
    assert (await update(registry, "vision/digits:v0", description="# Card")).expires_at_ms == now_ms + 30_000
    told = await rows(registry, sa.select(events.c.before, events.c.after).where(events.c.kind == "version.updated"))
    assert (told[0].before, told[0].after) == (
        f'{{"expires_at_ms":{now_ms + 60_000}}}',
        f'{{"expires_at_ms":{now_ms + 90_000}}}',
    )


async def test_a_link_has_no_time_of_its_own(registry: Registry, pins: PinsInMemory) -> None:
    await commit(registry, pins.new_tree(), ttl_seconds=60)
    assert (await link(registry, "vision/digits:v0")).version.expires_at_ms is None
    with pytest.raises(WrongKind):
        await update(registry, "model-registry/Digit Reader:v0", ttl_seconds=60)


@pytest.mark.parametrize("ttl_seconds", [-1, 100 * 365 * DAY + 1])
async def test_a_time_to_live_out_of_range_is_refused(registry: Registry, pins: PinsInMemory, ttl_seconds: int) -> None:
    with pytest.raises(InvalidRange):
        await commit(registry, pins.new_tree(), ttl_seconds=ttl_seconds)


async def test_new_versions_take_the_time_of_the_rule_unless_they_bring_one(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    await commit(registry, pins.new_tree())
    await set_rule(registry, "", keep_all=True, default_ttl_seconds=60)
    assert (await get(registry, "vision/digits:v0")).expires_at_ms is None
    now_ms = int(clock.seconds * 1000)
    ends = [(await commit(registry, pins.new_tree(), ttl_seconds=ttl)).version.expires_at_ms for ttl in (None, 5, 0)]
    assert ends == [now_ms + 60_000, now_ms + 5_000, None]
    await set_rule(registry, keep_all=True, default_ttl_seconds=7)
    assert (await commit(registry, pins.new_tree())).version.expires_at_ms == now_ms + 7_000
    assert (await commit(registry, pins.new_tree(), "others")).version.expires_at_ms == now_ms + 60_000


async def test_versions_are_found_by_their_end(registry: Registry, pins: PinsInMemory) -> None:
    for ttl_seconds in (0, 60, 365 * DAY):
        await commit(registry, pins.new_tree(), ttl_seconds=ttl_seconds)
    page = PageRequest(10, "")
    soon = await registry.lists.search_versions(ANN, "expires < 2027-06-01", "", page)
    late = await registry.lists.search_versions(ANN, "expires >= 2027-06-01", "", page)
    assert ([row.number for row in soon.rows], [row.number for row in late.rows]) == ([1], [2])


# --- rules ---


async def test_a_rule_is_kept_with_who_set_it_and_told_in_events(registry: Registry, clock: FakeClock) -> None:
    kept = await set_rule(registry, keep_last=5, keep_tags=("release", "gold", "gold"))
    assert kept == RetentionRule(
        "vision", "digits", 5, keep_tags=("gold", "release"), set_at_ms=int(clock.seconds * 1000), set_by="ann"
    )
    clock.seconds += 1
    assert (
        await set_rule(registry, keep_last=5, keep_tags=("gold", "release"), caller=ANN._replace(principal="al"))
        == kept
    )
    changed = await set_rule(registry, keep_last=4)
    whole = await set_rule(registry, "", keep_days=30)
    assert await registry.retention.rules.list(ANN, "") == [whole, changed]
    assert await registry.retention.rules.list(ANN, "other") == []
    assert await registry.retention.rules.list(EVE, "") == []
    assert await registry.retention.rules.get(ANN, "vision", "digits") == changed
    assert await registry.retention.rules.get(ANN, "vision", "others") == whole
    assert await registry.retention.rules.get(ANN, "other", "others") is None
    await registry.retention.rules.delete(ANN, "vision", "digits")
    await registry.retention.rules.delete(ANN, "vision", "digits")
    assert await registry.retention.rules.get(ANN, "vision", "digits") == whole
    told = await rows(
        registry, sa.select(events.c.kind, events.c.collection, events.c.after).order_by(events.c.revision)
    )
    assert [tuple(event) for event in told] == [
        ("retention_rule.set", "digits", '{"keep_last":5,"keep_tags":["gold","release"]}'),
        ("retention_rule.set", "digits", '{"keep_last":4}'),
        ("retention_rule.set", "", '{"keep_days":30}'),
        ("retention_rule.deleted", "digits", ""),
    ]


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({}, "keep_all"),
        ({"default_ttl_seconds": 60}, "keep_all"),
        ({"keep_all": True, "keep_last": 1}, "keep_all"),
        ({"keep_best": 3}, "best_by"),
        ({"keep_last": 3, "best_key": "accuracy"}, "best_by"),
        ({"keep_last": 3, "best_is_smallest": True}, "best_order"),
        ({"keep_best": 3, "best_key": "a" * 257}, "best_by"),
        ({"keep_last": 1_000_001}, "keep_last"),
        ({"keep_days": 36_501}, "keep_days"),
        ({"keep_all": True, "default_ttl_seconds": 10**11}, "default_ttl_seconds"),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused_also_by_a_simulation(
    registry: Registry, pins: PinsInMemory, parts: dict[str, Any], field: str
) -> None:
    await commit(registry, pins.new_tree())
    with pytest.raises(InvalidRetentionRule) as refused:
        await set_rule(registry, **parts)
    assert refused.value.metadata["field"] == field
    with pytest.raises(InvalidRetentionRule):
        await simulated(registry, RetentionRule("", "", **parts))
    assert await count(registry, retention_rules) == 0


async def test_names_and_numbers_of_rules_are_checked(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidName):
        await set_rule(registry, keep_tags=("no tag",))
    with pytest.raises(WrongKind, match="by hand"):
        await registry.retention.rules.set(ANN, RetentionRule("model-registry", "Reader", keep_last=1))
    monkeypatch.setattr("lading_server.registry.domain.retention_rules._MOST_RULES", 1)
    await set_rule(registry, keep_last=1)
    await set_rule(registry, keep_last=2)
    with pytest.raises(TooManyItems, match="delete some"):
        await set_rule(registry, "others", keep_last=1)


async def test_the_rule_of_a_collection_takes_the_place_of_its_projects(registry: Registry, pins: PinsInMemory) -> None:
    for name in ("digits", "others", "exempt"):
        await fill(registry, pins, 4, name)
    await set_rule(registry, "", keep_last=1)
    await set_rule(registry, keep_last=2)
    await set_rule(registry, "exempt", keep_all=True)
    assert await applied(registry, "vision", "digits") == [("digits", 0), ("digits", 1)]
    assert await applied(registry, "elsewhere") == []
    assert await applied(registry, caller=EVE) == []
    assert await applied(registry) == [("others", 0), ("others", 1), ("others", 2)]
    assert await live(registry, "exempt") == [0, 1, 2, 3]


# --- simulations ---


async def test_a_simulation_is_what_is_applied_whatever_the_collection_and_the_rule(
    registry: Registry, pins: PinsInMemory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the oracle in plain words, with so small pieces that every border is met."""
    for name, size in (("_READ_ROWS", 3), ("_CHANGE_ROWS", 2), ("_PIECE_DELETES", 4), ("_PIECE_LOOKS", 7)):
        monkeypatch.setattr(retention_module, name, size)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    pick = random.Random(seed)
    for number in range(8):
        name = f"c{number}"
        for _ in range(pick.randrange(1, 12)):
            clock.seconds += pick.choice([0, DAY / 2])
            value = pick.choice([1, 2, 2, 2.5, "text", True, None])
            metadata = json.dumps(pick.choice([{}, {"eval": {"accuracy": value}}]))
            await commit(
                registry,
                pins.new_tree(),
                name,
                metadata=metadata,
                tags=pick.choice([(), (), ("gold",), ("other",)]),
                ttl_seconds=pick.choice([0, 0, 0, DAY, 30 * DAY]),
            )
        some = [f"vision/{name}:v{one}" for one in pick.sample(await live(registry, name), k=1)]
        await set_aliases(registry, some[0], "best")
        await link(registry, f"vision/{name}:v{pick.choice(await live(registry, name))}", f"Model {number}")
        if len(there := await live(registry, name)) > 1 and pick.random() < 0.5:
            loose = pick.choice(there)
            await registry.versions.delete(ANN, reference_of(ANN, f"vision/{name}:v{loose}"), force=True)
        best_of = pick.choice([0, 1, 3])
        rule = RetentionRule(
            "vision",
            name,
            keep_last=pick.choice([0, 1, 2, 50]),
            keep_best=best_of,
            best_key="eval.accuracy" if best_of else "",
            best_is_smallest=bool(best_of) and pick.random() < 0.5,
            keep_days=pick.choice([0, 1, 3]),
            keep_tags=pick.choice([(), ("gold", "silver")]),
        )
        if not any((rule.keep_last, best_of, rule.keep_days, rule.keep_tags)):
            rule = rule._replace(keep_last=2)
        tried = await simulated(registry, rule, name, page_size=2)
        facts = [row.facts for row in tried]
        now_ms = registry.store.now_ms()
        assert {row.facts.number for row in tried if row.verdict.goes} == going(facts, rule, now_ms)
        async with registry.store.database.read() as connection:
            collection_id = tried[0].key.id
            ranks = await registry.store.retention.ranks(connection, collection_id, rule, now_ms)
        assert ranks == ranks_of(facts, rule, now_ms)
        await registry.retention.rules.set(ANN, rule)
        stored = await simulated(registry, None, name)
        assert [row.verdict for row in stored] == [row.verdict for row in tried]
        before = await live(registry, name)
        gone = [number for _, number in await applied(registry, "vision", name)]
        assert len(gone) == len(set(gone))
        assert set(gone) == going(facts, rule, now_ms)
        assert await live(registry, name) == sorted(set(before) - set(gone))
        assert await applied(registry, "vision", name) == []


async def test_a_simulation_changes_nothing_and_tells_what_it_went_by(registry: Registry, pins: PinsInMemory) -> None:
    await fill(registry, pins, 4)
    before = await rows(registry, sa.select(events.c.revision))
    rule = RetentionRule("vision", "digits", keep_last=1, keep_best=1, best_key="accuracy", best_is_smallest=True)
    page = await registry.retention.simulate(ANN, "vision", "digits", rule, PageRequest(0, ""))
    assert page.rule == rule
    assert [(row.facts.number, *row.verdict) for row in page.rows] == [
        (3, False, "one of the last 1"),
        (2, True, "no part of the rule keeps it"),
        (1, True, "no part of the rule keeps it"),
        (0, False, "one of the best 1 (0)"),
    ]
    assert page.totals == (2, 2, 2 * 4096)
    assert [row.verdict.why for row in await simulated(registry)] == ["no rule counts for it"] * 4
    assert await rows(registry, sa.select(events.c.revision)) == before


async def test_pages_of_a_simulation_are_about_one_moment_and_one_rule(
    registry: Registry, pins: PinsInMemory, clock: FakeClock
) -> None:
    await fill(registry, pins, 4)
    await set_rule(registry, keep_last=2)
    first = await registry.retention.simulate(ANN, "vision", "digits", None, PageRequest(1, ""))
    # A new version would push another one out of the last two.
    await commit(registry, pins.new_tree())
    second = await registry.retention.simulate(ANN, "vision", "digits", None, PageRequest(3, first.token))
    assert [row.verdict.goes for row in (*first.rows, *second.rows)] == [False, False, True, True]
    await set_rule(registry, keep_last=3)
    with pytest.raises(InvalidPageToken):
        await registry.retention.simulate(ANN, "vision", "digits", None, PageRequest(3, first.token))
    with pytest.raises(CollectionNotFound):
        await registry.retention.simulate(EVE, "vision", "digits", None, PageRequest(3, ""))


async def test_no_token_brings_a_moment_that_is_still_to_come(registry: Registry, pins: PinsInMemory) -> None:
    await commit(registry, pins.new_tree(), ttl_seconds=60)
    token = make_token(("acme", "ApplyRetention", "", ""), (registry.store.now_ms() + 10**9, False, 0, 0))
    assert await registry.retention.apply(ANN, "", "", token) == ([], "")
    for made_up in ("nonsense", make_token(("acme", "ApplyRetention", "", ""), (1, 2))):
        with pytest.raises(InvalidPageToken):
            await registry.retention.apply(ANN, "", "", made_up)
    assert await live(registry) == [0]


# --- what happens meanwhile ---


class Meddling(RetentionQueries):
    """Lets something happen between the look and the change, as often as there is something."""

    def __init__(self) -> None:
        self.meanwhile: list[Any] = []

    async def candidates(self, *arguments: Any, **more: Any) -> list[RetentionFacts]:
        found = await super().candidates(*arguments, **more)
        if self.meanwhile:
            await self.meanwhile.pop(0)
        return found

    async def due(self, *arguments: Any, **more: Any) -> Any:
        found = await super().due(*arguments, **more)
        if self.meanwhile:
            await self.meanwhile.pop(0)
        return found


@pytest.fixture
def meddling(registry: Registry) -> Meddling:
    queries = Meddling()
    object.__setattr__(registry.store, "retention", queries)
    return queries


async def test_an_alias_or_a_link_that_was_set_a_moment_ago_keeps_its_version(
    registry: Registry, pins: PinsInMemory, clock: FakeClock, meddling: Meddling
) -> None:
    await fill(registry, pins, 4)
    await commit(registry, pins.new_tree(), ttl_seconds=1)
    clock.seconds += 1
    await set_rule(registry, keep_last=1)
    meddling.meanwhile = [set_aliases(registry, "vision/digits:v4", "good"), link(registry, "vision/digits:v1")]
    assert await applied(registry) == [("digits", 0), ("digits", 2)]
    assert await live(registry) == [1, 3, 4]


@pytest.mark.parametrize("what", ["deleted", "better", "rule", "longer"])
async def test_what_lets_more_versions_stay_counts_from_the_moment_it_happens(
    registry: Registry, pins: PinsInMemory, meddling: Meddling, what: str
) -> None:
    await fill(registry, pins, 4)
    await set_rule(registry, keep_last=1, keep_best=1, best_key="accuracy")

    async def meanwhile() -> None:
        match what:
            case "deleted":
                await registry.versions.delete(ANN, reference_of(ANN, "vision/digits:v3"))
            case "better":
                await update(registry, "vision/digits:v0", metadata='{"accuracy": 9}')
            case "rule":
                await set_rule(registry, keep_last=3)
            case _:
                await update(registry, "vision/digits:v1", add_tags=["gold"])
                await set_rule(registry, keep_last=1, keep_tags=("gold",))

    meddling.meanwhile = [asyncio.sleep(0), meanwhile()]
    await applied(registry)
    kept = {"deleted": [2], "better": [0, 3], "rule": [1, 2, 3], "longer": [1, 3]}
    assert await live(registry) == kept[what]


async def test_a_collection_that_changes_all_the_time_is_left_to_the_next_time(
    registry: Registry, pins: PinsInMemory, meddling: Meddling
) -> None:
    await fill(registry, pins, 3)
    await set_rule(registry, keep_last=1)
    meddling.meanwhile = [
        asyncio.sleep(0),
        *(update(registry, "vision/digits:v0", metadata=f'{{"try": {again}}}') for again in range(5)),
    ]
    assert await applied(registry) == []
    assert await applied(registry) == [("digits", 0), ("digits", 1)]


async def test_new_versions_do_not_disturb_the_work(registry: Registry, pins: PinsInMemory, meddling: Meddling) -> None:
    await fill(registry, pins, 3)
    await set_rule(registry, keep_last=1)
    meddling.meanwhile = [asyncio.sleep(0), commit(registry, pins.new_tree())]
    assert await applied(registry) == [("digits", 0), ("digits", 1)]
    # The new one has pushed it out; the next time finds that.
    assert await applied(registry) == [("digits", 2)]


# --- by itself ---


async def test_the_server_applies_retention_by_itself_and_says_so(
    url: str, pins: PinsInMemory, clock: FakeClock
) -> None:
    async with registry_at(url, pins, clock, retention_period_seconds=0) as registry:
        await fill(registry, pins, 3)
        await commit(registry, pins.new_tree(), "others", caller=EVE, ttl_seconds=5)
        await set_rule(registry, keep_last=1)
        clock.seconds += 5
        await RetentionSweep(registry.retention, registry.store, Closing()).run()
        query = sa.select(events).where(events.c.kind == "version.deleted").order_by(events.c.revision)
        told = await rows(registry, query)
        assert [(event.actor, event.origin, json.loads(event.before)["number"]) for event in told] == [
            (ACTOR, "", 0),
            (ACTOR, "", 1),
            (ACTOR, "", 0),
        ]
        assert [json.loads(event.after)["why"] for event in told] == [
            "retention: no part of the rule keeps it",
            "retention: no part of the rule keeps it",
            "retention: its time to live was over at 2027-01-15 08:00:05Z",
        ]


async def test_a_period_runs_it_and_a_start_finishes_what_a_crash_left(
    url: str, pins: PinsInMemory, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "_READ_ROWS", 1)
    monkeypatch.setattr(retention_module, "_PIECE_DELETES", 1)
    async with registry_at(url, pins, clock, retention_period_seconds=0) as registry:
        await fill(registry, pins, 4)
        await set_rule(registry, keep_last=1)
        # One piece, and then the process ends.
        deleted, following = await registry.retention.piece(ANN, Scope(), None)
        assert following is not None
        assert await live(registry) == sorted({0, 1, 2, 3} - {row.facts.number for row in deleted})
        assert len(await live(registry)) > 1
    async with registry_at(url, pins, clock) as registry:
        await until(lambda: has_only(registry, 3))
        assert await rows(registry, sa.select(sa.func.count()).where(versions.c.state == "deleted")) == [(3,)]


async def test_closing_ends_a_sweep_between_two_pieces(
    registry: Registry, pins: PinsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(registry, pins, 3)
    await set_rule(registry, keep_last=1)
    closing = Closing()
    closing.begin()
    await RetentionSweep(registry.retention, registry.store, closing).run()
    assert await live(registry) == [0, 1, 2]


async def test_two_processes_that_sweep_at_once_delete_each_version_once(
    url: str, pins: PinsInMemory, clock: FakeClock
) -> None:
    async with registry_at(url, pins, clock, retention_period_seconds=0) as one:
        await fill(one, pins, 6)
        await set_rule(one, keep_last=1)
        async with registry_at(url, pins, clock, retention_period_seconds=0) as two:
            sweeps = [RetentionSweep(other.retention, other.store, Closing()).run() for other in (one, two)]
            await asyncio.gather(*sweeps)
        assert await live(one) == [5]
        told = await rows(one, sa.select(events.c.version_uid).where(events.c.kind == "version.deleted"))
        assert len(told) == len(set(told)) == 5
