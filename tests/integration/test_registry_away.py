"""Ingest and registry as two processes, and the registry dies: keys that were good read on, and write no more."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, files_pb2, trees_pb2, usage_pb2
from lading_proto.registry.v1 import access_pb2
from lading_server.common.keys import ApiKey, parse_key
from tests.support.server import ServerProcess, running_server
from tests.support.server_operator import operator_of
from tests.support.wire import Wire, chunk, digest_of, file_entry, put_start, reason_of, text_digest

DATA = b"weights"
# Of a condition that has to come true; what never does is a failure of the test.
PATIENCE_SECONDS = 30.0


def free_port() -> int:
    """A port that is free now; both processes have to be told of it before either runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Pair:
    """Both halves, and how to start the registry again."""

    directory: Path
    flags: tuple[str, ...]
    ingest: ServerProcess
    registry: ServerProcess

    def start_registry(self) -> None:
        self.registry.close()
        self.registry = ServerProcess(self.directory / "registry", *self.flags, auth="keys")


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Keys are believed for no time at all, unless the test says otherwise."""
    believed, grace = getattr(request, "param", ("0", "3600"))
    key_file = tmp_path / "service.key"
    key_file.write_text(secrets.token_hex(32))
    ingest_at, registry_at = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    shared = ("--service-key-file", str(key_file), "--key-cache-seconds", believed)
    flags = ("--services", "registry", "--listen", registry_at, "--ingest-target", ingest_at, *shared)
    ingest_flags = ("--services", "ingest", "--listen", ingest_at, "--registry-target", registry_at, *shared)
    with running_server(tmp_path / "ingest", *ingest_flags, "--key-grace-seconds", grace, auth="keys") as ingest:
        both = Pair(tmp_path, flags, ingest, ServerProcess(tmp_path / "registry", *flags, auth="keys"))
        try:
            yield both
        finally:
            both.registry.close()


async def stored_tree(wire: Wire) -> str:
    session = await wire.session()
    await wire.put_blob(session, DATA)
    return str((await wire.put_tree(session, [file_entry("model.bin", DATA)])).tree.digest)


async def outcome(call: Any) -> str:
    """The reason of a refusal, or "" where the call was answered."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


async def drained(stream: Any) -> None:
    async for _ in stream:
        continue


def reads(wire: Wire, tree: str) -> dict[str, Any]:
    entity, stub = wire.entity, wire.stub
    ranges = [chunks_pb2.BlobRange(blob_digest=digest_of(DATA))]
    return {
        "GetCapabilities": stub.GetCapabilities(capabilities_pb2.GetCapabilitiesRequest(entity=entity)),
        "GetTree": stub.GetTree(trees_pb2.GetTreeRequest(entity=entity, tree_digest=tree)),
        "ListTree": stub.ListTree(trees_pb2.ListTreeRequest(entity=entity, tree_digest=tree)),
        "DiffTrees": stub.DiffTrees(trees_pb2.DiffTreesRequest(entity=entity, base_digest=tree, target_digest=tree)),
        "StatBlobs": stub.StatBlobs(chunks_pb2.StatBlobsRequest(entity=entity, digests=[text_digest(DATA)])),
        "ReadBlobs": drained(stub.ReadBlobs(chunks_pb2.ReadBlobsRequest(entity=entity, ranges=ranges))),
        "ReadFile": wire.read(text_digest(DATA)),
    }


def others(wire: Wire, session: str) -> dict[str, Any]:
    entity, stub = wire.entity, wire.stub
    return {
        "OpenSession": wire.session(),
        "CloseSession": stub.CloseSession(chunks_pb2.CloseSessionRequest(entity=entity, session_id=session)),
        "FindMissingChunks": wire.missing(session, [DATA]),
        "PutChunks": wire.put(session, [chunk(b"more")]),
        "CommitBlobs": wire.commit(session, []),
        "PutTree": wire.put_tree(session, []),
        "GetUpload": stub.GetUpload(files_pb2.GetUploadRequest(entity=entity, upload_id="u")),
        "GetUsage": stub.GetUsage(usage_pb2.GetUsageRequest(entity=entity)),
    }


async def test_a_registry_that_was_killed_stops_writes_and_not_reads(pair: Pair) -> None:
    known = parse_key(pair.registry.api_key)
    async with (
        Wire(pair.ingest.target, "default", key=known.text) as wire,
        Wire(pair.ingest.target, "default", key=ApiKey(known.key_id, "A" * 43).text) as stranger,
    ):
        tree, session = await stored_tree(wire), await wire.session()
        pair.registry.kill()
        calls = reads(wire, tree)
        answers = [await outcome(call) for call in calls.values()]
        assert dict(zip(calls, answers, strict=True)) == dict.fromkeys(calls, "")
        calls = others(wire, session)
        refusals = await asyncio.gather(*map(outcome, calls.values()))
        assert dict(zip(calls, refusals, strict=True)) == dict.fromkeys(calls, "KEYS_UNAVAILABLE")
        # Nobody else comes in by the same door.
        assert await outcome(stranger.read(text_digest(DATA))) == "KEYS_UNAVAILABLE"
        assert await wire.read(text_digest(DATA)) == DATA


async def test_a_key_that_ingest_never_saw_does_not_read(pair: Pair) -> None:
    async with operator_of(pair.registry) as operator:
        fresh = await operator.new_key("default", pair.registry.api_key)
    async with (
        Wire(pair.ingest.target, "default", key=pair.registry.api_key) as known,
        Wire(pair.ingest.target, "default", key=fresh) as unknown,
    ):
        await stored_tree(known)
        pair.registry.kill()
        assert await known.read(text_digest(DATA)) == DATA
        assert await outcome(unknown.read(text_digest(DATA))) == "KEYS_UNAVAILABLE"


@pytest.mark.parametrize("pair", [("0", "0")], indirect=True)
async def test_the_grace_ends(pair: Pair) -> None:
    async with Wire(pair.ingest.target, "default", key=pair.registry.api_key) as wire:
        await stored_tree(wire)
        pair.registry.kill()
        assert await outcome(wire.read(text_digest(DATA))) == "KEYS_UNAVAILABLE"


async def test_a_key_that_was_revoked_stops_when_the_registry_is_back(pair: Pair) -> None:
    admin = pair.registry.api_key
    async with operator_of(pair.registry) as operator:
        revoked = await operator.new_key("default", admin)
    async with Wire(pair.ingest.target, "default", key=revoked) as wire:
        await stored_tree(wire)
        pair.registry.kill()
        assert await wire.read(text_digest(DATA)) == DATA
        await asyncio.to_thread(pair.start_registry)
        async with operator_of(pair.registry) as operator:
            await operator.revoke("default", admin, revoked)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await outcome(wire.read(text_digest(DATA))) != "KEY_INVALID":
                continue
        # It is not believed again when the registry is away once more.
        pair.registry.kill()
        assert await outcome(wire.read(text_digest(DATA))) == "KEYS_UNAVAILABLE"


@pytest.mark.parametrize("pair", [("1", "3600")], indirect=True)
async def test_a_key_that_was_revoked_stops_in_its_time_while_the_registry_answers(pair: Pair) -> None:
    admin = pair.registry.api_key
    async with operator_of(pair.registry) as operator:
        key = await operator.new_key("default", admin)
        async with Wire(pair.ingest.target, "default", key=key) as wire:
            await stored_tree(wire)
            await operator.revoke("default", admin, key)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await outcome(wire.read(text_digest(DATA))) != "KEY_INVALID":
                    continue
            assert await outcome(wire.session()) == "KEY_INVALID"


async def test_limits_come_with_the_key_to_ingest(pair: Pair) -> None:
    async with (
        operator_of(pair.registry) as operator,
        Wire(pair.ingest.target, "default", key=pair.registry.api_key) as wire,
    ):
        await operator.limit("default", entity=access_pb2.Limits(stored_bytes=100), key=access_pb2.Limits(streams=1))
        session = await wire.session()
        (*_, answer) = await wire.put(session, [chunk(DATA), chunk(b"x" * 1000)])
        assert [(one.index, one.error.reason) for one in answer.failures] == [(1, "QUOTA_EXCEEDED")]
        told = await wire.stub.GetUsage(usage_pb2.GetUsageRequest(entity="default"))
        assert (told.used_bytes, told.limit_bytes) == (72, 100)
        call = wire.stub.PutChunks()
        await call.write(put_start(session, "default"))
        await call.read()
        assert await outcome(wire.put(session, [])) == "TOO_MANY_STREAMS"
        call.cancel()
        await operator.limit("default", entity=access_pb2.Limits(calls_per_second=1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await outcome(wire.session()) != "RATE_LIMITED":
                continue
