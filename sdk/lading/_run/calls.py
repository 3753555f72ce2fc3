"""A run's calls to the registry, each repeated until it has an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lading._errors import InvalidArgument
from lading._json import dump
from lading._registry import convert
from lading._registry.connection import Connection, fresh_request_id, whole_name
from lading._retry import RetryPolicy
from lading._run.metrics import Row
from lading._transport import MESSAGE_BYTES
from lading._version import Version
from lading_proto.registry.v1 import runs_pb2

# A page of what GetMetrics gives: the more, the fewer calls find the last step of a long run.
_CURVE_POINTS = 1000


class RunCalls:
    """What one run says to the registry."""

    def __init__(self, connection: Connection, entity: str, run_id: str, max_points: int) -> None:
        """Take what CreateRun and GetServerInfo answered.

        Args:
            connection: What calls go through.
            entity: The run's tenant.
            run_id: The run.
            max_points: How many metric points a call may have.
        """
        self._connection = connection
        self._entity = entity
        self._run_id = run_id
        self._max_points = max_points

    async def heartbeat(self) -> None:
        """Say that the run lives."""
        request = runs_pb2.HeartbeatRequest(entity=self._entity, run_id=self._run_id)
        await self._connection.call(lambda stub: stub.Heartbeat, request)

    async def log_metrics(self, rows: Sequence[Row], policy: RetryPolicy | None = None) -> None:
        """Keep measurements. Sending some of them again does no harm."""
        points = [
            runs_pb2.MetricPoint(key=key, step=row.step, value=value, time_ms=row.time_ms)
            for row in rows
            for key, value in row.values.items()
        ]
        for first in range(0, len(points), self._max_points):
            part = points[first : first + self._max_points]
            request = runs_pb2.LogMetricsRequest(entity=self._entity, run_id=self._run_id, points=part)
            await self._connection.call(lambda stub: stub.LogMetrics, request, policy=policy)

    async def update(
        self, config: Mapping[str, Any], summary: Mapping[str, Any], policy: RetryPolicy | None = None
    ) -> None:
        """Set keys of the config and of the summary.

        Raises:
            InvalidArgument: They are more than the server takes, or than a message holds. Trying again is of no use.
        """
        request = runs_pb2.UpdateRunRequest(
            entity=self._entity,
            run_id=self._run_id,
            config_json=dump(config) if config else "",
            summary_json=dump(summary) if summary else "",
            request_id=fresh_request_id(),
        )
        # gRPC would refuse it as it does what passes once there is room again.
        if request.ByteSize() > MESSAGE_BYTES:
            sizes = (
                f"{name} with {len(text.encode()):,} bytes"
                for name, text in (("config", request.config_json), ("summary", request.summary_json))
                if text
            )
            raise InvalidArgument(
                f"What was set of {' and '.join(sizes)} is too large for a message, which holds {MESSAGE_BYTES:,}. "
                "Keep large things in a file, and log that as an artifact."
            )
        await self._connection.call(lambda stub: stub.UpdateRun, request, policy=policy)

    async def finish(self, *, failed: bool, policy: RetryPolicy | None = None) -> None:
        """End the run."""
        state = runs_pb2.RUN_STATE_FAILED if failed else runs_pb2.RUN_STATE_FINISHED
        request = runs_pb2.FinishRunRequest(
            entity=self._entity, run_id=self._run_id, state=state, request_id=fresh_request_id()
        )
        await self._connection.call(lambda stub: stub.FinishRun, request, policy=policy)

    async def use(self, reference: str | Version, type: str) -> Version:  # noqa: A002
        """Resolve a reference, and keep that the run used what it means."""
        name = await self._connection.version_name(reference)
        if name.entity != self._entity:
            raise InvalidArgument(
                f"{name} is of another entity than this run, {self._entity!r}. Download it, and log it as your own."
            )
        request = runs_pb2.UseVersionRequest(
            entity=self._entity,
            run_id=self._run_id,
            reference=whole_name(name),
            type=type,
            request_id=fresh_request_id(),
        )
        response = await self._connection.call(lambda stub: stub.UseVersion, request)
        return convert.version(response.version, self._entity, self._connection)

    async def last_step(self) -> int:
        """Return the largest step that the run logged, -1 if it logged none."""
        request = runs_pb2.GetRunRequest(entity=self._entity, run_id=self._run_id)
        response = await self._connection.call(lambda stub: stub.GetRun, request)
        last = -1
        for key in response.metric_keys:
            last = await self._last_step_of(key, last)
        return last

    async def _last_step_of(self, key: str, last: int) -> int:
        """Return the largest step of a metric that is larger than `last`, or else `last`.

        A curve with more points than asked for is thinned to the first of each of as many ranges; so each call leaves
        the last of a thousand ranges to be looked into.
        """
        while True:
            request = runs_pb2.GetMetricsRequest(
                entity=self._entity, run_id=self._run_id, key=key, min_step=last + 1, max_points=_CURVE_POINTS
            )
            response = await self._connection.call(lambda stub: stub.GetMetrics, request)
            if not response.points:
                return last
            last = response.points[-1].step
