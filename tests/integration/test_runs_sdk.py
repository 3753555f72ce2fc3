"""Runs against real servers: what they use, measure and log, and how they end."""

from __future__ import annotations

import asyncio
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lading
from lading_format.digest import blake3_digest
from tests.support.server import ServerProcess, running_server


@pytest.fixture
def entity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An entity of the test's own."""
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    name = f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"
    monkeypatch.setenv("LADING_ENTITY", name)
    return name


@pytest.fixture
async def client(
    shared_server: ServerProcess, entity: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[lading.Client]:
    """A client of the project that runs of this test belong to. Settings are in the environment."""
    monkeypatch.setenv("LADING_URL", shared_server.target)
    monkeypatch.setenv("LADING_PROJECT", "digits")
    async with lading.Client() as opened:
        yield opened


async def test_the_example_runs_as_it_is_written(
    client: lading.Client, entity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0.png").write_bytes(b"\x89PNG")
    await client.put("images", "digits", type="dataset")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    best = True

    async with lading.init(project="digits", job_type="train", config={"lr": 0.1}) as run:
        data = await run.use_artifact("digits:latest", type="dataset")
        root = await data.download()
        run.log({"loss": 0.31, "accuracy": 0.92})
        model = lading.Artifact("digits-mlp", type="model", metadata={"format": "safetensors"}, description="...")
        model.add_file("model.safetensors")
        logged = run.log_artifact(model, aliases=["best"] if best else [])
        version = await logged
        await run.link_artifact(version, f"{entity}/model-registry/Digit Reader", aliases=["staging"])

    assert (root / "0.png").read_bytes() == b"\x89PNG"
    details = await client.run(run.id)
    assert (details.state, details.job_type, details.config) == (lading.RunState.FINISHED, "train", {"lr": 0.1})
    assert details.summary == {"loss": 0.31, "accuracy": 0.92}
    assert [used.name for used in details.inputs] == ["digits:v0"]
    assert [made.name for made in details.outputs] == ["digits-mlp:v0"]
    assert version.metadata == {"format": "safetensors"}
    assert version.description == "..."
    assert version.aliases == ("best", "latest")
    staged = await client.version("model-registry/Digit Reader:staging")
    assert (staged.is_link, staged.source_uid, staged.digest) == (True, version.uid, version.digest)


async def test_artifacts_of_every_kind_come_back_as_they_were(client: lading.Client, tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/run").write_text("#!/bin/sh\n")
    (tmp_path / "tool/run").chmod(0o755)
    (tmp_path / "tool/run.log").write_text("noise")
    (tmp_path / "alone.bin").write_bytes(b"alone")
    async with lading.init() as run:
        artifact = lading.Artifact("tool", type="code")
        artifact.add_dir(tmp_path / "tool", "bin", exclude=["*.log"])
        artifact.add_reference("s3://bucket/big.bin", checksum="etag", size_bytes=5)
        with artifact.new_file("notes/read.me") as file:
            file.write("süß")
        logged = run.log_artifact(artifact, tags=["tagged"])
        del artifact
        alone = run.log_artifact(tmp_path / "alone.bin", type="code")
        whole = run.log_artifact(tmp_path / "tool", "everything", "code")
        version = await logged
        assert (await alone).name == "alone.bin:v0"
        assert (await whole).file_count == 2
    out = await version.download(tmp_path / "out")
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert found.keys() == {"bin/run", "notes/read.me"}
    assert found["bin/run"].stat().st_mode & 0o111
    assert found["notes/read.me"].read_text(encoding="utf-8") == "süß"
    assert [entry.uri async for entry in version.files("big")] == ["s3://bucket/big.bin"]
    assert version.tags == ("tagged",)


async def test_checkpoints_become_versions_in_the_order_in_which_they_were_logged(
    client: lading.Client, tmp_path: Path
) -> None:
    async with lading.init() as run:
        logged = []
        for epoch in range(12):
            checkpoint = lading.Artifact("mlp", type="model", metadata={"epoch": epoch})
            with checkpoint.new_file("weights", "wb") as file:
                # The first ones are the larger ones, which would be overtaken.
                file.write(bytes([epoch]) * (1 << (22 - epoch)))
            logged.append(run.log_artifact(checkpoint, aliases=["best"] if epoch in {3, 7} else []))
            run.log_artifact(lading.Artifact(f"other-{epoch}", type="model"))
    numbers = [(await one).number for one in logged]
    assert numbers == list(range(12))
    assert [version.metadata["epoch"] async for version in client.versions("mlp")] == list(range(11, -1, -1))
    assert (await client.version("mlp:best")).number == 7
    assert len((await client.run(run.id)).outputs) == 24


async def test_an_unchanged_artifact_makes_no_version_but_is_an_output(client: lading.Client, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("same")
    async with lading.init() as first:
        one = await first.log_artifact(tmp_path / "data", type="dataset")
    async with lading.init() as second:
        # The collection knows its type by now.
        two = await second.log_artifact(tmp_path / "data", aliases=["again"])
    assert (one.uid, two.aliases) == (two.uid, ("again", "latest"))
    assert [version.uid for version in (await client.run(second.id)).outputs] == [one.uid]


async def test_a_file_that_is_overwritten_while_it_waits_is_an_error(client: lading.Client, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"epoch 1")
    run = await lading.init().start()
    logged = run.log_artifact(model, "mlp", "model")
    model.write_bytes(b"of the second epoch")
    with pytest.raises(lading.FileChanged, match="model"):
        await logged
    await run.finish()
    assert (await client.run(run.id)).state is lading.RunState.FINISHED
    with pytest.raises(lading.NotFound):
        await client.version("mlp")


async def test_what_nobody_awaited_is_told_at_the_end(client: lading.Client, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"epoch 1")
    await client.put(model, "digits", type="dataset")
    run = await lading.init().start()
    run.log_artifact(model, "mlp", "model")
    model.write_bytes(b"of the second epoch")
    run.log_artifact(model, "digits", "model")
    good = run.log_artifact(model, "good", "model")
    with pytest.raises(lading.NotLogged, match=r"(?s)'mlp'.*changed.*'digits'.*type") as caught:
        await run.finish()
    assert [what for what, _ in caught.value.failures] == ["artifact 'mlp'", "artifact 'digits'"]
    assert isinstance(caught.value.__cause__, lading.FileChanged)
    assert isinstance(caught.value.failures[1][1], lading.FailedPrecondition)
    assert (await good).number == 0
    assert (await client.run(run.id)).state is lading.RunState.FAILED


async def test_a_block_left_with_an_exception_cancels_what_is_on_its_way(client: lading.Client, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(256 << 20))
    run = await lading.init().start()
    logged = [run.log_artifact(big, f"big-{number}", "model") for number in range(4)]
    run.log({"loss": 1.0})
    error = ZeroDivisionError()
    await run.__aexit__(type(error), error, None)
    assert not hasattr(error, "__notes__")
    details = await client.run(run.id)
    assert details.state is lading.RunState.FAILED
    assert details.summary == {"loss": 1.0}
    assert all(one.done() for one in logged)
    assert len(details.outputs) < 4
    for one in logged[2:]:
        with pytest.raises(lading.NotLogged):
            await one


async def test_a_version_is_used_by_its_type_and_inside_its_entity(client: lading.Client, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    put = (await client.put(tmp_path / "data", "data", type="dataset")).version
    await client.link(put, "Data", aliases=["staging"])
    async with lading.init() as run:
        with pytest.raises(lading.FailedPrecondition, match="dataset"):
            await run.use_artifact("data", type="model")
        with pytest.raises(lading.NotFound):
            await run.use_artifact("data:nothing")
        with pytest.raises(lading.InvalidArgument, match="another entity"):
            await run.use_artifact("somebody/digits/data")
        assert (await run.use_artifact(put)).uid == put.uid
        assert (await run.use_artifact("model-registry/Data:staging")).is_link
    lineage = await client.lineage("data:v0", "downstream")
    assert [found.run_id for found in lineage.runs] == [run.id]


async def test_curves_can_be_read_back(client: lading.Client) -> None:
    async with lading.init() as run:
        for step in range(2500):
            run.log({"loss": 1 / (step + 1)})
        run.log({"loss": math.inf, "accuracy": math.nan}, step=5000)
        run.summary["note"] = "diverged"
    points = await client.metrics(run.id, "loss", max_points=5000)
    assert [point.step for point in points] == [*range(2500), 5000]
    assert points[-1].value == math.inf
    assert math.isnan((await client.metrics(run.id, "accuracy"))[0].value)
    assert (await client.run(run.id)).summary == {"note": "diverged", "loss": "Infinity", "accuracy": "NaN"}


async def test_a_run_is_continued_where_it_was(client: lading.Client) -> None:
    async with lading.init(run_id="again", config={"lr": 0.1}) as run:
        for _ in range(30):
            run.log({"loss": 1.0})
        run.summary["best"] = 3
    async with lading.init(run_id="again", resume=True, config={"epochs": 2}) as run:
        assert run.summary["best"] == 3
        assert dict(run.config) == {"lr": 0.1, "epochs": 2}
        run.log({"loss": 2.0})
    assert [point.step for point in await client.metrics("again", "loss")] == list(range(31))
    with pytest.raises(lading.AlreadyExists, match="again"):
        await lading.init(run_id="again", resume=False).start()


async def test_a_server_that_restarts_holds_up_nobody_and_loses_nothing(entity: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        (tmp_path / "model").write_bytes(b"weights")
        run = await lading.init("p", url=server.target, config={"a": 1}).start()
        run.log({"loss": 0.0})
        server.kill()
        for step in range(1, 1500):
            run.log({"loss": step})
        run.summary["told"] = "while it was away"
        logged = run.log_artifact(tmp_path / "model", "mlp", "model")
        with running_server(tmp_path / "data", "--listen", server.target) as again:
            assert again.target == server.target
            assert (await logged).number == 0
            await run.finish()
            async with lading.Client(again.target) as client:
                points = await client.metrics(run.id, "loss", max_points=5000)
                details = await client.run(run.id)
    assert [point.value for point in points] == [float(step) for step in range(1500)]
    assert (details.state, details.summary["told"]) == (lading.RunState.FINISHED, "while it was away")


_TRAINING = """
import asyncio, sys
import lading

async def main():
    async with lading.init(run_id="stopped") as run:
        run.log({"loss": 1.0})
        run.log_artifact(sys.argv[1], "big", "model")
        print("training", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def stop_while_training(model: Path) -> tuple[int, str]:
    """Start a training, send it Ctrl-C, and return its exit code and what it wrote to standard error."""
    command = [sys.executable, "-c", _TRAINING, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


async def test_ctrl_c_leaves_a_failed_run_and_nothing_half_made(client: lading.Client, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(512 << 20))
    code, errors = await asyncio.to_thread(stop_while_training, tmp_path / "big")
    assert code == -signal.SIGINT, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    details = await client.run("stopped")
    assert (details.state, details.outputs) == (lading.RunState.FAILED, ())
