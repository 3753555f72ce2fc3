"""What the registry promises of runs, on each database that it runs on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import (
    CollectionNotFound,
    InvalidMetadata,
    InvalidState,
    RequestIdReused,
    RunEnded,
    RunExists,
    RunNotFound,
    TypeMismatch,
    VersionNotFound,
)
from lading_server.common.settings import Settings
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.registry import Registry
from lading_server.registry.domain.run_sweeper import RunSweeper
from lading_server.registry.domain.runs import NewRun
from lading_server.registry.domain.summaries import set_keys, with_last_values
from lading_server.registry.store.metrics import MetricPoint
from lading_server.registry.store.schema import RunState
from tests.support.index import DATABASES, FakeClock
from tests.support.registry_rows import (
    ACME,
    MODELS,
    delete,
    events_of,
    log,
    new_run,
    new_version,
    opened_registry,
    use,
)

SETTINGS = Settings(run_timeout_seconds=300, max_metadata_bytes=200)
OTHER = Caller("globex", "gus")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, clock, SETTINGS) as opened:
        yield opened


@pytest.fixture
async def sweeper(registry: Registry) -> AsyncIterator[RunSweeper]:
    """One whose own first sweep is far off: tests call it."""
    sweeper = RunSweeper(SETTINGS, registry.store)
    yield sweeper
    await sweeper.close()


async def state_of(registry: Registry, run: str) -> RunState:
    return (await registry.runs.get(ACME, run)).run.state


# --- create ---


async def test_a_new_run_is_running_and_has_what_it_was_created_with(registry: Registry, clock: FakeClock) -> None:
    row, created = await registry.runs.create(ACME, NewRun("digits", "r1", "First", "train", '{"lr": 0.1}'), "")
    assert created
    assert (row.project, row.run, row.name, row.job_type) == ("digits", "r1", "First", "train")
    assert (row.state, row.config, row.summary) == (RunState.RUNNING, '{"lr":0.1}', "{}")
    assert row.created_at_ms == row.heartbeat_at_ms == int(clock.seconds * 1000)
    assert (row.ended_at_ms, row.created_by) == (None, "ann")
    assert (await registry.runs.get(ACME, "r1")).run == row


async def test_a_run_without_an_id_gets_one_and_is_called_by_it(registry: Registry) -> None:
    rows = [(await registry.runs.create(ACME, NewRun("digits", "", "", "", ""), ""))[0] for _ in range(2)]
    assert rows[0].run != rows[1].run
    assert [row.name for row in rows] == [row.run for row in rows]


async def test_creating_a_run_makes_the_project_and_both_events(registry: Registry) -> None:
    await new_run(registry, "r1", config='{"lr": 0.1}')
    project, run = await events_of(registry)
    assert (project["kind"], project["project"]) == ("project.created", "digits")
    assert (run["kind"], run["project"], run["run"], run["actor"]) == ("run.created", "digits", "r1", "ann")
    assert run["before"] is None
    assert run["after"] == {"name": "r1", "job_type": "train", "state": "running", "config": {"lr": 0.1}}


async def test_a_run_that_is_there_is_continued_and_keeps_its_name(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1", config='{"lr": 0.1, "epochs": 3}')
    await registry.runs.finish(ACME, "r1", RunState.FAILED, "", "")
    clock.seconds += 5
    row, created = await registry.runs.create(ACME, NewRun("digits", "r1", "Other", "eval", '{"lr": 0.2}'), "")
    assert not created
    assert (row.state, row.ended_at_ms, row.name, row.job_type) == (RunState.RUNNING, None, "r1", "train")
    assert json.loads(row.config) == {"lr": 0.2, "epochs": 3}
    assert row.heartbeat_at_ms == int(clock.seconds * 1000) == row.created_at_ms + 5000
    (event,) = await events_of(registry, "run.resumed")
    assert event["before"] == {"state": "failed", "config": {"lr": 0.1}}
    assert event["after"] == {"state": "running", "config": {"lr": 0.2}}


async def test_continuing_a_run_that_runs_makes_an_event_only_where_the_config_changes(registry: Registry) -> None:
    await new_run(registry, "r1", config='{"lr": 1}')
    await new_run(registry, "r1", config='{"lr": 1}')
    assert await events_of(registry, "run.updated", "run.resumed") == []
    # The same number to Python, and not the same JSON.
    await new_run(registry, "r1", config='{"lr": 1.0}')
    (event,) = await events_of(registry, "run.updated", "run.resumed")
    assert (event["kind"], str(event["after"])) == ("run.updated", "{'config': {'lr': 1.0}}")


async def test_a_run_of_another_project_is_not_continued(registry: Registry) -> None:
    await new_run(registry, "r1")
    with pytest.raises(RunExists) as raised:
        await registry.runs.create(ACME, NewRun("letters", "r1", "", "", ""), "")
    assert raised.value.metadata == {"project": "digits"}
    assert [event["kind"] for event in await events_of(registry)] == ["project.created", "run.created"]


async def test_entities_have_runs_of_their_own(registry: Registry) -> None:
    await new_run(registry, "r1", config='{"lr": 1}')
    row, created = await registry.runs.create(OTHER, NewRun("letters", "r1", "", "", ""), "")
    assert created
    assert row.config == "{}"
    assert (await registry.runs.get(ACME, "r1")).run.project == "digits"


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewRun("", "", "", "", ""), "project"),
        (NewRun("digits", "a b", "", "", ""), "run_id"),
        (NewRun("digits", "r" * 65, "", "", ""), "run_id"),
        (NewRun("digits", "", "n" * 257, "", ""), "name"),
        (NewRun("digits", "", "", "two\nlines", ""), "job_type"),
    ],
)
async def test_names_that_break_their_rules_are_refused(registry: Registry, new: NewRun, field: str) -> None:
    with pytest.raises(InvalidName) as raised:
        await registry.runs.create(ACME, new, "")
    assert raised.value.metadata == {"field": field}


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[1]",
        '{"a": NaN}',
        '{"a": 1e999}',
        r'{"a": "\ud800"}',
        '{"a": "' + "x" * 200 + '"}',
        '{"a": ' * 33 + "1" + "}" * 33,
    ],
)
async def test_a_config_that_cannot_be_kept_is_refused(registry: Registry, config: str) -> None:
    with pytest.raises(InvalidMetadata) as raised:
        await new_run(registry, "r1", config=config)
    assert raised.value.metadata == {"field": "config_json"}


async def test_a_config_that_would_grow_too_large_is_refused_and_left_alone(registry: Registry) -> None:
    await new_run(registry, "r1", config=json.dumps({"a": "x" * 150}))
    with pytest.raises(InvalidMetadata):
        await registry.runs.update(ACME, "r1", json.dumps({"b": "x" * 150}), "", "")
    assert list(json.loads((await registry.runs.get(ACME, "r1")).run.config)) == ["a"]


async def test_fifty_creations_of_one_run_make_one(registry: Registry) -> None:
    new = NewRun("digits", "r1", "", "", "")
    results = await asyncio.gather(*(registry.runs.create(ACME, new, "") for _ in range(50)))
    assert sum(created for _, created in results) == 1
    assert len(await events_of(registry, "run.created")) == 1


# --- the same request twice ---


async def test_a_creation_that_is_sent_again_gives_the_run_that_was_made(registry: Registry) -> None:
    new = NewRun("digits", "", "", "", '{"lr": 1}')
    first = await registry.runs.create(ACME, new, "q1")
    assert await registry.runs.create(ACME, new, "q1") == first
    assert first[1]
    assert len(await events_of(registry, "run.created")) == 1


async def test_a_creation_that_is_sent_again_does_not_revive_the_run(registry: Registry) -> None:
    new = NewRun("digits", "r1", "", "", "")
    await registry.runs.create(ACME, new, "q1")
    await registry.runs.finish(ACME, "r1", RunState.FINISHED, "", "")
    row, created = await registry.runs.create(ACME, new, "q1")
    assert (row.state, created) == (RunState.FINISHED, True)


async def test_an_update_and_an_end_that_are_sent_again_change_nothing_more(registry: Registry) -> None:
    await new_run(registry, "r1")
    await registry.runs.update(ACME, "r1", "", '{"a": 1}', "q1")
    await registry.runs.update(ACME, "r1", "", '{"a": 2}', "q2")
    again = await registry.runs.update(ACME, "r1", "", '{"a": 1}', "q1")
    assert json.loads(again.summary) == {"a": 2}
    await registry.runs.finish(ACME, "r1", RunState.FINISHED, '{"a": 3}', "q3")
    await registry.runs.update(ACME, "r1", "", '{"a": 4}', "q4")
    ended = await registry.runs.finish(ACME, "r1", RunState.FINISHED, '{"a": 3}', "q3")
    assert json.loads(ended.summary) == {"a": 4}


async def test_a_use_that_is_sent_again_gives_what_the_reference_meant(registry: Registry) -> None:
    await new_run(registry, "r1")
    old = await new_version(registry, "digits/train", aliased=("best",))
    first = await registry.lineage.use_version(ACME, "r1", "digits/train:best", "", "q1")
    await delete(registry, await new_version(registry, "digits/train"))
    again = await registry.lineage.use_version(ACME, "r1", "digits/train:best", "", "q1")
    assert again.uid == first.uid == old.uid
    assert len(await events_of(registry, "version.used")) == 1


async def test_a_use_that_is_sent_again_is_answered_as_before_although_the_version_is_gone(registry: Registry) -> None:
    await new_run(registry, "r1")
    version = await new_version(registry, "digits/train", aliased=("best",))
    first = await registry.lineage.use_version(ACME, "r1", "digits/train:best", "", "q1")
    assert first.aliases == ("best",)
    await registry.versions.delete(ACME, reference_of(ACME, version.name), force=True)
    assert await registry.lineage.use_version(ACME, "r1", "digits/train:best", "", "q1") == first
    with pytest.raises(VersionNotFound):
        await registry.lineage.use_version(ACME, "r1", "digits/train:best", "", "q2")


async def test_a_request_id_of_another_call_is_refused(registry: Registry) -> None:
    await registry.runs.create(ACME, NewRun("digits", "r1", "", "", ""), "q1")
    version = await new_version(registry, "digits/train")
    for call in (
        registry.runs.create(ACME, NewRun("digits", "r2", "", "", ""), "q1"),
        registry.runs.update(ACME, "r1", "", "", "q1"),
        registry.runs.finish(ACME, "r1", RunState.FINISHED, "", "q1"),
        registry.lineage.use_version(ACME, "r1", version.name, "", "q1"),
    ):
        with pytest.raises(RequestIdReused):
            await call


async def test_a_malformed_request_id_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidName) as raised:
        await registry.runs.update(ACME, "r1", "", "", "not one")
    assert raised.value.metadata == {"field": "request_id"}


# --- update and end ---


async def test_an_update_sets_keys_and_tells_only_what_changed(registry: Registry) -> None:
    await new_run(registry, "r1", config='{"lr": 1, "net": {"a": 1, "b": 2}}')
    row = await registry.runs.update(ACME, "r1", '{"lr": 1, "net": {"a": 3}}', '{"f1": 0.5}', "")
    assert json.loads(row.config) == {"lr": 1, "net": {"a": 3}}
    assert json.loads(row.summary) == {"f1": 0.5}
    (event,) = await events_of(registry, "run.updated")
    assert event["before"] == {"config": {"net": {"a": 1, "b": 2}}, "summary": {}}
    assert event["after"] == {"config": {"net": {"a": 3}}, "summary": {"f1": 0.5}}


async def test_an_update_that_changes_nothing_is_a_heartbeat_and_no_event(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1", config='{"lr": 1}')
    clock.seconds += 7
    row = await registry.runs.update(ACME, "r1", '{"lr": 1}', "", "")
    assert row.heartbeat_at_ms == row.created_at_ms + 7000
    assert await events_of(registry, "run.updated") == []


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.FAILED])
async def test_an_end_is_kept_with_its_time_and_its_event(
    registry: Registry, clock: FakeClock, state: RunState
) -> None:
    await new_run(registry, "r1")
    clock.seconds += 60
    row = await registry.runs.finish(ACME, "r1", state, '{"f1": 0.5}', "")
    assert (row.state, row.ended_at_ms) == (state, int(clock.seconds * 1000))
    (event,) = await events_of(registry, "run.ended")
    assert event["before"] == {"state": "running", "summary": {}}
    assert event["after"] == {"state": state.value, "summary": {"f1": 0.5}}


async def test_an_end_that_is_told_again_keeps_its_time_and_sets_the_summary(
    registry: Registry, clock: FakeClock
) -> None:
    await new_run(registry, "r1")
    first = await registry.runs.finish(ACME, "r1", RunState.FINISHED, "", "")
    clock.seconds += 60
    again = await registry.runs.finish(ACME, "r1", RunState.FINISHED, '{"f1": 0.5}', "")
    assert (again.ended_at_ms, json.loads(again.summary)) == (first.ended_at_ms, {"f1": 0.5})
    assert len(await events_of(registry, "run.ended")) == 1


async def test_a_run_that_ended_in_another_way_is_refused(registry: Registry) -> None:
    await new_run(registry, "r1")
    await registry.runs.finish(ACME, "r1", RunState.FINISHED, "", "")
    with pytest.raises(RunEnded) as raised:
        await registry.runs.finish(ACME, "r1", RunState.FAILED, '{"f1": 0.5}', "")
    assert raised.value.metadata == {"state": "finished"}
    assert (await registry.runs.get(ACME, "r1")).run.summary == "{}"


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.CRASHED])
async def test_a_run_cannot_be_ended_as_what_is_no_end(registry: Registry, state: RunState) -> None:
    await new_run(registry, "r1")
    with pytest.raises(InvalidState):
        await registry.runs.finish(ACME, "r1", state, "", "")


async def test_a_summary_that_cannot_be_kept_is_refused_by_update_and_end(registry: Registry) -> None:
    await new_run(registry, "r1")
    for call in (
        registry.runs.update(ACME, "r1", "", "[]", ""),
        registry.runs.finish(ACME, "r1", RunState.FINISHED, "[]", ""),
    ):
        with pytest.raises(InvalidMetadata) as raised:
            await call
        assert raised.value.metadata == {"field": "summary_json"}


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_run_that_is_not_there_is_told_by_every_call(registry: Registry, is_known: bool) -> None:
    """Whether anything was ever stored for the entity, or not."""
    if is_known:
        await registry.runs.create(OTHER, NewRun("letters", "r2", "", "", ""), "")
    await new_run(registry, "r1")
    for call in (
        registry.runs.get(OTHER, "r1"),
        registry.runs.update(OTHER, "r1", "", "", ""),
        registry.runs.beat(OTHER, "r1"),
        registry.runs.finish(OTHER, "r1", RunState.FINISHED, "", ""),
        registry.metrics.log(OTHER, "r1", [MetricPoint("loss", 0, 1.0, 0)]),
        registry.metrics.curve(OTHER, "r1", "loss", min_step=0, max_step=None, max_points=0),
        registry.lineage.use_version(OTHER, "r1", "letters/train", "", ""),
    ):
        with pytest.raises(RunNotFound) as raised:
            await call
        assert raised.value.metadata == {"run_id": "r1"}


# --- heartbeats ---


async def test_a_heartbeat_is_kept_and_makes_no_event(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1")
    clock.seconds += 30
    assert await registry.runs.beat(ACME, "r1") is RunState.RUNNING
    row = (await registry.runs.get(ACME, "r1")).run
    assert row.heartbeat_at_ms == row.created_at_ms + 30_000
    assert [event["kind"] for event in await events_of(registry)] == ["project.created", "run.created"]


async def test_a_heartbeat_is_never_taken_back_by_a_clock_that_is_behind(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1")
    clock.seconds += 30
    await registry.runs.beat(ACME, "r1")
    heard_ms = int(clock.seconds * 1000)
    clock.seconds -= 10
    await registry.runs.beat(ACME, "r1")
    row = await registry.runs.update(ACME, "r1", '{"lr": 1}', "", "")
    assert row.heartbeat_at_ms == heard_ms


async def test_what_was_ended_stays_so_when_it_beats(registry: Registry) -> None:
    await new_run(registry, "r1")
    await registry.runs.finish(ACME, "r1", RunState.FAILED, "", "")
    assert await registry.runs.beat(ACME, "r1") is RunState.FAILED


async def test_only_a_run_that_is_silent_for_the_whole_time_counts_as_crashed(
    registry: Registry, clock: FakeClock, sweeper: RunSweeper
) -> None:
    heard_ms = int(clock.seconds * 1000)
    for run in ("silent", "beating", "ended"):
        await new_run(registry, run)
    await registry.runs.finish(ACME, "ended", RunState.FINISHED, "", "")
    clock.seconds += 300
    assert await sweeper.sweep() == 0
    await registry.runs.beat(ACME, "beating")
    clock.seconds += 1
    assert await sweeper.sweep() == 1
    assert await state_of(registry, "beating") is RunState.RUNNING
    assert await state_of(registry, "ended") is RunState.FINISHED
    row = (await registry.runs.get(ACME, "silent")).run
    assert (row.state, row.ended_at_ms) == (RunState.CRASHED, heard_ms)
    (event,) = await events_of(registry, "run.crashed")
    assert (event["actor"], event["run"], event["project"]) == ("server", "silent", "digits")
    assert event["before"] == {"state": "running"}
    assert event["after"] == {"state": "crashed", "heartbeat_at_ms": heard_ms}
    assert await sweeper.sweep() == 0


async def test_silent_runs_of_every_entity_are_found(
    registry: Registry, clock: FakeClock, sweeper: RunSweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading_server.registry.domain.run_sweeper._SWEEP_RUNS", 2)
    for caller in (ACME, OTHER):
        for n in range(3):
            await new_run(registry, f"r{n}", caller=caller)
    clock.seconds += 301
    assert await sweeper.sweep() == 6
    assert len({(event["entity_id"], event["run"]) for event in await events_of(registry, "run.crashed")}) == 6


@pytest.mark.parametrize("how", ["beat", "update", "metrics", "use"])
async def test_a_crashed_run_that_is_heard_of_is_running_again(
    registry: Registry, clock: FakeClock, sweeper: RunSweeper, how: str
) -> None:
    await new_run(registry, "r1")
    version = await new_version(registry, "digits/train")
    clock.seconds += 301
    await sweeper.sweep()
    if how == "beat":
        assert await registry.runs.beat(ACME, "r1") is RunState.RUNNING
    elif how == "update":
        await registry.runs.update(ACME, "r1", '{"lr": 1}', "", "")
    elif how == "metrics":
        await registry.metrics.log(ACME, "r1", [MetricPoint("loss", 0, 0.5, 0)])
        assert (await registry.runs.get(ACME, "r1")).metric_keys == ["loss"]
    else:
        await use(registry, "r1", version)
    row = (await registry.runs.get(ACME, "r1")).run
    assert (row.state, row.ended_at_ms, row.heartbeat_at_ms) == (RunState.RUNNING, None, int(clock.seconds * 1000))
    (event,) = await events_of(registry, "run.resumed")
    assert (event["actor"], event["before"], event["after"]) == ("ann", {"state": "crashed"}, {"state": "running"})


async def test_a_crashed_run_can_be_ended(registry: Registry, clock: FakeClock, sweeper: RunSweeper) -> None:
    await new_run(registry, "r1")
    clock.seconds += 301
    await sweeper.sweep()
    row = await registry.runs.finish(ACME, "r1", RunState.FINISHED, "", "")
    assert (row.state, row.ended_at_ms) == (RunState.FINISHED, int(clock.seconds * 1000))
    (event,) = await events_of(registry, "run.ended")
    assert event["before"] == {"state": "crashed"}


async def test_the_sweeper_goes_by_itself_until_it_is_closed(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1")
    clock.seconds += 301
    sweeper = RunSweeper(Settings(run_timeout_seconds=0.01), registry.store)
    async with asyncio.timeout(30):
        while await state_of(registry, "r1") is not RunState.CRASHED:
            pass
    await sweeper.close()


# --- the summary, inputs and outputs ---


async def test_the_summary_has_the_last_value_of_each_metric_unless_it_was_set(registry: Registry) -> None:
    await new_run(registry, "r1")
    points = [("loss", 2, 0.2), ("loss", 10, 0.1), ("acc", 1, 0.9), ("bad", 0, float("nan")), ("up", 0, float("inf"))]
    await registry.metrics.log(ACME, "r1", [MetricPoint(*point, 0) for point in points])
    await registry.metrics.log(ACME, "r1", [MetricPoint("loss", 1, 0.3, 0), MetricPoint("down", 0, -float("inf"), 0)])
    await registry.runs.update(ACME, "r1", "", '{"acc": "best 0.95", "note": 1}', "")
    details = await registry.runs.get(ACME, "r1")
    assert details.metric_keys == ["acc", "bad", "down", "loss", "up"]
    assert json.loads(details.run.summary, parse_constant=pytest.fail) == {
        "acc": "best 0.95",
        "note": 1,
        "loss": 0.1,
        "bad": "NaN",
        "up": "Infinity",
        "down": "-Infinity",
    }


async def test_the_summary_has_metrics_wherever_a_run_is_answered(registry: Registry) -> None:
    await new_run(registry, "r1")
    await registry.metrics.log(ACME, "r1", [MetricPoint("loss", 0, 0.5, 0)])
    rows = [
        (await registry.runs.create(ACME, NewRun("digits", "r1", "", "", ""), ""))[0],
        await registry.runs.update(ACME, "r1", "", "", ""),
        await registry.runs.finish(ACME, "r1", RunState.FINISHED, "", ""),
    ]
    assert {row.summary for row in rows} == {'{"loss":0.5}'}


async def test_last_values_of_many_runs_are_not_mixed_and_keys_are_bounded(registry: Registry) -> None:
    for run in ("r1", "r2", "r3"):
        await new_run(registry, run)
    await registry.metrics.log(ACME, "r1", [MetricPoint(f"k{n}", 0, n, 0) for n in range(9)])
    await registry.metrics.log(ACME, "r3", [MetricPoint("k1", 5, 55.0, 0)])
    rows = {run: (await registry.runs.get(ACME, run)).run for run in ("r1", "r2", "r3")}
    ids = [row.id for row in rows.values()]
    async with registry.store.database.read() as connection:
        found = await registry.store.metrics.last_values(connection, ids, 3)
    assert found == {rows["r1"].id: {"k0": 0.0, "k1": 1.0, "k2": 2.0}, rows["r3"].id: {"k1": 55.0}}


async def test_a_run_tells_what_it_used_and_logged_in_that_order(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1")
    first, second, gone, made = [await new_version(registry, f"digits/{name}", description="long") for name in "abcd"]
    for version in (second, gone, first, second):
        clock.seconds += 1
        await use(registry, "r1", version)
    await log(registry, "r1", made)
    await delete(registry, gone)
    details = await registry.runs.get(ACME, "r1")
    assert [version.uid for version in details.inputs] == [second.uid, first.uid]
    assert [version.uid for version in details.outputs] == [made.uid]
    assert {version.description for version in details.inputs} == {""}


# --- use ---


async def test_a_use_tells_what_was_meant_and_is_kept_once(registry: Registry) -> None:
    await new_run(registry, "r1")
    version = await new_version(registry, "digits/train", aliased=("best",), description="# Card")
    for reference in ("digits/train:best", "lading://acme/digits/train:v0"):
        row = await registry.lineage.use_version(ACME, "r1", reference, "dataset", "")
        assert (row.uid, row.description) == (version.uid, "# Card")
    (event,) = await events_of(registry, "version.used")
    assert (event["project"], event["collection"], event["run"]) == ("digits", "train", "r1")
    assert event["version_uid"] == version.uid


async def test_a_link_is_used_as_the_link(registry: Registry) -> None:
    await new_run(registry, "r1")
    source = await new_version(registry, "digits/mlp", type_name="model")
    link = await new_version(registry, f"{MODELS}/Digit Reader", type_name="model", source=source)
    await use(registry, "r1", link)
    (row,) = (await registry.runs.get(ACME, "r1")).inputs
    assert (row.uid, row.source_uid) == (link.uid, source.uid)


async def test_a_version_of_another_type_is_refused_and_not_used(registry: Registry, clock: FakeClock) -> None:
    await new_run(registry, "r1")
    version = await new_version(registry, "digits/train")
    clock.seconds += 9
    with pytest.raises(TypeMismatch) as raised:
        await registry.lineage.use_version(ACME, "r1", version.name, "model", "")
    assert raised.value.metadata == {"expected": "model", "actual": "dataset"}
    details = await registry.runs.get(ACME, "r1")
    assert (details.inputs, details.run.heartbeat_at_ms) == ([], details.run.created_at_ms)


@pytest.mark.parametrize("reference", ["digits/train:best", "digits/train:v7", "digits/train@b3:" + "0" * 64])
async def test_a_version_that_is_not_there_is_told(registry: Registry, reference: str) -> None:
    await new_run(registry, "r1")
    await new_version(registry, "digits/train")
    with pytest.raises(VersionNotFound):
        await registry.lineage.use_version(ACME, "r1", reference, "", "")


async def test_a_collection_of_another_entity_is_not_there(registry: Registry) -> None:
    await new_run(registry, "r1")
    await new_version(registry, "digits/train", caller=OTHER)
    with pytest.raises(CollectionNotFound):
        await registry.lineage.use_version(ACME, "r1", "digits/train:v0", "", "")


@pytest.mark.parametrize("reference", ["globex/digits/train:v0", "train:v0", "digits/t r", "a/b/c/d"])
async def test_a_reference_that_cannot_be_meant_is_refused(registry: Registry, reference: str) -> None:
    await new_run(registry, "r1")
    with pytest.raises(InvalidName):
        await registry.lineage.use_version(ACME, "r1", reference, "", "")


async def test_a_malformed_type_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidName) as raised:
        await registry.lineage.use_version(ACME, "r1", "digits/train", "a type", "")
    assert raised.value.metadata == {"field": "type"}


# --- pure ---

_VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.lists(st.integers(0, 1), max_size=1)
_OBJECTS = st.dictionaries(st.text("ab", max_size=2), _VALUES, max_size=4)


@given(_OBJECTS, _OBJECTS)
def test_setting_keys_can_be_replayed_and_undone(old: dict[str, object], new: dict[str, object]) -> None:
    merge = set_keys(json.dumps(old), new, "config_json", 10_000)
    whole = json.loads(merge.text)
    assert json.dumps(whole, sort_keys=True) == json.dumps(old | new, sort_keys=True)
    assert json.dumps(old | merge.after, sort_keys=True) == json.dumps(whole, sort_keys=True)
    undone = {key: value for key, value in whole.items() if key not in merge.after} | merge.before
    assert json.dumps(undone, sort_keys=True) == json.dumps(old, sort_keys=True)


@given(_OBJECTS, st.dictionaries(st.text("ab", max_size=2), st.floats(), max_size=4))
def test_a_summary_with_metrics_is_json_and_keeps_what_was_set(old: dict[str, object], last: dict[str, float]) -> None:
    whole = json.loads(with_last_values(json.dumps(old), last), parse_constant=pytest.fail)
    assert set(whole) == set(old) | set(last)
    assert json.dumps({key: whole[key] for key in old}) == json.dumps(old)
