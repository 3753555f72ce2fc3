"""What the client lists: projects, collections, versions, runs, metrics, events and lineage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lading
from lading_format.digest import blake3_digest
from lading_proto.registry.v1 import runs_pb2
from tests.support.server import ServerProcess

# More than two pages of the server's own size.
COUNT = 230


@pytest.fixture
async def client(
    shared_server: ServerProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[lading.Client]:
    """A client of an entity of the test's own."""
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    entity = f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"
    async with lading.Client(shared_server.target, entity=entity, project="vision") as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Something to store."""
    path = tmp_path / "file"
    path.write_bytes(b"0")
    return path


async def _put(client: lading.Client, file: Path, text: str, name: str = "digits", **kwargs: object) -> lading.Version:
    file.write_bytes(text.encode())
    kwargs = {"type": "dataset"} | kwargs
    return (await client.put({"file": file}, name, **kwargs)).version  # type: ignore[arg-type]


async def test_listings_have_everything_however_many_pages(client: lading.Client, file: Path) -> None:
    digest = (await _put(client, file, "0", "first/digits")).digest
    for number in range(COUNT):
        await client.commit(digest, f"vision/c{number:03}", type="dataset")
    names = [collection.name async for collection in client.collections("vision")]
    assert names == [f"c{number:03}" for number in range(COUNT)]
    assert len([collection async for collection in client.collections()]) == COUNT + 1
    assert [project.name async for project in client.projects()] == ["first", "vision"]
    assert len([version async for version in client.search()]) == COUNT + 1
    revisions = [event.revision async for event in client.events("vision")]
    assert len(revisions) > 2 * COUNT
    assert revisions == sorted(set(revisions))


async def test_the_versions_of_a_collection_come_newest_first(client: lading.Client, file: Path) -> None:
    for number in range(3):
        await _put(client, file, str(number))
    assert [version.name async for version in client.versions("digits")] == ["digits:v2", "digits:v1", "digits:v0"]
    with pytest.raises(lading.NotFound):
        await anext(client.versions("nothing"))


async def test_versions_are_found_by_what_is_said_of_them(client: lading.Client, file: Path) -> None:
    await _put(client, file, "0", metadata={"accuracy": 0.8}, tags=["approved"])
    await _put(client, file, "1", metadata={"accuracy": 0.95})
    await _put(client, file, "2", name="other", type="model", metadata={"accuracy": 0.97}, aliases=["best"])
    found = [version.name async for version in client.search("metadata.accuracy > 0.9", "metadata.accuracy desc")]
    assert found == ["other:v0", "digits:v1"]
    assert [version.name async for version in client.search("tag=approved")] == ["digits:v0"]
    assert [collection.name async for collection in client.collections(query="type=model")] == ["other"]
    with pytest.raises(lading.InvalidArgument) as caught:
        await anext(client.search("metadata.accuracy >"))
    assert caught.value.reason == "INVALID_QUERY"
    assert "position" in caught.value.metadata


async def test_runs_tell_what_they_used_made_and_measured(client: lading.Client, file: Path) -> None:
    data = await _put(client, file, "data")
    run_id = await _run(client, config='{"lr":0.1}')
    await client.connection.call(
        lambda stub: stub.UseVersion,
        runs_pb2.UseVersionRequest(entity=data.entity, run_id=run_id, reference="vision/digits:latest"),
    )
    model = await _put(client, file, "model", "model", type="model", run_id=run_id)
    assert model.run_id == run_id
    await client.connection.call(
        lambda stub: stub.LogMetrics,
        runs_pb2.LogMetricsRequest(
            entity=data.entity,
            run_id=run_id,
            points=[
                runs_pb2.MetricPoint(key="loss", step=step, value=1 / (step + 1), time_ms=1_700_000_000_000)
                for step in range(100)
            ],
        ),
    )
    run = await client.run(run_id)
    assert isinstance(run, lading.RunInfo)
    assert (run.state, run.config, run.job_type, run.ended_at) == (lading.RunState.RUNNING, {"lr": 0.1}, "train", None)
    assert run.metric_keys == ("loss",)
    assert [version.uid for version in run.inputs] == [data.uid]
    assert [version.uid for version in run.outputs] == [model.uid]
    assert [listed.run_id async for listed in client.runs("vision")] == [run_id]
    assert [listed.run_id async for listed in client.runs("elsewhere")] == []

    points = await client.metrics(run_id, "loss")
    assert [point.step for point in points] == list(range(100))
    assert (points[3].value, points[0].time.timestamp()) == (0.25, 1_700_000_000)
    assert [point.step for point in await client.metrics(run_id, "loss", min_step=10, max_step=12)] == [10, 11, 12]
    assert len(await client.metrics(run_id, "loss", max_points=10)) == 10
    with pytest.raises(lading.NotFound):
        await client.run("nothing")


async def test_lineage_goes_both_ways(client: lading.Client, file: Path) -> None:
    data = await _put(client, file, "data")
    run_id = await _run(client)
    await client.connection.call(
        lambda stub: stub.UseVersion,
        runs_pb2.UseVersionRequest(entity=data.entity, run_id=run_id, reference=f"vision/{data.name}"),
    )
    model = await _put(client, file, "model", "model", type="model", run_id=run_id)
    link = await client.link(model, "Digit Reader")
    for reference in (model, "model-registry/Digit Reader", data):
        lineage = await client.lineage(reference)
        assert {version.uid for version in lineage.versions} == {data.uid, model.uid, link.uid}
        assert [run.run_id for run in lineage.runs] == [run_id]
        assert set(lineage.edges) == {
            lading.LineageEdge(lading.LineageEdgeKind.USED, data.uid, run_id),
            lading.LineageEdge(lading.LineageEdgeKind.LOGGED, model.uid, run_id),
            lading.LineageEdge(lading.LineageEdgeKind.LINKED, model.uid, link_uid=link.uid),
        }
        assert not lineage.truncated
    assert (await client.lineage(link)).root_uid == model.uid
    assert not (await client.lineage(data, "upstream")).runs
    assert not (await client.lineage(model, "downstream")).runs
    with pytest.raises(lading.InvalidArgument):
        await client.lineage(data, depth=101)


async def test_events_tell_what_was_before_and_after(client: lading.Client, file: Path) -> None:
    first = await _put(client, file, "0", aliases=["best"])
    second = await _put(client, file, "1")
    seen = [event async for event in client.events()][-1].revision
    await client.set_aliases(second, ["best"])
    later = [event async for event in client.events(after_revision=seen)]
    assert [event.kind for event in later] == ["alias.set"]
    assert later[0].before is not None
    assert later[0].after is not None
    assert later[0].actor
    newest = [event async for event in client.events(collection="digits", newest_first=True)]
    assert newest[0].revision == later[0].revision
    about_first = [event async for event in client.events(version=first)]
    assert about_first
    assert {event.version_uid for event in about_first} == {first.uid}
    assert [event.revision async for event in client.events(version="digits:v0")] == [e.revision for e in about_first]


async def _run(client: lading.Client, config: str = "") -> str:
    response = await client.connection.call(
        lambda stub: stub.CreateRun,
        runs_pb2.CreateRunRequest(
            entity=await client.connection.entity(), project="vision", job_type="train", config_json=config
        ),
    )
    return response.run.run_id
