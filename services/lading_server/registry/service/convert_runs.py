"""Between the protocol's messages and plain values: runs, metrics and lineage."""

from __future__ import annotations

from collections.abc import Iterable

from lading_proto.registry.v1 import lineage_pb2, runs_pb2
from lading_server.common.errors import InvalidRange
from lading_server.common.registry_errors import InvalidState
from lading_server.registry.domain.lineage import Direction, LineageGraph
from lading_server.registry.domain.runs import NewRun, RunDetails
from lading_server.registry.service.convert import timestamp_to_proto, version_to_proto
from lading_server.registry.service.room import Room
from lading_server.registry.store.metrics import Curve, MetricPoint
from lading_server.registry.store.rows import RunRow, VersionRow
from lading_server.registry.store.schema import RunState

STATES = {
    RunState.RUNNING: runs_pb2.RUN_STATE_RUNNING,
    RunState.FINISHED: runs_pb2.RUN_STATE_FINISHED,
    RunState.FAILED: runs_pb2.RUN_STATE_FAILED,
    RunState.CRASHED: runs_pb2.RUN_STATE_CRASHED,
}
DIRECTIONS: dict[int, Direction] = {
    lineage_pb2.LINEAGE_DIRECTION_UNSPECIFIED: Direction.BOTH,
    lineage_pb2.LINEAGE_DIRECTION_UPSTREAM: Direction.UPSTREAM,
    lineage_pb2.LINEAGE_DIRECTION_DOWNSTREAM: Direction.DOWNSTREAM,
}
_STATES_FROM_PROTO: dict[int, RunState] = {number: state for state, number in STATES.items()}


def run_to_proto(row: RunRow) -> runs_pb2.Run:
    """Return a run as callers see it; its summary is taken as it is."""
    return runs_pb2.Run(
        run_id=row.run,
        project=row.project,
        name=row.name,
        job_type=row.job_type,
        state=STATES[row.state],
        config_json=row.config,
        summary_json=row.summary,
        created_at=timestamp_to_proto(row.created_at_ms),
        heartbeat_at=timestamp_to_proto(row.heartbeat_at_ms),
        ended_at=None if row.ended_at_ms is None else timestamp_to_proto(row.ended_at_ms),
        created_by=row.created_by,
    )


def new_run_from_proto(request: runs_pb2.CreateRunRequest) -> NewRun:
    return NewRun(
        project=request.project,
        run=request.run_id,
        name=request.name,
        job_type=request.job_type,
        config_json=request.config_json,
    )


def details_to_proto(details: RunDetails, max_bytes: int) -> runs_pb2.GetRunResponse:
    """Return a run with as many of its versions as a message of `max_bytes` holds."""
    response = runs_pb2.GetRunResponse(run=run_to_proto(details.run), metric_keys=details.metric_keys)
    room = Room(max_bytes - response.ByteSize())
    response.inputs.extend(room.take(map(version_to_proto, details.inputs)))
    response.outputs.extend(room.take(map(version_to_proto, details.outputs)))
    return response


def state_from_proto(state: int) -> RunState:
    """Return a state. Raises InvalidState when it is none."""
    if state not in _STATES_FROM_PROTO:
        raise InvalidState("state says nothing; a run ends as FINISHED or as FAILED")
    return _STATES_FROM_PROTO[state]


def points_from_proto(points: Iterable[runs_pb2.MetricPoint]) -> list[MetricPoint]:
    return [MetricPoint(point.key, point.step, point.value, point.time_ms) for point in points]


def curve_to_proto(curve: Curve) -> runs_pb2.GetMetricsResponse:
    return runs_pb2.GetMetricsResponse(
        points=[
            runs_pb2.MetricPoint(step=point.step, value=point.value, time_ms=point.time_ms) for point in curve.points
        ],
        total_points=curve.total,
    )


def direction_from_proto(direction: int) -> Direction:
    """Return a direction. Raises InvalidRange when it is none."""
    if direction not in DIRECTIONS:
        raise InvalidRange(f"direction is {direction}; give UPSTREAM, DOWNSTREAM, or nothing for both ways")
    return DIRECTIONS[direction]


def graph_to_proto(graph: LineageGraph, max_bytes: int) -> lineage_pb2.GetLineageResponse:
    """Return as much of a graph as a message of `max_bytes` holds: first nodes, then what joins them."""
    response = lineage_pb2.GetLineageResponse(root_uid=graph.root_uid.hex(), truncated=graph.truncated)
    room = Room(max_bytes - response.ByteSize())
    response.versions.extend(room.take(map(version_to_proto, graph.versions)))
    response.runs.extend(room.take(map(run_to_proto, graph.runs)))
    versions = {row.id: row for row in graph.versions[: len(response.versions)]}
    runs = {row.id: row for row in graph.runs[: len(response.runs)]}
    response.edges.extend(room.take(_edges(graph, versions, runs)))
    response.truncated = graph.truncated or room.is_full
    return response


def _edges(
    graph: LineageGraph, versions: dict[int, VersionRow], runs: dict[int, RunRow]
) -> Iterable[lineage_pb2.LineageEdge]:
    for kind, edges in (
        (lineage_pb2.LINEAGE_EDGE_KIND_USED, graph.used),
        (lineage_pb2.LINEAGE_EDGE_KIND_LOGGED, graph.logged),
    ):
        for edge in edges:
            if edge.run_id in runs and edge.version_id in versions:
                uid = versions[edge.version_id].uid.hex()
                yield lineage_pb2.LineageEdge(kind=kind, version_uid=uid, run_id=runs[edge.run_id].run)
    for link in versions.values():
        source = None if link.source_id is None else versions.get(link.source_id)
        if source is not None:
            yield lineage_pb2.LineageEdge(
                kind=lineage_pb2.LINEAGE_EDGE_KIND_LINKED, version_uid=source.uid.hex(), link_uid=link.uid.hex()
            )
