"""The methods of RegistryService about runs, metrics and lineage."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lading_proto.registry.v1 import lineage_pb2, registry_pb2_grpc, runs_pb2
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service import convert_runs as convert
from lading_server.registry.service.callers import caller_of
from lading_server.registry.service.convert import version_to_proto

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RunsServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Serves one Registry."""

    _registry: Registry

    async def CreateRun(self, request: runs_pb2.CreateRunRequest, context: Context) -> runs_pb2.CreateRunResponse:
        caller = caller_of(request.entity, context)
        new = convert.new_run_from_proto(request)
        row, created = await self._registry.runs.create(caller, new, request.request_id)
        return runs_pb2.CreateRunResponse(
            run=convert.run_to_proto(row),
            created=created,
            heartbeat_interval=self._registry.runs.heartbeat_seconds,
        )

    async def GetRun(self, request: runs_pb2.GetRunRequest, context: Context) -> runs_pb2.GetRunResponse:
        caller = caller_of(request.entity, context)
        details = await self._registry.runs.get(caller, request.run_id)
        return convert.details_to_proto(details, self._registry.settings.max_message_bytes)

    async def UpdateRun(self, request: runs_pb2.UpdateRunRequest, context: Context) -> runs_pb2.UpdateRunResponse:
        caller = caller_of(request.entity, context)
        row = await self._registry.runs.update(
            caller, request.run_id, request.config_json, request.summary_json, request.request_id
        )
        return runs_pb2.UpdateRunResponse(run=convert.run_to_proto(row))

    async def Heartbeat(self, request: runs_pb2.HeartbeatRequest, context: Context) -> runs_pb2.HeartbeatResponse:
        caller = caller_of(request.entity, context)
        state = await self._registry.runs.beat(caller, request.run_id)
        return runs_pb2.HeartbeatResponse(state=convert.STATES[state])

    async def FinishRun(self, request: runs_pb2.FinishRunRequest, context: Context) -> runs_pb2.FinishRunResponse:
        caller = caller_of(request.entity, context)
        state = convert.state_from_proto(request.state)
        row = await self._registry.runs.finish(caller, request.run_id, state, request.summary_json, request.request_id)
        return runs_pb2.FinishRunResponse(run=convert.run_to_proto(row))

    async def LogMetrics(self, request: runs_pb2.LogMetricsRequest, context: Context) -> runs_pb2.LogMetricsResponse:
        caller = caller_of(request.entity, context)
        await self._registry.metrics.log(caller, request.run_id, convert.points_from_proto(request.points))
        return runs_pb2.LogMetricsResponse()

    async def GetMetrics(self, request: runs_pb2.GetMetricsRequest, context: Context) -> runs_pb2.GetMetricsResponse:
        curve = await self._registry.metrics.curve(
            caller_of(request.entity, context),
            request.run_id,
            request.key,
            min_step=request.min_step,
            max_step=request.max_step if request.HasField("max_step") else None,
            max_points=request.max_points,
        )
        return convert.curve_to_proto(curve)

    async def UseVersion(self, request: runs_pb2.UseVersionRequest, context: Context) -> runs_pb2.UseVersionResponse:
        caller = caller_of(request.entity, context)
        version = await self._registry.lineage.use_version(
            caller, request.run_id, request.reference, request.type, request.request_id
        )
        return runs_pb2.UseVersionResponse(version=version_to_proto(version))

    async def GetLineage(
        self, request: lineage_pb2.GetLineageRequest, context: Context
    ) -> lineage_pb2.GetLineageResponse:
        caller = caller_of(request.entity, context)
        direction = convert.direction_from_proto(request.direction)
        graph = await self._registry.lineage.graph(caller, request.reference, direction, request.depth)
        return convert.graph_to_proto(graph, self._registry.settings.max_message_bytes)
