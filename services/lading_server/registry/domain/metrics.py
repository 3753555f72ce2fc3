"""Metrics of runs: points that are kept, and curves that are read back."""

from __future__ import annotations

from collections.abc import Sequence

from lading_format.names import check_run_id
from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.registry_errors import InvalidMetric
from lading_server.common.settings import Settings
from lading_server.registry.domain.runs import Runs
from lading_server.registry.store.metrics import Curve, MetricPoint
from lading_server.registry.store.runs import find_run, run_not_found
from lading_server.registry.store.store import RegistryStore

_MOST_KEY_CHARACTERS = 256
# What a plot of the width of a screen can show.
_DEFAULT_POINTS = 1000


class MetricCurves:
    """The metrics of every run. Each call is inside the entity of its caller."""

    def __init__(self, settings: Settings, store: RegistryStore, runs: Runs) -> None:
        self._store = store
        self._runs = runs
        self._max_points = settings.max_metric_points

    async def log(self, caller: Caller, run: str, points: Sequence[MetricPoint]) -> None:
        """Keep points of a run, all or none, and count it as a heartbeat.

        A point without a time gets that of the server. Runs that log do not wait for changes, nor for each other where
        the database has several writers.

        Raises:
            InvalidName, InvalidMetric: A field breaks its rules.
            TooManyItems: More points than `max_metric_points`.
            RunNotFound: The entity has no such run.
        """
        check_run_id(run)
        if len(points) > self._max_points:
            raise TooManyItems(
                f"the request has {len(points):,} points and max_metric_points is {self._max_points:,}; send several",
                limit_name="max_metric_points",
                limit=self._max_points,
            )
        for point in points:
            _check_point(point)
        entity_id = await self._store.entities.find(caller.entity)
        if entity_id is None:
            raise run_not_found(run)
        now_ms = self._store.now_ms()
        timed = [point if point.time_ms else point._replace(time_ms=now_ms) for point in points]
        async with self._store.database.write() as connection:
            beat = await self._store.runs.beat(connection, entity_id, run, now_ms)
            if beat is not None:
                await self._store.metrics.put(connection, beat.run_id, timed)
        if beat is None:
            async with self._store.change(caller) as change:
                row = await self._runs.revive(change, run)
                await self._store.metrics.put(change.connection, row.id, timed)

    async def curve(
        self, caller: Caller, run: str, key: str, *, min_step: int, max_step: int | None, max_points: int
    ) -> Curve:
        """Return one key's points, thinned to `max_points`; 0 for 1,000.

        Raises:
            InvalidName, InvalidMetric: A field breaks its rules.
            RunNotFound: The entity has no such run.
        """
        check_run_id(run)
        _check_key(key)
        if max_points < 0:
            raise InvalidMetric(f"max_points is {max_points}; give 0 for the default, or how many you want", key=key)
        entity_id = await self._store.entities.find(caller.entity)
        async with self._store.database.read() as connection:
            run_id = await find_run(connection, entity_id, run)
            return await self._store.metrics.curve(
                connection,
                run_id,
                key,
                min_step=min_step,
                max_step=max_step,
                max_points=min(max_points or _DEFAULT_POINTS, self._max_points),
            )


def _check_point(point: MetricPoint) -> None:
    _check_key(point.key)
    if point.step < 0:
        raise InvalidMetric(
            f"metric {point.key!r} has step {point.step}; steps count from 0", key=point.key, step=point.step
        )


def _check_key(key: str) -> None:
    if not key or len(key) > _MOST_KEY_CHARACTERS or not key.isprintable():
        raise InvalidMetric(
            f"metric key {key[:80]!r} is not usable: use 1 to {_MOST_KEY_CHARACTERS} printable characters", key=key
        )
