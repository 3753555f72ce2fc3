"""What stands before every service: statuses, limits, the log, the drain; and the process around it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lading_proto.ingest.v1 import chunks_pb2, files_pb2, ingest_pb2_grpc
from lading_proto.registry.v1 import registry_pb2, registry_pb2_grpc
from lading_server.common.logs import FIELDS
from lading_server.common.settings import Settings
from tests.support.deaf_watcher import deaf_watcher
from tests.support.echo import SERVICE, EchoServer, echo_server
from tests.support.server import ServerProcess
from tests.support.wire import iter_of, reason_of

if TYPE_CHECKING:
    from lading_proto.ingest.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from lading_proto.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

SECONDS = 30.0


@pytest.fixture
async def echo(caplog: pytest.LogCaptureFixture) -> AsyncIterator[EchoServer]:
    caplog.set_level(logging.INFO, "lading.calls")
    async with asyncio.timeout(SECONDS), echo_server() as server:
        yield server


def _upload(upload_id: str) -> files_pb2.GetUploadRequest:
    return files_pb2.GetUploadRequest(entity="acme", upload_id=upload_id)


def _data(size_bytes: int) -> files_pb2.UploadFileRequest:
    return files_pb2.UploadFileRequest(data=bytes(size_bytes))


def _start(upload_id: str = "") -> files_pb2.UploadFileRequest:
    return files_pb2.UploadFileRequest(start=files_pb2.UploadFileStart(entity="acme", upload_id=upload_id))


FINISH = files_pb2.UploadFileRequest(finish=files_pb2.UploadFileFinish())
PUT_START = chunks_pb2.PutChunksRequest(start=chunks_pb2.PutChunksStart(entity="acme"))


async def _refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _all(call) if hasattr(call, "__aiter__") else await call
    return caught.value.code(), reason_of(caught.value)


async def _all(call: Any) -> list[Any]:
    return [message async for message in call]


def _calls(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [getattr(record, FIELDS) for record in caplog.records if record.name == "lading.calls"]


async def test_handlers_of_every_kind_answer(echo: EchoServer) -> None:
    stub = echo.stub
    assert (await stub.GetUpload(_upload("fine"))).digest == "fine"
    assert (await stub.UploadFile(iter_of([_data(3), _data(4)]))).size_bytes == 7
    assert [m.offset_bytes for m in await _all(stub.ReadFile(files_pb2.ReadFileRequest()))] == [0, 1, 2]
    ranges = [chunks_pb2.BlobRange(blob_digest=digest) for digest in (b"a", b"b")]
    answers = await _all(stub.ReadBlobs(chunks_pb2.ReadBlobsRequest(ranges=ranges)))
    assert [answer.pieces[0].data for answer in answers] == [b"a", b"b"]
    assert len(await _all(stub.PutChunks(iter_of([PUT_START] + [chunks_pb2.PutChunksRequest()] * 4)))) == 5
    assert len(await _all(stub.CommitBlobs(iter_of([chunks_pb2.CommitBlobsRequest()] * 5)))) == 5


async def test_a_refusal_has_its_status_and_reason_on_every_kind(echo: EchoServer) -> None:
    not_found = (grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND")
    assert await _refused(echo.stub.GetUpload(_upload("refused"))) == not_found
    assert await _refused(echo.stub.ReadFile(files_pb2.ReadFileRequest(offset_bytes=1))) == not_found
    assert await _refused(echo.stub.PutChunks(iter_of([PUT_START, PUT_START]))) == not_found
    early = (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_SEQUENCE")
    assert await _refused(echo.stub.UploadFile(iter_of([FINISH]))) == early


async def test_a_bug_becomes_internal_with_an_id_that_finds_its_traceback(
    echo: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.stub.GetUpload(_upload("broken"))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    (record,) = (record for record in caplog.records if record.name == "lading.calls")
    error_id = getattr(record, FIELDS)["error"]
    assert error_id in (caught.value.details() or "")
    assert "a bug" not in (caught.value.details() or "")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_database_that_is_away_is_told_without_its_words_which_are_in_the_log(
    echo: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.stub.GetUpload(_upload("away"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "DATABASE_UNAVAILABLE"
    assert "db.internal" not in f"{caught.value.details()} {caught.value.trailing_metadata()}"
    assert "db.internal" in caplog.text


async def test_a_call_writes_one_line_with_its_bytes(echo: EchoServer, caplog: pytest.LogCaptureFixture) -> None:
    request, messages = _upload("fine"), [_start(), _data(1000), _data(2000)]
    response = await echo.stub.GetUpload(request)
    uploaded = await echo.stub.UploadFile(iter_of(messages))
    await echo.server.drain(echo.drain, SECONDS)
    unary, stream = _calls(caplog)
    assert unary["method"] == f"/{SERVICE}/GetUpload"
    assert (unary["entity"], unary["status"]) == ("acme", "OK")
    assert (unary["received_bytes"], unary["sent_bytes"]) == (request.ByteSize(), response.ByteSize())
    assert (unary["caller"], unary["peer"].partition(":")[0]) == ("anonymous", "ipv4")
    assert unary["milliseconds"] >= 0
    assert (stream["entity"], stream["status"]) == ("acme", "OK")
    assert stream["received_bytes"] == sum(message.ByteSize() for message in messages)
    assert stream["sent_bytes"] == uploaded.ByteSize()


async def test_a_status_of_the_handlers_own_is_logged(echo: EchoServer, caplog: pytest.LogCaptureFixture) -> None:
    assert (await _refused(echo.stub.GetUpload(_upload("aborted"))))[0] is grpc.StatusCode.OUT_OF_RANGE
    # The handler sent the status itself, so the line may come after it.
    await echo.server.drain(echo.drain, SECONDS)
    assert [call["status"] for call in _calls(caplog)] == ["OUT_OF_RANGE"]


async def test_a_call_that_its_client_cancels_is_logged_as_cancelled(
    echo: EchoServer, caplog: pytest.LogCaptureFixture
) -> None:
    call = echo.stub.UploadFile()
    await call.write(_start("waits"))
    await echo.servicer.entered.wait()
    call.cancel()
    await echo.server.drain(echo.drain, SECONDS)
    assert [(line["status"], line["entity"]) for line in _calls(caplog)] == [("CANCELLED", "acme")]


async def test_a_client_stream_that_is_refused_early_always_gets_its_status(echo: EchoServer) -> None:
    early = (grpc.StatusCode.INVALID_ARGUMENT, "OUT_OF_SEQUENCE")
    for _ in range(200):
        messages = [_start(), _data(50_000), FINISH, *[_data(50_000)] * 20]
        assert await _refused(echo.stub.UploadFile(iter_of(messages))) == early


async def test_two_streams_that_are_refused_early_get_their_statuses_as_well(echo: EchoServer) -> None:
    batch = chunks_pb2.PutChunksRequest(batch=chunks_pb2.ChunkBatch(chunks=[chunks_pb2.Chunk(data=bytes(50_000))]))
    for _ in range(200):
        messages = [PUT_START, PUT_START, *[batch] * 20]
        assert (await _refused(echo.stub.PutChunks(iter_of(messages))))[1] == "UPLOAD_NOT_FOUND"


async def test_a_handler_that_does_not_read_holds_its_client_back(echo: EchoServer) -> None:
    call = echo.stub.UploadFile()
    await call.write(_start("waits"))
    written = 0

    async def write_all() -> None:
        nonlocal written
        while written < 64:
            async with asyncio.timeout(0.5):
                await call.write(_data(1 << 20))
            written += 1

    with pytest.raises(TimeoutError):
        await write_all()
    assert written < 16
    call.cancel()


async def test_more_streams_than_the_limit_are_refused_before_a_message_is_read() -> None:
    async with asyncio.timeout(SECONDS), echo_server(Settings(max_streams=2)) as echo:
        first, second = echo.stub.PutChunks(), echo.stub.PutChunks()
        for call in (first, second):
            await call.write(PUT_START)
            await call.read()
        too_many = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        read = files_pb2.ReadFileRequest()
        for refused in (echo.stub.UploadFile(), echo.stub.PutChunks(), echo.stub.ReadFile(read)):
            assert await _refused(refused) == too_many
        assert (await echo.stub.GetUpload(_upload("unary calls are not counted"))).digest
        assert echo.metrics.registry.get_sample_value("lading_open_streams") == 2
        await first.done_writing()
        while await first.read() is not grpc.aio.EOF:
            pass
        assert (await echo.stub.UploadFile(iter_of([_data(1)]))).size_bytes == 1
        second.cancel()


async def test_watches_of_health_have_a_limit_of_their_own_and_leave_room_for_calls(echo: EchoServer) -> None:
    health = health_pb2_grpc.HealthStub(echo.channel)
    watchers = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(64)]
    for watcher in watchers:
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
    too_many = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    reflect = reflection_pb2_grpc.ServerReflectionStub(echo.channel).ServerReflectionInfo
    listed = [reflection_pb2.ServerReflectionRequest(list_services="")]
    for refused in (health.Watch(health_pb2.HealthCheckRequest()), reflect(iter_of(listed))):
        assert await _refused(refused) == too_many
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    assert (await echo.stub.UploadFile(iter_of([_data(1)]))).size_bytes == 1
    watchers.pop().cancel()

    async def is_answered() -> bool:
        try:
            return bool(await _all(reflect(iter_of(listed))))
        except grpc.aio.AioRpcError:
            return False

    # The server hears of the end a little later.
    while not await is_answered():
        pass
    for watcher in watchers:
        watcher.cancel()


@pytest.mark.parametrize("kind", ["unary", "stream"])
async def test_a_message_that_cannot_be_parsed_is_refused_without_a_traceback(
    echo: EchoServer, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    channel: Any = echo.channel  # without serializers there is no type of a message to infer
    if kind == "unary":
        call = channel.unary_unary(f"/{SERVICE}/GetUpload")(b"\xff\xff")
    else:
        call = channel.stream_unary(f"/{SERVICE}/UploadFile")(iter_of([b"\xff\xff"]))
    assert (await _refused(call))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert [record.levelname for record in caplog.records] == ["INFO"]


async def test_an_rpc_that_does_not_exist_is_unimplemented(echo: EchoServer) -> None:
    channel: Any = echo.channel
    call = channel.unary_unary(f"/{SERVICE}/Nothing")(b"")
    assert (await _refused(call))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_health_knows_the_server_and_each_service(echo: EchoServer) -> None:
    health = health_pb2_grpc.HealthStub(echo.channel)
    for service in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_services(echo: EchoServer) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(echo.channel)
    (answer,) = await _all(stub.ServerReflectionInfo(iter_of([asked])))
    listed = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= listed


async def test_a_drain_tells_health_refuses_new_calls_and_lets_open_ones_end(echo: EchoServer) -> None:
    health = health_pb2_grpc.HealthStub(echo.channel)
    watcher = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
    unary = asyncio.ensure_future(_answer(echo.stub.GetUpload(_upload("waits"))))
    await echo.servicer.entered.wait()
    seen_by_drain: list[str] = []
    echo.drain.watch(lambda: seen_by_drain.append("told"))
    draining = asyncio.create_task(echo.server.drain(echo.drain, SECONDS))
    assert (await watcher.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    refused = (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert await _refused(echo.stub.GetUpload(_upload("fine"))) == refused
    assert await _refused(echo.stub.UploadFile(iter_of([_data(1)]))) == refused
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert seen_by_drain == ["told"]
    assert not draining.done()
    echo.servicer.gate.set()
    assert (await unary).digest == "waits"
    # Whoever watches the health of a server does not keep it from ending.
    await draining


async def test_a_watcher_that_does_not_read_holds_up_neither_a_drain_nor_those_who_watch_something_else(
    echo: EchoServer,
) -> None:
    health = health_pb2_grpc.HealthStub(echo.channel)
    watcher = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
    assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
    async with deaf_watcher(echo.server.port):
        draining = asyncio.create_task(echo.server.drain(echo.drain, SECONDS))
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert echo.drain.started
        await draining


async def _answer(call: Any) -> Any:
    return await call


async def test_a_drain_cuts_off_what_takes_too_long(echo: EchoServer) -> None:
    call = asyncio.ensure_future(_answer(echo.stub.GetUpload(_upload("waits"))))
    await echo.servicer.entered.wait()
    await echo.server.drain(echo.drain, 0.05)
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_random_bytes_on_the_port_leave_the_server_serving(echo: EchoServer) -> None:
    rng = random.Random(7)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for begin in (b"", preface, b"GET / HTTP/1.1\r\n\r\n"):
        for _ in range(10):
            await asyncio.to_thread(_send_and_hang_up, echo.server.port, begin + rng.randbytes(rng.randrange(5000)))
    assert (await echo.stub.GetUpload(_upload("fine"))).digest == "fine"


def _send_and_hang_up(port: int, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        try:
            connection.sendall(data)
        except ConnectionError:
            return  # the server hung up first, as it may


def _run(arguments: Iterable[str], **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lading_server", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=False, env=os.environ | environment
    )


async def test_the_process_says_one_line_when_ready_and_introduces_itself(server: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = cast("RegistryServiceAsyncStub", registry_pb2_grpc.RegistryServiceStub(channel))
        info = await stub.GetServerInfo(registry_pb2.GetServerInfoRequest())
    assert info.server_version
    assert info.ingest_target == ""
    assert {limit.name: limit.value for limit in info.limits}["max_message_bytes"] == 4 << 20
    assert server.terminate() == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""


async def test_the_first_sigterm_waits_for_a_stream_and_the_second_ends_the_process(server: ServerProcess) -> None:
    async with asyncio.timeout(SECONDS), grpc.aio.insecure_channel(server.target) as channel:
        stub = cast("IngestServiceAsyncStub", ingest_pb2_grpc.IngestServiceStub(channel))
        call = stub.UploadFile()
        await call.write(_start("open"))
        watcher = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
        # The stream is open at the server once a later call on its connection was answered.
        server.process.send_signal(signal.SIGTERM)
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, SECONDS) == 130


def test_a_port_in_use_is_named_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _run(["--data", str(tmp_path / "data"), "--listen", address])
    assert done.returncode == 1
    assert done.stdout == ""
    told = [line for line in done.stderr.splitlines() if line.startswith("lading serve: ")]
    assert told == [
        f"lading serve: cannot listen on {address}: Address already in use; stop what is there, "
        "or choose another --listen"
    ]
    assert "Traceback" not in done.stderr


def test_a_directory_that_another_server_has_is_refused(server: ServerProcess) -> None:
    done = _run(["--data", str(server.data), "--listen", "127.0.0.1:0"])
    assert done.returncode == 1
    assert str(server.data) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_setting_that_cannot_be_used_is_a_mistake_in_usage() -> None:
    done = _run(["--listen", "127.0.0.1:0"], LADING_THREADS="none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lading serve: LADING_THREADS: 'none' is not a number from 1 to 256\n"


def test_a_flag_that_does_not_exist_is_a_mistake_in_usage() -> None:
    assert _run(["--no-such-flag"]).returncode == 2
