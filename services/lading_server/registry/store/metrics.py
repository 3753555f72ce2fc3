"""What runs measured: points by key and step.

Nothing here reads more rows than it returns, but for one count: keys and ranges of steps are found by seeking in the
primary key, so a plot of ten million points costs what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.registry.store.schema import metric_points, runs

_STEP = metric_points.c.step
_COLUMNS = (_STEP, metric_points.c.value, metric_points.c.time_ms)


class MetricPoint(NamedTuple):
    """One measurement. `value` may be infinite or not a number."""

    key: str
    step: int
    value: float
    time_ms: int


class Curve(NamedTuple):
    """Points of one key, sorted by step, and how many there were before they were thinned."""

    points: list[MetricPoint]
    total: int


class MetricQueries:
    """Keeps and finds points. Safe for many tasks at once; each call uses the connection that it is given."""

    def __init__(self, database: Database) -> None:
        new = database.insert(metric_points)
        self._put = new.on_conflict_do_update(
            index_elements=["run_id", "key", "step"],
            set_={"value": new.excluded.value, "time_ms": new.excluded.time_ms},
        )
        self._last_values = _select_last_values()
        self._thinned = _select_thinned()

    async def put(self, connection: AsyncConnection, run_id: int, points: Iterable[MetricPoint]) -> None:
        """Keep points; the last of those of the same key and step takes the place of any other."""
        rows = {
            (point.key, point.step): {
                "run_id": run_id,
                "key": point.key,
                "step": point.step,
                "value": None if math.isnan(point.value) else point.value,
                "time_ms": point.time_ms,
            }
            for point in points
        }
        if rows:
            # In the order of the index, which is faster, and in which no two writers wait for each other.
            await connection.execute(self._put, [row for _, row in sorted(rows.items())])

    async def last_values(
        self, connection: AsyncConnection, run_ids: Sequence[int], most_keys: int
    ) -> dict[int, dict[str, float]]:
        """Return the value at the highest step of each key, sorted by key, of at most so many keys a run.

        Runs without points are left out.
        """
        if not run_ids:
            return {}
        rows = await connection.execute(self._last_values, {"run_ids": list(run_ids), "most_keys": most_keys})
        found: dict[int, dict[str, float]] = {}
        # Sorted here: databases sort text in ways of their own.
        for run_id, key, value in sorted(rows, key=lambda row: (row[0], row[1])):
            found.setdefault(run_id, {})[key] = _value(value)
        return found

    async def curve(
        self,
        connection: AsyncConnection,
        run_id: int,
        key: str,
        *,
        min_step: int,
        max_step: int | None,
        max_points: int,
    ) -> Curve:
        """Return the points of a key between two steps, at most `max_points`, which is 1 or more.

        Where there are more, the steps from the first point's to the last one's are divided into `max_points` ranges
        of equal width, and each that has points gives its first.
        """
        wanted = [metric_points.c.run_id == run_id, metric_points.c.key == key, min_step <= _STEP]
        if max_step is not None:
            wanted.append(max_step >= _STEP)
        step = sa.select(_STEP).where(*wanted).limit(1)
        # The ends by seeking: together with them the count would take twice as long.
        totals = sa.select(
            sa.select(sa.func.count()).select_from(metric_points).where(*wanted).scalar_subquery(),
            step.order_by(_STEP).scalar_subquery(),
            step.order_by(_STEP.desc()).scalar_subquery(),
        )
        total, first, last = (await connection.execute(totals)).one()
        # One range is no range: its width may be more than 64 bits hold.
        if total <= max_points or max_points == 1:
            all_points = sa.select(*_COLUMNS).where(*wanted).order_by(_STEP).limit(max_points)
            rows = await connection.execute(all_points)
        else:
            width, rest = divmod(last - first + 1, max_points)
            rows = await connection.execute(
                self._thinned,
                {"of_run": run_id, "of_key": key, "first": first, "width": width, "rest": rest, "ranges": max_points},
            )
        return Curve([MetricPoint(key, step, _value(value), time_ms) for step, value, time_ms in rows], total)


def _value(stored: float | None) -> float:
    return math.nan if stored is None else stored


def _select_last_values() -> sa.Select[Any]:
    """Go from key to key, and in each to its last step: a GROUP BY would read every point."""
    point = metric_points.alias("point")
    first_key = (
        sa.select(point.c.key).where(point.c.run_id == runs.c.id).order_by(point.c.key).limit(1).scalar_subquery()
    )
    found = (
        sa.select(runs.c.id.label("run_id"), first_key.label("key"), sa.literal(1).label("n"))
        .where(runs.c.id.in_(sa.bindparam("run_ids", expanding=True)))
        .cte("found", recursive=True)
    )
    next_key = (
        sa.select(point.c.key)
        .where(point.c.run_id == found.c.run_id, point.c.key > found.c.key)
        .order_by(point.c.key)
        .limit(1)
        .scalar_subquery()
    )
    found = found.union_all(
        sa.select(found.c.run_id, next_key, found.c.n + 1).where(
            found.c.key.is_not(None), found.c.n < sa.bindparam("most_keys", type_=sa.Integer)
        )
    )
    last_value = (
        sa.select(point.c.value)
        .where(point.c.run_id == found.c.run_id, point.c.key == found.c.key)
        .order_by(point.c.step.desc())
        .limit(1)
        .scalar_subquery()
    )
    return sa.select(found.c.run_id, found.c.key, last_value).where(found.c.key.is_not(None))


def _select_thinned() -> sa.Select[Any]:
    """Seek the first point of each range. Range n begins at `first + n × width + ⌈n × rest ÷ ranges⌉`."""
    of_run, of_key = sa.bindparam("of_run", type_=sa.BigInteger), sa.bindparam("of_key", type_=sa.Text)
    first, width, rest, ranges = (
        sa.bindparam(name, type_=sa.BigInteger) for name in ("first", "width", "rest", "ranges")
    )
    numbers = sa.select(sa.cast(sa.literal(0), sa.BigInteger).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n + 1 < ranges))

    # The steps before a range and at its end, added up in an order in which nothing is more than 64 bits hold.
    n = numbers.c.n
    before = first - 1 + n * width + (n * rest + ranges - 1) // ranges
    end = first - 1 + n * width + width + ((n + 1) * rest + ranges - 1) // ranges
    point = metric_points.alias("point")
    first_step = (
        sa.select(point.c.step)
        .where(
            point.c.run_id == of_run,
            point.c.key == of_key,
            point.c.step > before,
            point.c.step <= end,
        )
        .order_by(point.c.step)
        .limit(1)
        .scalar_subquery()
    )
    chosen = sa.select(first_step.label("step")).select_from(numbers).subquery("chosen")
    return (
        sa.select(*_COLUMNS)
        .join(chosen, chosen.c.step == _STEP)
        .where(metric_points.c.run_id == of_run, metric_points.c.key == of_key)
        .order_by(_STEP)
    )
