"""A registry that keeps what runs say, and can be told to fail. Behind it is no store: only runs are understood."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from lading_proto.registry.v1 import registry_pb2, registry_pb2_grpc, runs_pb2


class RunRegistry(registry_pb2_grpc.RegistryServiceServicer):
    """Understands the calls of one run.

    Attributes:
        calls: Names of the methods that were called, failures included.
        points: `(key, step)` and the value.
        batches: How many points each LogMetrics had.
        failures: How often each method shall fail from now on, and with which code.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.points: dict[tuple[str, int], float] = {}
        self.batches: list[int] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.state = runs_pb2.RUN_STATE_RUNNING
        self.exists = False
        self.heartbeat_interval = 3600.0
        self.failures: dict[str, list[grpc.StatusCode]] = defaultdict(list)
        self._changed = asyncio.Condition()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true after a call."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)

    async def _note(self, method: str, context: Any) -> None:
        async with self._changed:
            self.calls.append(method)
            self._changed.notify_all()
        if self.failures[method]:
            await context.abort(self.failures[method].pop(0), "told to fail")

    async def _done(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _run(self) -> runs_pb2.Run:
        return runs_pb2.Run(
            run_id="r",
            project="p",
            name="r",
            state=self.state,
            config_json=json.dumps(self.config),
            summary_json=json.dumps(self.summary),
        )

    async def WhoAmI(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Everybody is the same."""
        return registry_pb2.WhoAmIResponse(principal="admin", entity="acme")

    async def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Small batches, so that tests see several."""
        limits = [registry_pb2.ServerLimit(name="max_metric_points", value=400)]
        return registry_pb2.GetServerInfoResponse(server_version="0", limits=limits)

    async def CreateRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Make the run, or continue it."""
        await self._note("CreateRun", context)
        created, self.exists = not self.exists, True
        self.config.update(json.loads(request.config_json or "{}"))
        return runs_pb2.CreateRunResponse(run=self._run(), created=created, heartbeat_interval=self.heartbeat_interval)

    async def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell about the run."""
        await self._note("GetRun", context)
        if not self.exists:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such run")
        keys = sorted({key for key, _ in self.points})
        return runs_pb2.GetRunResponse(run=self._run(), metric_keys=keys)

    async def GetMetrics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A curve, thinned as the protocol says: ranges of equal width, the first point of each."""
        await self._note("GetMetrics", context)
        steps = sorted(step for key, step in self.points if key == request.key and step >= request.min_step)
        if len(steps) > request.max_points:
            width = (steps[-1] - steps[0] + 1) / request.max_points
            firsts: dict[int, int] = {}
            for step in steps:
                firsts.setdefault(int((step - steps[0]) / width), step)
            steps = sorted(firsts.values())
        points = [runs_pb2.MetricPoint(key=request.key, step=step) for step in steps]
        return runs_pb2.GetMetricsResponse(points=points)

    async def Heartbeat(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Hear of the run."""
        await self._note("Heartbeat", context)
        return runs_pb2.HeartbeatResponse(state=self.state)

    async def LogMetrics(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Keep points."""
        await self._note("LogMetrics", context)
        self.batches.append(len(request.points))
        self.points.update({(point.key, point.step): point.value for point in request.points})
        await self._done()
        return runs_pb2.LogMetricsResponse()

    async def UpdateRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Set keys."""
        await self._note("UpdateRun", context)
        self.config.update(json.loads(request.config_json or "{}"))
        self.summary.update(json.loads(request.summary_json or "{}"))
        await self._done()
        return runs_pb2.UpdateRunResponse(run=self._run())

    async def FinishRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        """End the run."""
        await self._note("FinishRun", context)
        self.state = request.state
        return runs_pb2.FinishRunResponse(run=self._run())


@asynccontextmanager
async def run_registry() -> AsyncIterator[tuple[RunRegistry, str]]:
    """Serve a RunRegistry on a free port for the length of the block; with its address."""
    servicer = RunRegistry()  # type: ignore[abstract]  # what runs do not call answers UNIMPLEMENTED
    server = grpc.aio.server()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
