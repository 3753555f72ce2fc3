"""Creates a run, or continues one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lading._client import Client
from lading._errors import AlreadyExists, NotFound
from lading._json import dump
from lading._registry import convert
from lading._registry.connection import fresh_request_id
from lading._run.calls import RunCalls
from lading._run.fields import Fields
from lading._run.live import LiveRun
from lading._run.metrics import MetricBuffer
from lading._run.recorder import FLUSH_POINTS, Recorder
from lading_proto.registry.v1 import registry_pb2, runs_pb2

_MAX_METRIC_POINTS = "max_metric_points"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a run is to be.

    Attributes:
        name: What people call it; empty for its id.
        job_type: What it does.
        config: What it is started with, from `lading._json.plain_object`.
        run_id: Names it; empty for one that the server makes up.
        resume: True to continue a run that is there, False for a new one, None for whichever.
    """

    name: str
    job_type: str
    config: Mapping[str, Any]
    run_id: str
    resume: bool | None


async def start(client: Client, wish: Wish, metrics: MetricBuffer, config: Fields, summary: Fields) -> LiveRun:
    """Create the run, or continue it, and start what goes on in the background.

    Raises:
        NotFound: The run is to be continued, and there is none.
        AlreadyExists: The run is to be new, and there is one; or there is one in another project.
    """
    connection = client.connection
    entity = await connection.entity()
    if wish.run_id and wish.resume is not None:
        await _check_resume(client, wish)
    server = await connection.call(lambda stub: stub.GetServerInfo, registry_pb2.GetServerInfoRequest())
    limits = {limit.name: limit.value for limit in server.limits}
    request = runs_pb2.CreateRunRequest(
        entity=entity,
        project=await connection.project(),
        run_id=wish.run_id,
        name=wish.name,
        job_type=wish.job_type,
        config_json=dump(wish.config) if wish.config else "",
        request_id=fresh_request_id(),
    )
    response = await connection.call(lambda stub: stub.CreateRun, request)
    info = convert.run(response.run, entity)
    calls = RunCalls(connection, entity, info.run_id, min(FLUSH_POINTS, limits.get(_MAX_METRIC_POINTS, FLUSH_POINTS)))
    config.load(info.config)
    summary.load(info.summary)
    live = LiveRun(client, calls, info, Recorder(calls, metrics, config, summary, response.heartbeat_interval))
    try:
        if not response.created:
            metrics.continue_after(await calls.last_step())
    except BaseException as error:
        await live.abandon(error)
        raise
    return live


async def _check_resume(client: Client, wish: Wish) -> None:
    try:
        found = await client.run(wish.run_id)
    except NotFound:
        if wish.resume:
            raise
        return
    if not wish.resume:
        raise AlreadyExists(
            f"There is a run {wish.run_id} in the project {found.project}. Choose another run_id, or resume it."
        )
