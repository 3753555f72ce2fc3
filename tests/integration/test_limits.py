"""Calls a second, open streams and stored bytes, of entities and of keys, against real servers."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

import lading
from lading_proto.ingest.v1 import chunks_pb2, files_pb2, usage_pb2
from lading_proto.registry.v1 import access_pb2, registry_pb2, registry_pb2_grpc
from tests.support.server import ServerProcess, running_server
from tests.support.server_operator import Operator, bearer, operator_of
from tests.support.wire import Wire, chunk, digest_of, file_entry, iter_of, put_start, reason_of, recipe, text_digest

# What frames a chunk: its header, and padding to a multiple of 8.
FRAME = 64
KIB = 1 << 10


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("limits") / "data", auth="keys") as server:
        yield server


@pytest.fixture
async def operator(keyed_server: ServerProcess) -> AsyncIterator[Operator]:
    async with operator_of(keyed_server) as one:
        yield one


def details_of(error: grpc.aio.AioRpcError) -> tuple[dict[str, str], float | None]:
    """The metadata of a status's ErrorInfo, and the seconds of its RetryInfo."""
    raw = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    info, retry, seconds = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), None
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return dict(info.metadata), seconds


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def usage(wire: Wire) -> tuple[int, int]:
    told = await wire.stub.GetUsage(usage_pb2.GetUsageRequest(entity=wire.entity))
    return told.used_bytes, told.limit_bytes


# --- SetLimits ---


async def test_limits_are_set_told_and_left(operator: Operator) -> None:
    await operator.new_entity("told")
    limits = access_pb2.Limits(stored_bytes=1 << 40, streams=7, calls_per_second=70)
    keys = access_pb2.Limits(streams=3, calls_per_second=30)
    await operator.limit("told", entity=limits)
    told = await operator.limit("told", key=keys)
    assert (told.name, told.limits, told.key_limits) == ("told", limits, keys)
    listed = await operator.stub.ListEntities(access_pb2.ListEntitiesRequest(), metadata=bearer(operator.key))
    assert told in listed.entities
    told = await operator.limit("told", entity=access_pb2.Limits())
    assert (told.limits, told.key_limits) == (access_pb2.Limits(), keys)


async def test_limits_that_cannot_be_are_refused(operator: Operator) -> None:
    await operator.new_entity("refused")
    for call, code, reason in (
        (operator.limit("nobody-has-this"), "NOT_FOUND", "ENTITY_NOT_FOUND"),
        (operator.limit("Not A Name"), "INVALID_ARGUMENT", "INVALID_ENTITY"),
        (operator.limit("refused", key=access_pb2.Limits(stored_bytes=1)), "INVALID_ARGUMENT", "INVALID_RANGE"),
        (
            operator.limit("refused", entity=access_pb2.Limits(stored_bytes=1 << 63)),
            "INVALID_ARGUMENT",
            "INVALID_RANGE",
        ),
    ):
        error = await failure(call)
        assert (error.code().name, reason_of(error)) == (code, reason)


# --- calls a second ---


async def until_limited(stub: Any, key: str, most: int) -> tuple[int, grpc.aio.AioRpcError]:
    """Call until that is too often; return how many calls were answered, and the refusal."""
    for answered in range(most):
        try:
            await stub.WhoAmI(registry_pb2.WhoAmIRequest(), metadata=bearer(key))
        except grpc.aio.AioRpcError as error:
            return answered, error
    raise AssertionError(f"{most} calls were answered")


@pytest.mark.parametrize("scope", ["key", "entity"])
async def test_whoever_calls_too_often_is_told_when_to_come_back(
    keyed_server: ServerProcess, operator: Operator, scope: str
) -> None:
    entity = f"often-{scope}"
    key = await operator.new_entity(entity)
    other = await operator.new_key(entity, key)
    limits = access_pb2.Limits(calls_per_second=2)
    await (operator.limit(entity, key=limits) if scope == "key" else operator.limit(entity, entity=limits))
    async with grpc.aio.insecure_channel(keyed_server.target) as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        answered, error = await until_limited(stub, key, 1000)
        assert answered >= 4
        assert (error.code().name, reason_of(error)) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        metadata, seconds = details_of(error)
        assert (metadata["scope"], metadata["limit"]) == (scope, "2")
        assert seconds is not None
        assert 0 < seconds <= 0.5
        if scope == "key":
            # Another key has its own.
            await stub.WhoAmI(registry_pb2.WhoAmIRequest(), metadata=bearer(other))
        else:
            assert reason_of((await until_limited(stub, other, 1000))[1]) == "RATE_LIMITED"
        # And what needs no key is not counted.
        await stub.GetServerInfo(registry_pb2.GetServerInfoRequest())


async def test_the_sdk_waits_for_as_long_as_it_is_told(keyed_server: ServerProcess, operator: Operator) -> None:
    key = await operator.new_entity("patient")
    await operator.limit("patient", key=access_pb2.Limits(calls_per_second=10))
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(seconds)

    policy = lading.RetryPolicy(sleep=sleep, jitter=lambda: 0.0)
    began = time.monotonic()
    async with lading.Client(keyed_server.target, api_key=key, retry=policy) as client:
        for _ in range(30):
            assert [project async for project in client.projects()] == []
    # 20 at once and then 10 a second: it cannot have been faster, and there was no need to be told twice.
    assert time.monotonic() - began >= (30 - 20) / 10
    assert pauses
    assert all(0 < seconds <= 0.101 for seconds in pauses)


# --- streams ---


async def open_stream(wire: Wire, stack: AsyncExitStack) -> Any:
    """Open a PutChunks stream that stays open until the end of the block."""
    session = await wire.session()
    call = wire.stub.PutChunks()
    stack.callback(call.cancel)
    await call.write(put_start(session, wire.entity))
    return call


@pytest.mark.parametrize("scope", ["key", "entity"])
async def test_whoever_has_too_many_streams_is_told_which_limit_it_is(
    keyed_server: ServerProcess, operator: Operator, scope: str
) -> None:
    entity = f"streams-{scope}"
    keys = [await operator.new_entity(entity)]
    keys.append(await operator.new_key(entity, keys[0]))
    limits = access_pb2.Limits(streams=2)
    await (operator.limit(entity, key=limits) if scope == "key" else operator.limit(entity, entity=limits))
    async with (
        AsyncExitStack() as stack,
        Wire(keyed_server.target, entity, key=keys[0]) as wire,
        Wire(keyed_server.target, entity, key=keys[1]) as other,
    ):
        calls = [await open_stream(wire, stack) for _ in range(2)]
        for call in calls:
            assert (await call.read()).window_bytes
        if scope == "key":
            assert (await (await open_stream(other, stack)).read()).window_bytes
        for who in (wire,) if scope == "key" else (wire, other):
            # A stream of answers alone: a client that still writes can lose the status of a stream that ends early.
            error = await failure(anext(aiter(who.stub.ReadBlobs(chunks_pb2.ReadBlobsRequest(entity=who.entity)))))
            assert (error.code().name, reason_of(error)) == ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS")
            metadata, seconds = details_of(error)
            assert (metadata["scope"], metadata["limit"], seconds) == (scope, "2", 1.0)
        # One that ends makes room.
        await calls[0].done_writing()
        assert await calls[0].read() is grpc.aio.EOF
        assert (await (await open_stream(wire, stack)).read()).window_bytes


# --- stored bytes ---


@pytest.fixture
async def small(keyed_server: ServerProcess, operator: Operator, request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    """An entity of the test's own that may store 64 KiB."""
    entity = f"small-{abs(hash(request.node.name)) % 10**8}"
    key = await operator.new_entity(entity)
    await operator.limit(entity, entity=access_pb2.Limits(stored_bytes=64 * KIB))
    async with Wire(keyed_server.target, entity, key=key) as wire:
        yield wire


async def test_what_does_not_fit_fails_chunk_by_chunk_and_the_rest_is_stored(small: Wire) -> None:
    session = await small.session()
    first = os.urandom(40 * KIB)
    await small.put_blob(session, first)
    assert await usage(small) == (40 * KIB + FRAME, 64 * KIB)
    large, fits, again = os.urandom(30 * KIB), os.urandom(10 * KIB), os.urandom(20 * KIB)
    answers = await small.put(session, [chunk(large), chunk(fits), chunk(first), chunk(again)])
    assert answers[-1].acknowledged_chunks == 4
    failures = [failed for answer in answers for failed in answer.failures]
    assert [(failed.index, failed.digest) for failed in failures] == [(0, digest_of(large)), (3, digest_of(again))]
    assert {(failed.error.reason, failed.error.code) for failed in failures} == {("QUOTA_EXCEEDED", 8)}
    assert await small.missing(session, [large, fits, first, again]) == [0, 3]
    assert await usage(small) == (50 * KIB + 2 * FRAME, 64 * KIB)


async def test_what_is_there_costs_nothing_and_takes_no_disk(small: Wire, keyed_server: ServerProcess) -> None:
    session = await small.session()
    data = os.urandom(60 * KIB)
    await small.put(session, [chunk(data)])
    before, packs_before = await usage(small), pack_bytes(keyed_server)
    for _ in range(5):
        (*_, answer) = await small.put(session, [chunk(data), chunk(data)])
        assert (answer.acknowledged_chunks, list(answer.failures)) == (2, [])
    assert (await usage(small), pack_bytes(keyed_server)) == (before, packs_before)
    # It is held for a session that was not there when it was stored.
    assert (await small.commit(await small.session(), [recipe(data)]))[0].outcome == chunks_pb2.BLOB_OUTCOME_COMMITTED


def pack_bytes(server: ServerProcess) -> int:
    return sum(path.stat().st_size for path in server.data.rglob("*.pack"))


async def test_an_upload_of_a_file_ends_and_what_is_durable_stays(small: Wire) -> None:
    data = os.urandom(300 * KIB)
    start = files_pb2.UploadFileRequest(start=files_pb2.UploadFileStart(entity=small.entity, upload_id="one"))
    fits = os.urandom(20 * KIB)

    async def upload(upload_id: str, data: bytes) -> files_pb2.UploadFileResponse:
        start.start.upload_id = upload_id
        parts = [data[at : at + 32 * KIB] for at in range(0, len(data), 32 * KIB)]
        messages = [files_pb2.UploadFileRequest(data=part) for part in parts]
        finish = files_pb2.UploadFileRequest(finish=files_pb2.UploadFileFinish())
        response: files_pb2.UploadFileResponse = await small.stub.UploadFile(iter_of([start, *messages, finish]))
        return response

    assert (await upload("fits", fits)).digest == text_digest(fits)
    error = await failure(upload("large", data))
    assert (error.code().name, reason_of(error)) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    metadata, _ = details_of(error)
    assert metadata == {"limit_bytes": str(64 * KIB), "stored_bytes": str(20 * KIB + FRAME)}
    told = await small.stub.GetUpload(files_pb2.GetUploadRequest(entity=small.entity, upload_id="large"))
    assert (told.state, told.durable_bytes) == (files_pb2.UPLOAD_STATE_OPEN, 0)
    # Reads go on, and what is there can be stored under another name.
    assert await small.read(text_digest(fits)) == fits
    assert (await upload("again", fits)).new_bytes == 0


async def test_recipes_and_pages_of_trees_count_too(small: Wire, operator: Operator) -> None:
    session = await small.session()
    parts = [os.urandom(KIB), os.urandom(KIB)]
    whole = b"".join(parts)
    await small.put(session, [chunk(part) for part in parts])
    await small.commit(session, [recipe(whole, parts)])
    used, _ = await usage(small)
    assert used == 2 * (KIB + FRAME) + 2 * 36
    await small.put_tree(session, [file_entry("whole.bin", whole)])
    with_tree, _ = await usage(small)
    assert with_tree > used
    # At the quota neither can be made, and what is there is found.
    await operator.limit(small.entity, entity=access_pb2.Limits(stored_bytes=with_tree))
    error = await failure(small.put_tree(session, [file_entry("other.bin", whole)]))
    assert reason_of(error) == "QUOTA_EXCEEDED"
    error = await failure(small.commit(session, [recipe(whole * 2, parts * 2)]))
    assert reason_of(error) == "QUOTA_EXCEEDED"
    await small.put_tree(session, [file_entry("whole.bin", whole)])
    assert await usage(small) == (with_tree, with_tree)


@pytest.mark.parametrize("seed", range(2))
async def test_racing_uploads_never_exceed_the_quota(
    keyed_server: ServerProcess, operator: Operator, seed: int
) -> None:
    print(f"seed {seed}")
    chance, entity, quota_bytes = random.Random(seed), f"race-{seed}", 512 * KIB
    key = await operator.new_entity(entity)
    await operator.limit(entity, entity=access_pb2.Limits(stored_bytes=quota_bytes))
    stored: list[bytes] = []

    async def put(seed: int) -> int:
        chance, refused = random.Random(seed), 0
        async with Wire(keyed_server.target, entity, key=key) as wire:
            session = await wire.session()
            for _ in range(6):
                chunks = [chance.randbytes(chance.randint(1, 20 * KIB)) for _ in range(4)]
                failed = {
                    one.index for answer in await wire.put(session, [*map(chunk, chunks)]) for one in answer.failures
                }
                stored.extend(data for index, data in enumerate(chunks) if index not in failed)
                refused += len(failed)
                assert (await usage(wire))[0] <= quota_bytes
        return refused

    refused = sum(await asyncio.gather(*(put(chance.getrandbits(32)) for _ in range(8))))
    assert refused > 0
    async with Wire(keyed_server.target, entity, key=key) as wire:
        used, _ = await usage(wire)
        # All that was acknowledged is there and nothing else counts; not a chunk of the mean size would fit.
        assert used == sum(len(data) + -len(data) % 8 + FRAME for data in stored)
        assert quota_bytes - 10 * KIB < used <= quota_bytes
        assert await wire.missing(await wire.session(), stored) == []


async def test_the_sdk_says_that_it_does_not_fit_and_at_once(
    small: Wire, keyed_server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(os.urandom(200 * KIB))
    key = small.stub._metadata[0][1].removeprefix("Bearer ")
    async with lading.Client(keyed_server.target, api_key=key) as client:
        with pytest.raises(lading.ResourceExhausted, match="may store 65,536") as caught:
            await client.put(tmp_path / "model", "model", type="model")
        assert caught.value.reason == "QUOTA_EXCEEDED"
        assert not caught.value.retryable
        told = await client.usage()
        assert told.limit_bytes == 64 * KIB
        assert told.used_bytes <= 64 * KIB


# --- defaults ---


async def test_the_settings_say_what_counts_where_the_operator_did_not(tmp_path: Path) -> None:
    flags = ("--default-quota-bytes", "1000", "--calls-per-second-per-key", "500", "--max-streams-per-entity", "9")
    with running_server(tmp_path / "data", *flags, auth="keys") as server:
        async with operator_of(server) as operator, Wire(server.target, "default", key=server.api_key) as wire:
            assert await usage(wire) == (0, 1000)
            (listed,) = (
                await operator.stub.ListEntities(access_pb2.ListEntitiesRequest(), metadata=bearer(operator.key))
            ).entities
            assert listed.limits == access_pb2.Limits(stored_bytes=1000, streams=9)
            assert listed.key_limits == access_pb2.Limits(calls_per_second=500)
            # No limit at all is something else than what the settings say.
            told = await operator.limit("default", entity=access_pb2.Limits())
            assert told.limits == access_pb2.Limits()
            assert await usage(wire) == (0, 0)
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
            info = await stub.GetServerInfo(registry_pb2.GetServerInfoRequest())
            told_limits = {limit.name: limit.value for limit in info.limits}
        assert told_limits["default_quota_bytes"] == 1000
        assert told_limits["calls_per_second_per_key"] == 500
        # One that there is not is not told.
        assert "max_streams_per_key" not in told_limits


async def test_without_keys_each_entity_has_the_default_quota(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--default-quota-bytes", "1000") as server:
        for entity in ("one", "two"):
            async with Wire(server.target, entity) as wire:
                session = await wire.session()
                await wire.put_blob(session, os.urandom(800))
                (*_, answer) = await wire.put(session, [chunk(os.urandom(800))])
                assert answer.failures[0].error.reason == "QUOTA_EXCEEDED"
                assert await usage(wire) == (864, 1000)


def test_whoami_tells_what_is_stored(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--default-quota-bytes", "5000000000", auth="keys") as server:
        environment = {**os.environ, "LADING_URL": server.target, "HOME": str(tmp_path)}

        def whoami(key: str, *flags: str) -> str:
            command = [str(Path(sys.executable).with_name("lading")), "whoami", *flags]
            keyed = {**environment, "LADING_API_KEY": key}
            return subprocess.run(command, env=keyed, stdout=subprocess.PIPE, text=True, check=True).stdout

        assert "stored     0 B of 5.0 GB" in whoami(server.api_key)
        assert '"used_bytes": 0, "limit_bytes": 5000000000' in whoami(server.api_key, "--json")
        # An operator stores nothing anywhere.
        assert "stored" not in whoami((server.data / "operator.key").read_text().strip())
