"""Runs, metrics and lineage over gRPC: what callers see, with statuses and reasons."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lading_proto.registry.v1 import lineage_pb2, registry_pb2_grpc, runs_pb2
from lading_server.common.access import Access
from lading_server.common.drain import Drain
from lading_server.common.grpc_status import DETAILS_KEY
from lading_server.common.metrics import Metrics
from lading_server.common.serving import running
from lading_server.common.settings import Settings
from lading_server.registry.component import RegistryComponent
from lading_server.registry.domain.access import run_access
from lading_server.registry.domain.kept import Kept
from lading_server.registry.domain.lineage import Direction
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.convert_runs import DIRECTIONS, STATES, details_to_proto, graph_to_proto
from lading_server.registry.service.retention import RetentionServicer
from lading_server.registry.service.servicer import RegistryServicer
from lading_server.registry.store.schema import RunState
from tests.support.index import FakeClock
from tests.support.registry_rows import ACME, MODELS, log, new_run, new_version, opened_registry, use


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with opened_registry("sqlite", tmp_path, FakeClock()) as opened:
        yield opened


@pytest.fixture
async def stub(registry: Registry) -> AsyncIterator[Any]:
    async with run_access(registry.settings, registry.store) as access:
        component = RegistryComponent(
            RegistryServicer(registry),
            RetentionServicer(registry.retention),
            access,
            Kept(registry.store),
            Path(),
            serves_peer=False,
        )
        async with (
            running(Settings(), ("127.0.0.1", 0), [component], Drain(), Metrics(), Access(None)) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            yield registry_pb2_grpc.RegistryServiceStub(channel)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return the status and the reason that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    status.ParseFromString(dict(raised.value.trailing_metadata() or ())[DETAILS_KEY])
    assert status.details[0].Unpack(info)
    return raised.value.code(), info.reason


async def test_a_run_from_its_beginning_to_its_end(registry: Registry, stub: Any) -> None:
    data = await new_version(registry, "digits/train")
    model = await new_version(registry, "digits/mlp", type_name="model")
    created = await stub.CreateRun(
        runs_pb2.CreateRunRequest(entity="acme", project="digits", job_type="train", config_json='{"lr": 0.1}')
    )
    run_id = created.run.run_id
    assert (created.created, created.heartbeat_interval) == (True, 100.0)
    assert (created.run.state, created.run.created_by) == (runs_pb2.RUN_STATE_RUNNING, "anonymous")
    assert not created.run.HasField("ended_at")

    names = {"entity": "acme", "run_id": run_id}
    used = await stub.UseVersion(runs_pb2.UseVersionRequest(**names, reference=data.name, type="dataset"))
    assert (used.version.uid, used.version.number) == (data.uid.hex(), 0)
    points = [runs_pb2.MetricPoint(key="loss", step=step, value=1 / (step + 1)) for step in range(5)]
    await stub.LogMetrics(runs_pb2.LogMetricsRequest(**names, points=points))
    await stub.LogMetrics(
        runs_pb2.LogMetricsRequest(**names, points=[runs_pb2.MetricPoint(key="loss", step=5, value=math.nan)])
    )
    beat = await stub.Heartbeat(runs_pb2.HeartbeatRequest(**names))
    assert beat.state == runs_pb2.RUN_STATE_RUNNING
    updated = await stub.UpdateRun(runs_pb2.UpdateRunRequest(**names, config_json='{"seed": 7}'))
    assert json.loads(updated.run.config_json) == {"lr": 0.1, "seed": 7}
    await log(registry, run_id, model)
    ended = await stub.FinishRun(
        runs_pb2.FinishRunRequest(**names, state=runs_pb2.RUN_STATE_FINISHED, summary_json='{"accuracy": 0.9}')
    )
    assert ended.run.state == runs_pb2.RUN_STATE_FINISHED
    assert ended.run.HasField("ended_at")

    found = await stub.GetRun(runs_pb2.GetRunRequest(**names))
    assert found.run == ended.run
    assert json.loads(found.run.summary_json) == {"accuracy": 0.9, "loss": "NaN"}
    assert list(found.metric_keys) == ["loss"]
    assert [version.uid for version in found.inputs] == [data.uid.hex()]
    assert [version.uid for version in found.outputs] == [model.uid.hex()]

    curve = await stub.GetMetrics(runs_pb2.GetMetricsRequest(**names, key="loss", min_step=1, max_points=2))
    assert [(point.key, point.step) for point in curve.points] == [("", 1), ("", 4)]
    assert curve.total_points == 5
    assert (await stub.GetMetrics(runs_pb2.GetMetricsRequest(**names, key="loss", max_step=0))).total_points == 1

    graph = await stub.GetLineage(lineage_pb2.GetLineageRequest(entity="acme", reference=model.name))
    assert (graph.root_uid, graph.truncated) == (model.uid.hex(), False)
    assert [version.uid for version in graph.versions] == [model.uid.hex(), data.uid.hex()]
    assert [run.run_id for run in graph.runs] == [run_id]
    assert {(edge.kind, edge.version_uid, edge.run_id) for edge in graph.edges} == {
        (lineage_pb2.LINEAGE_EDGE_KIND_USED, data.uid.hex(), run_id),
        (lineage_pb2.LINEAGE_EDGE_KIND_LOGGED, model.uid.hex(), run_id),
    }


async def test_a_link_is_joined_with_its_source(registry: Registry, stub: Any) -> None:
    source = await new_version(registry, "digits/mlp", type_name="model")
    link = await new_version(registry, f"{MODELS}/Digit Reader", type_name="model", source=source)
    graph = await stub.GetLineage(lineage_pb2.GetLineageRequest(entity="acme", reference=link.name))
    (edge,) = graph.edges
    assert edge == lineage_pb2.LineageEdge(
        kind=lineage_pb2.LINEAGE_EDGE_KIND_LINKED, version_uid=source.uid.hex(), link_uid=link.uid.hex()
    )


async def test_a_direction_is_followed_and_an_unknown_one_refused(registry: Registry, stub: Any) -> None:
    data, model = await new_version(registry, "digits/train"), await new_version(registry, "digits/mlp")
    await use(registry, await new_run(registry, "r1"), data)
    await log(registry, "r1", model)

    def ask(direction: Any) -> Any:
        return stub.GetLineage(
            lineage_pb2.GetLineageRequest(entity="acme", reference=data.name, direction=direction, depth=1)
        )

    assert len((await ask(lineage_pb2.LINEAGE_DIRECTION_UPSTREAM)).runs) == 0
    assert len((await ask(lineage_pb2.LINEAGE_DIRECTION_DOWNSTREAM)).runs) == 1
    assert await refusal(ask(9)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RANGE")


async def test_refusals_have_the_status_and_the_reason_of_the_proto(registry: Registry, stub: Any) -> None:
    await new_run(registry, "r1")
    await registry.runs.finish(ACME, "r1", RunState.FINISHED, "", "")
    names = {"entity": "acme", "run_id": "r1"}
    failed = runs_pb2.FinishRunRequest(**names, state=runs_pb2.RUN_STATE_FAILED)
    unknown = runs_pb2.FinishRunRequest(entity="acme", run_id="r1")
    elsewhere = runs_pb2.CreateRunRequest(**names, project="letters")
    nowhere = runs_pb2.HeartbeatRequest(entity="acme", run_id="r2")
    entity = runs_pb2.HeartbeatRequest(entity="ACME", run_id="r1")
    assert await refusal(stub.FinishRun(failed)) == (grpc.StatusCode.FAILED_PRECONDITION, "RUN_ENDED")
    assert await refusal(stub.FinishRun(unknown)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_STATE")
    assert await refusal(stub.CreateRun(elsewhere)) == (grpc.StatusCode.ALREADY_EXISTS, "RUN_EXISTS")
    assert await refusal(stub.Heartbeat(nowhere)) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    assert await refusal(stub.Heartbeat(entity)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ENTITY")


async def test_answers_hold_what_fits_into_a_message(registry: Registry) -> None:
    model = await new_version(registry, "digits/mlp")
    await new_run(registry, "r1")
    for _ in range(20):
        await use(registry, "r1", await new_version(registry, "digits/train"))
    await log(registry, "r1", model)
    details = await registry.runs.get(ACME, "r1")
    graph = await registry.lineage.graph(ACME, model.name, Direction.UPSTREAM, 0)
    whole_details, whole_graph = details_to_proto(details, 1 << 22), graph_to_proto(graph, 1 << 22)
    assert (len(whole_details.inputs), len(whole_details.outputs), len(whole_graph.edges)) == (20, 1, 21)
    assert not whole_graph.truncated
    for max_bytes in range(whole_graph.ByteSize() - 1, 200, -97):
        cut = graph_to_proto(graph, max_bytes)
        assert cut.ByteSize() <= max_bytes
        assert cut.truncated
        assert cut.versions == whole_graph.versions[: len(cut.versions)]
        uids, run_ids = {version.uid for version in cut.versions}, {run.run_id for run in cut.runs}
        assert all(edge.version_uid in uids and edge.run_id in run_ids for edge in cut.edges)
    half = details_to_proto(details, whole_details.ByteSize() // 2)
    assert half.ByteSize() <= whole_details.ByteSize() // 2
    assert 0 < len(half.inputs) < 20
    assert half.run == whole_details.run


def test_every_state_and_direction_has_its_number() -> None:
    assert set(STATES) == set(RunState)
    assert set(STATES.values()) == set(runs_pb2.RunState.values()) - {runs_pb2.RUN_STATE_UNSPECIFIED}
    assert set(DIRECTIONS) == set(lineage_pb2.LineageDirection.values())
    assert set(DIRECTIONS.values()) == set(Direction)
