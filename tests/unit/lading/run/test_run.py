"""A run against a registry that fails when it is told to: nothing is lost, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import StatusCode

import lading
from lading._retry import RetryPolicy
from lading._run.calls import RunCalls
from lading_proto.registry.v1 import runs_pb2
from tests.support.fake_registry import RunRegistry, run_registry

_QUICK = lading.RetryPolicy(retry_seconds=60.0, longest_seconds=0.05)


@pytest.fixture
async def served() -> AsyncIterator[tuple[RunRegistry, str]]:
    async with run_registry() as (registry, target):
        yield registry, target


def run_of(target: str, **more: object) -> lading.Run:
    return lading.init("p", url=target, entity="acme", api_key="k", retry=_QUICK, **more)  # type: ignore[arg-type]


async def test_what_was_measured_arrives_in_batches(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    async with run_of(target, config={"lr": 0.1}) as run:
        for number in range(3000):
            run.log({"loss": number, "nan": math.nan})
        await registry.until(lambda: len(registry.points) >= 1000)
        assert registry.state == runs_pb2.RUN_STATE_RUNNING
    assert sorted(step for key, step in registry.points if key == "loss") == list(range(3000))
    assert math.isnan(registry.points["nan", 7])
    assert max(registry.batches) <= 400
    assert registry.state == runs_pb2.RUN_STATE_FINISHED
    assert registry.config == {"lr": 0.1}


async def test_a_few_points_do_not_wait_for_the_end(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    async with run_of(target) as run:
        run.log({"loss": 1.0})
        run.summary["note"] = "x"
        run.config.update(seed=1)
        await registry.until(lambda: ("loss", 0) in registry.points)
        assert (registry.summary, registry.config) == ({"note": "x"}, {"seed": 1})
        assert run.summary["loss"] == 1.0


async def test_what_failed_for_a_passing_reason_is_sent_again(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    codes = [StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.DEADLINE_EXCEEDED]
    for method in ("CreateRun", "LogMetrics", "UpdateRun", "FinishRun"):
        registry.failures[method] = list(codes)
    async with run_of(target) as run:
        run.log({"loss": 1.0})
        run.summary["a"] = 1
    assert registry.points == {("loss", 0): 1.0}
    assert registry.summary == {"a": 1}
    assert registry.state == runs_pb2.RUN_STATE_FINISHED
    assert registry.calls.count("FinishRun") == len(codes) + 1


async def test_what_the_server_refuses_is_told_at_the_end_and_stops_nothing(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    registry.failures["LogMetrics"] = [StatusCode.INVALID_ARGUMENT]
    run = await run_of(target).start()
    run.log({"loss": 1.0})
    await registry.until(lambda: "LogMetrics" in registry.calls)
    run.log({"loss": 2.0})
    await registry.until(lambda: ("loss", 1) in registry.points)
    with pytest.raises(lading.NotLogged, match="told to fail") as caught:
        await run.finish()
    assert isinstance(caught.value.__cause__, lading.InvalidArgument)
    assert [what for what, _ in caught.value.failures] == ["config, summary or metrics"]
    assert registry.points == {("loss", 1): 2.0}
    assert registry.state == runs_pb2.RUN_STATE_FAILED


async def test_what_is_refused_in_the_last_moment_is_told_too(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    registry.failures["UpdateRun"] = [StatusCode.INVALID_ARGUMENT]
    run = await run_of(target).start()
    run.log({"loss": 1.0})
    run.summary["note"] = "x"
    with pytest.raises(lading.NotLogged, match="told to fail") as caught:
        await run.finish()
    assert [what for what, _ in caught.value.failures] == ["config, summary or metrics"]
    assert registry.calls.count("UpdateRun") == 1
    assert registry.points == {("loss", 0): 1.0}
    assert registry.state == runs_pb2.RUN_STATE_FAILED


async def test_what_no_message_holds_is_refused_and_stops_nothing(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    run = await run_of(target).start()
    run.config["seed"] = 1
    run.summary["table"] = "x" * (4 << 20)
    run.log({"loss": 1.0})
    await registry.until(lambda: ("loss", 0) in registry.points)
    run.summary["note"] = "x"
    with pytest.raises(lading.NotLogged, match="config with 10 bytes and summary with 4,194,316 bytes") as caught:
        await run.finish()
    assert isinstance(caught.value.__cause__, lading.InvalidArgument)
    assert len(caught.value.failures) == 1
    assert registry.summary == {"note": "x"}
    assert registry.state == runs_pb2.RUN_STATE_FAILED


async def test_what_cannot_be_sent_is_refused_where_it_is_set(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    async with run_of(target) as run:
        for value in ("\ud83d", 10**5000):
            with pytest.raises(lading.InvalidArgument, match=r"summary\.note"):
                run.summary["note"] = value
        run.log({"loss": 1.0})
    assert registry.points == {("loss", 0): 1.0}
    assert registry.state == runs_pb2.RUN_STATE_FINISHED


@pytest.mark.parametrize("method", ["Heartbeat", "UpdateRun"])
async def test_a_defect_in_the_background_is_told_and_the_run_ends(
    served: tuple[RunRegistry, str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    registry, target = served
    registry.heartbeat_interval = 0.01
    met = asyncio.Event()

    async def fail(*_: object) -> None:
        met.set()
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(RunCalls, {"Heartbeat": "heartbeat", "UpdateRun": "update"}[method], fail)
    for how in ("finish", "abandon"):
        met.clear()
        registry.state = runs_pb2.RUN_STATE_RUNNING
        run = await run_of(target).start()
        run.summary["note"] = "x"
        async with asyncio.timeout(60):
            await met.wait()
        if how == "finish":
            with pytest.raises(lading.NotLogged, match="a defect") as caught:
                await run.finish()
            cause = caught.value.__cause__
            assert isinstance(cause, lading.LadingError)
            assert isinstance(cause.__cause__, ZeroDivisionError)
        else:
            await run.__aexit__(KeyError, KeyError(), None)
        assert registry.state == runs_pb2.RUN_STATE_FAILED


async def test_a_defect_in_the_last_moment_is_told_and_the_run_ends(
    served: tuple[RunRegistry, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, target = served

    async def fail(*_: object, policy: RetryPolicy | None = None) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(RunCalls, "log_metrics", fail)
    run = await run_of(target).start()
    run.log({"loss": 1.0})
    with pytest.raises(lading.NotLogged, match="config, summary and metrics: a defect"):
        await run.finish()
    assert registry.state == runs_pb2.RUN_STATE_FAILED


async def test_what_is_denied_for_a_while_waits(
    served: tuple[RunRegistry, str], caplog: pytest.LogCaptureFixture
) -> None:
    registry, target = served
    registry.failures["LogMetrics"] = [StatusCode.PERMISSION_DENIED]
    with caplog.at_level(logging.WARNING, "lading"):
        async with run_of(target) as run:
            run.log({"loss": 1.0})
            await registry.until(lambda: ("loss", 0) in registry.points)
    assert "wait for the server" in caplog.text
    assert registry.state == runs_pb2.RUN_STATE_FINISHED


async def test_a_run_says_that_it_lives(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    registry.heartbeat_interval = 0.01
    registry.failures["Heartbeat"] = [StatusCode.UNAVAILABLE, StatusCode.NOT_FOUND]
    async with run_of(target):
        await registry.until(lambda: registry.calls.count("Heartbeat") >= 5)
    before = registry.calls.count("Heartbeat")
    assert registry.calls[-1] == "FinishRun"
    assert registry.calls.count("Heartbeat") == before


async def test_a_block_left_with_an_exception_is_a_failed_run(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    with pytest.raises(ZeroDivisionError):
        async with run_of(target) as run:
            run.log({"loss": 1 / 0})
    assert registry.state == runs_pb2.RUN_STATE_FAILED
    run = await run_of(target).start()
    run.log({"last": 1.0})
    await run.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert [key for key, _ in registry.points] == ["last"]


async def test_a_cancelled_block_is_a_failed_run(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    entered = asyncio.Event()

    async def train() -> None:
        async with run_of(target):
            entered.set()
            await asyncio.Event().wait()

    training = asyncio.create_task(train())
    await entered.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert registry.state == runs_pb2.RUN_STATE_FAILED


async def test_a_server_that_is_gone_holds_up_a_failing_block_for_seconds_only() -> None:
    async with run_registry() as (_, target):
        run = lading.init("p", url=target, entity="acme", api_key="k", retry=3600.0)
        await run.start()
        run.log({"loss": 1.0})
    error = ZeroDivisionError()
    async with asyncio.timeout(60):
        await run.__aexit__(type(error), error, None)
    assert any("could not tell the server" in note for note in error.__notes__)


async def test_a_server_that_is_gone_at_the_end_is_told_to_the_caller() -> None:
    async with run_registry() as (_, target):
        run = lading.init("p", url=target, entity="acme", api_key="k", retry=0.0)
        await run.start()
        run.log({"loss": 1.0})
    with pytest.raises(lading.NotLogged, match="No answer from") as caught:
        await run.finish()
    assert isinstance(caught.value.__cause__, lading.Unavailable)


async def test_a_run_that_is_continued_counts_on(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    registry.exists = True
    registry.summary = {"best": 1}
    registry.points = {("loss", step): 0.0 for step in range(0, 5_000_001, 1000)} | {("rare", 17): 0.0}
    async with run_of(target, run_id="r", resume=True, config={"new": 1}) as run:
        assert run.summary["best"] == 1
        run.log({"loss": 1.0})
    assert registry.points["loss", 5_000_001] == 1.0
    assert registry.calls.count("GetMetrics") < 10


async def test_resume_says_whether_a_run_has_to_be_there(served: tuple[RunRegistry, str]) -> None:
    registry, target = served
    with pytest.raises(lading.NotFound):
        await run_of(target, run_id="r", resume=True).start()
    assert not registry.exists
    async with run_of(target, run_id="r", resume=False):
        pass
    with pytest.raises(lading.AlreadyExists, match="There is a run r in the project p"):
        await run_of(target, run_id="r", resume=False).start()
    with pytest.raises(lading.InvalidArgument, match="run_id"):
        run_of(target, resume=True)


async def test_a_run_is_used_between_its_start_and_its_end(served: tuple[RunRegistry, str], tmp_path: Path) -> None:
    registry, target = served
    run = run_of(target)
    with pytest.raises(lading.FailedPrecondition, match="not started"):
        run.log({"loss": 1.0})
    async with run:
        with pytest.raises(lading.InvalidArgument, match="text"):
            run.log({"good": 1.0, "bad": "text"})
        with pytest.raises(lading.FailedPrecondition, match="started once"):
            await run.start()
        await run.finish(failed=True)
        await run.finish()
    for use in (lambda: run.log({"loss": 1.0}), lambda: run.log_artifact(tmp_path)):
        with pytest.raises(lading.FailedPrecondition, match="has ended"):
            use()
    assert registry.state == runs_pb2.RUN_STATE_FAILED
    assert registry.calls.count("FinishRun") == 1
    assert registry.points == {}


@pytest.mark.parametrize(
    "wish", [{"config": {"x": object()}}, {"run_id": "a b"}, {"url": "http://x:1"}, {"entity": "No Entity"}]
)
def test_a_malformed_wish_is_refused_before_anything_is_opened(wish: dict[str, object]) -> None:
    with pytest.raises(lading.InvalidArgument):
        lading.init("p", **wish)  # type: ignore[arg-type]
