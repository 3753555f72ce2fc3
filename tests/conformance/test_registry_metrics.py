"""What the registry promises of metrics, on each database that it runs on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.errors import InvalidName
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import InvalidMetric
from lading_server.common.settings import Settings
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.metrics import Curve, MetricPoint
from lading_server.registry.store.runs import find_run
from lading_server.registry.store.schema import metric_points
from tests.support.index import DATABASES, FakeClock
from tests.support.registry_rows import ACME, events_of, new_run, opened_registry

SETTINGS = Settings(max_metric_points=50)
LAST_STEP = (1 << 63) - 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, clock, SETTINGS) as opened:
        await new_run(opened, "r1")
        yield opened


async def log(registry: Registry, *points: tuple[str, int, float]) -> None:
    await registry.metrics.log(ACME, "r1", [MetricPoint(*point, 1000) for point in points])


async def curve(
    registry: Registry, key: str = "loss", *, min_step: int = 0, max_step: int | None = None, max_points: int = 0
) -> Curve:
    return await registry.metrics.curve(ACME, "r1", key, min_step=min_step, max_step=max_step, max_points=max_points)


def steps(found: Curve) -> list[int]:
    return [point.step for point in found.points]


# --- log ---


async def test_points_come_back_as_they_were_logged(registry: Registry) -> None:
    values = [0.1, -0.0, 1e308, 5e-324, math.inf, -math.inf]
    await log(registry, *(("loss", step, value) for step, value in enumerate(values)), ("acc", 0, 1.0))
    found = await curve(registry)
    assert found.points == [MetricPoint("loss", step, value, 1000) for step, value in enumerate(values)]
    assert found.total == len(values)


async def test_what_is_not_a_number_is_kept(registry: Registry) -> None:
    await log(registry, ("loss", 0, math.nan), ("loss", 1, 0.5))
    assert [math.isnan(point.value) for point in (await curve(registry)).points] == [True, False]


async def test_a_point_of_the_same_key_and_step_takes_the_place_of_the_old_one(registry: Registry) -> None:
    await log(registry, ("loss", 1, 0.5), ("loss", 2, 0.4))
    await registry.metrics.log(ACME, "r1", [MetricPoint("loss", 1, 0.7, 2000), MetricPoint("loss", 1, math.nan, 3000)])
    first, second = (await curve(registry)).points
    assert (first.step, math.isnan(first.value), first.time_ms) == (1, True, 3000)
    assert second == MetricPoint("loss", 2, 0.4, 1000)


async def test_a_point_without_a_time_gets_that_of_the_server(registry: Registry, clock: FakeClock) -> None:
    clock.seconds += 12
    await registry.metrics.log(ACME, "r1", [MetricPoint("loss", 0, 0.5, 0), MetricPoint("loss", 1, 0.5, -1)])
    assert [point.time_ms for point in (await curve(registry)).points] == [int(clock.seconds * 1000), -1]


async def test_logging_is_a_heartbeat_and_makes_no_event(registry: Registry, clock: FakeClock) -> None:
    before = await events_of(registry)
    clock.seconds += 12
    await registry.metrics.log(ACME, "r1", [])
    assert (await registry.runs.get(ACME, "r1")).run.heartbeat_at_ms == int(clock.seconds * 1000)
    assert await events_of(registry) == before


@pytest.mark.parametrize("key", ["", "k" * 257, "two\nlines", "nul\0", "\u202e"])
async def test_a_key_that_breaks_its_rules_is_refused(registry: Registry, key: str) -> None:
    with pytest.raises(InvalidMetric) as raised:
        await log(registry, ("loss", 0, 0.5), (key, 0, 0.5))
    assert raised.value.metadata == {"key": key}
    with pytest.raises(InvalidMetric):
        await curve(registry, key)
    assert (await curve(registry)).total == 0


async def test_keys_may_hold_any_printable_character(registry: Registry) -> None:
    keys = ["k" * 256, "loss/train (λ=0.1)", "損失", "%s :x ?"]
    await log(registry, *((key, 0, 0.5) for key in keys))
    assert (await registry.runs.get(ACME, "r1")).metric_keys == sorted(keys)
    assert [(await curve(registry, key)).total for key in keys] == [1] * len(keys)


async def test_a_negative_step_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidMetric) as raised:
        await log(registry, ("loss", -1, 0.5))
    assert raised.value.metadata == {"key": "loss", "step": "-1"}


async def test_more_points_than_the_limit_are_refused(registry: Registry) -> None:
    await log(registry, *(("loss", step, 0.5) for step in range(50)))
    with pytest.raises(TooManyItems) as raised:
        await log(registry, *(("loss", step, 0.7) for step in range(51)))
    assert raised.value.metadata == {"limit_name": "max_metric_points", "limit": "50"}
    assert (await curve(registry)).points[0].value == 0.5


async def test_a_malformed_run_id_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidName):
        await registry.metrics.log(ACME, "r 1", [])


async def test_many_writers_of_the_same_points_do_not_hinder_each_other(registry: Registry) -> None:
    batches = [[("loss", step, n) for step in range(50)] for n in range(20)]
    await asyncio.gather(*(log(registry, *(batch if n % 2 else batch[::-1])) for n, batch in enumerate(batches)))
    found = await curve(registry)
    assert found.total == 50
    assert len({point.value for point in found.points}) == 1


# --- read ---


async def test_steps_bound_what_is_read_on_both_sides(registry: Registry) -> None:
    await log(registry, *(("loss", step, 0.5) for step in range(10)))
    found = await curve(registry, min_step=3, max_step=6)
    assert (steps(found), found.total) == ([3, 4, 5, 6], 4)


async def test_a_range_without_points_is_empty(registry: Registry) -> None:
    await log(registry, ("loss", 5, 0.5))
    for found in (
        await curve(registry, "acc"),
        await curve(registry, min_step=6),
        await curve(registry, max_step=4),
        await curve(registry, min_step=7, max_step=3),
        await curve(registry, min_step=-5, max_step=-1),
    ):
        assert found == Curve([], 0)


async def test_a_negative_number_of_points_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidMetric):
        await curve(registry, max_points=-1)


async def test_a_curve_is_bounded_whatever_is_asked_for(tmp_path: Path, clock: FakeClock) -> None:
    async with opened_registry("sqlite", tmp_path, clock, Settings(max_metric_points=2000)) as registry:
        await new_run(registry, "r1")
        for part in range(3):
            await log(registry, *(("loss", part * 1500 + n, 0.5) for n in range(1500)))
        for asked, given_ in ((0, 1000), (1_000_000, 2000), (7, 7), (1, 1)):
            found = await curve(registry, max_points=asked)
            assert (len(found.points), found.total) == (given_, 4500)


async def test_each_range_of_equal_width_gives_its_first_point(registry: Registry) -> None:
    await log(registry, *(("loss", step, step / 2) for step in (10, 11, 12, 13, 25, 26, 39, 49)))
    # 40 steps in four ranges: from 10, 20, 30 and 40.
    assert steps(await curve(registry, max_points=4)) == [10, 25, 39, 49]
    # Of what is asked for only: 10 to 13 in two ranges.
    assert steps(await curve(registry, max_step=13, max_points=2)) == [10, 12]


def thinned(all_steps: Sequence[int], ranges: int) -> list[int]:
    """What the proto says, with numbers of any size."""
    first, span = all_steps[0], all_steps[-1] - all_steps[0] + 1
    firsts: dict[int, int] = {}
    for step in all_steps:
        firsts.setdefault((step - first) * ranges // span, step)
    return list(firsts.values())


_STEPS = st.sets(
    st.integers(0, 60) | st.integers(0, LAST_STEP) | st.integers(LAST_STEP - 60, LAST_STEP), min_size=1, max_size=40
)


# One database for all examples: each takes the points of the one before away.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(all_steps=_STEPS.map(sorted), max_points=st.integers(1, 45))
@example(all_steps=[0, LAST_STEP], max_points=1)
@example(all_steps=[0, 1, LAST_STEP - 1, LAST_STEP], max_points=3)
@example(all_steps=[0, 1, 2, 3, 4, 5, 6], max_points=6)
async def test_a_thinned_curve_is_the_first_point_of_each_range(
    registry: Registry, all_steps: list[int], max_points: int
) -> None:
    async with registry.store.database.write() as connection:
        await connection.execute(sa.delete(metric_points))
    await log(registry, *(("loss", step, step / 3) for step in all_steps))
    found = await curve(registry, max_points=max_points)
    assert found.total == len(all_steps)
    assert len(found.points) <= max_points
    assert found.points == [MetricPoint("loss", step, step / 3, 1000) for step in sorted(steps(found))]
    assert set(steps(found)) <= set(all_steps)
    assert found.points[0].step == all_steps[0]
    if len(all_steps) <= max_points:
        assert steps(found) == all_steps
    else:
        assert steps(found) == thinned(all_steps, max_points)


# --- what a large curve costs ---

_PLAN_POINTS = 100_000


async def _fill(connection: AsyncConnection, run_id: int) -> None:
    """Make points of two keys within the database."""
    numbers = sa.select(sa.literal(0).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n + 1 < _PLAN_POINTS))
    for key in ("acc", "loss"):
        rows = sa.select(sa.literal(run_id), sa.literal(key), numbers.c.n, sa.literal(0.5), sa.literal(0))
        await connection.execute(sa.insert(metric_points).from_select(list(metric_points.c), rows))


async def test_plots_and_summaries_of_large_curves_read_little_more_than_they_show(registry: Registry) -> None:
    """By the databases' own counts: a scan of either curve would read 100,000 rows."""
    database, queries = registry.store.database, registry.store.metrics
    async with database.write() as connection:
        run_id = await find_run(connection, await registry.store.entities.find("acme"), "r1")
        await _fill(connection, run_id)
        if database.dialect == "postgresql":
            await connection.execute(sa.text("ANALYZE metric_points"))
    found = await curve(registry, max_points=50)
    assert (len(found.points), found.total) == (50, _PLAN_POINTS)
    thinning = {"of_run": run_id, "of_key": "loss", "first": 0, "width": 2000, "rest": 0, "ranges": 50}
    assert await _rows_read(registry, queries._thinned.params(thinning)) < 500
    assert await _rows_read(registry, queries._last_values.params(run_ids=[run_id], most_keys=9)) < 50


async def _rows_read(registry: Registry, query: sa.Select[Any]) -> int:
    """Return how many rows of points a query reads; of SQLite, which counts instructions, an upper bound."""
    dialect = registry.store.database.sql_dialect
    text = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True, "render_postcompile": True}))
    async with registry.store.database.read() as connection:
        if dialect.name == "postgresql":
            plan = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}")
            return _rows_of_plan(plan.scalar_one()[0]["Plan"])
        raw: Any = (await connection.get_raw_connection()).driver_connection
        hundreds = [0]

        def count() -> int:
            hundreds[0] += 1
            return 0

        await raw.visit(lambda: raw._connection.set_progress_handler(count, 100))
        assert (await connection.exec_driver_sql(text)).all()
        await raw.visit(lambda: raw._connection.set_progress_handler(None, 0))
        # No row takes fewer than five instructions, and none of these queries more than a hundred a row it returns.
        return hundreds[0]


def _rows_of_plan(node: dict[str, Any]) -> int:
    read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) if "Relation Name" in node else 0
    return int(read * node["Actual Loops"]) + sum(_rows_of_plan(child) for child in node.get("Plans", []))
