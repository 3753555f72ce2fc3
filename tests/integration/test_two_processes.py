"""Ingest and registry as two processes: the same code, a service key between them, and one address for clients."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from lading_format.digest import parse_digest
from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, ingest_pb2_grpc, pins_pb2, pins_pb2_grpc
from lading_proto.registry.v1 import (
    access_pb2,
    access_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from lading_server.common.errors import TreeNotFound
from lading_server.common.keys import ApiKey, parse_key
from lading_server.common.peers import dialed
from lading_server.common.registry_errors import IngestUnavailable, PinConflict, PinReleased
from lading_server.registry.ingest_pins import RemotePins
from tests.support.server import ServerProcess, running_server
from tests.support.wire import Wire, file_entry, reason_of


class Pair(NamedTuple):
    ingest: ServerProcess
    registry: ServerProcess
    service_key: str

    @property
    def key(self) -> str:
        return self.registry.api_key


def free_port() -> int:
    """A port that is free now; both processes have to be told of it before either runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    service_key, key_file = secrets.token_hex(32), tmp_path / "service.key"
    key_file.write_text(service_key + "\n")
    ports = free_port(), free_port()
    ingest_at, registry_at = (f"127.0.0.1:{port}" for port in ports)
    shared = ("--service-key-file", str(key_file), "--key-cache-seconds", "0")
    ingest_flags = ("--services", "ingest", "--listen", ingest_at, "--registry-target", registry_at)
    registry_flags = ("--services", "registry", "--listen", registry_at, "--ingest-target", ingest_at)
    with (
        running_server(tmp_path / "ingest", *ingest_flags, *shared, auth="keys") as ingest,
        running_server(tmp_path / "registry", *registry_flags, *shared, auth="keys") as registry,
    ):
        yield Pair(ingest, registry, service_key)


def bearer(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


async def put_tree(pair: Pair) -> bytes:
    async with Wire(pair.ingest.target, "default", key=pair.key) as wire:
        session = await wire.session()
        await wire.put_blob(session, b"weights")
        response = await wire.put_tree(session, [file_entry("model.bin", b"weights")])
        return parse_digest(response.tree.digest)


async def test_clients_are_told_where_ingest_is(pair: Pair) -> None:
    async with grpc.aio.insecure_channel(pair.registry.target) as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        assert (await stub.GetServerInfo(registry_pb2.GetServerInfoRequest())).ingest_target == pair.ingest.target


async def test_a_pin_goes_from_the_registrys_adapter_to_ingest(pair: Pair) -> None:
    tree, version = await put_tree(pair), os.urandom(16)
    async with dialed(pair.ingest.target, pair.service_key) as peer:
        pins = RemotePins(peer)
        for _ in range(2):
            pinned = await pins.acquire("default", version, tree)
            assert (pinned.file_count, pinned.reference_count, pinned.size_bytes) == (1, 0, 7)
        with pytest.raises(TreeNotFound) as missing:
            await pins.acquire("default", os.urandom(16), b"x" * 32)
        assert missing.value.metadata["digest"] == f"b3:{(b'x' * 32).hex()}"
        with pytest.raises(TreeNotFound):
            await pins.acquire("rival", os.urandom(16), tree)
        stub: Any = pins_pb2_grpc.PinServiceStub(peer.channel)
        ask = pins_pb2.ListPinsRequest(entity="default")
        (listed,) = (await stub.ListPins(ask, metadata=bearer(pair.service_key))).pins
        assert (listed.version_uid, parse_digest(listed.tree_digest)) == (version, tree)
        await pins.release("default", version)
        await pins.release("default", version)
        assert not (await stub.ListPins(ask, metadata=bearer(pair.service_key))).pins
        with pytest.raises(PinReleased):
            await pins.acquire("default", version, tree)


async def test_a_conflict_comes_through_as_what_it_is(pair: Pair) -> None:
    tree, version = await put_tree(pair), os.urandom(16)
    async with Wire(pair.ingest.target, "default", key=pair.key) as wire:
        other = parse_digest((await wire.put_tree(await wire.session(), [])).tree.digest)
    async with dialed(pair.ingest.target, pair.service_key) as peer:
        pins = RemotePins(peer)
        await pins.acquire("default", version, tree)
        with pytest.raises(PinConflict):
            await pins.acquire("default", version, other)


async def test_ingest_that_is_down_is_told_and_found_again(pair: Pair, tmp_path: Path) -> None:
    tree = await put_tree(pair)
    host_and_port = pair.ingest.target
    async with dialed(host_and_port, pair.service_key) as peer:
        pins = RemotePins(peer)
        pair.ingest.kill()
        with pytest.raises(IngestUnavailable):
            await pins.acquire("default", os.urandom(16), tree)
        waiting = asyncio.create_task(pins.acquire("default", os.urandom(16), tree))
        flags = ("--services", "ingest", "--listen", host_and_port, "--registry-target", pair.registry.target)
        key_file = ("--service-key-file", str(tmp_path / "service.key"))
        started = await asyncio.to_thread(ServerProcess, tmp_path / "ingest", *flags, *key_file, auth="keys")
        try:
            # The restart may have taken longer than one call is repeated.
            try:
                await waiting
            except IngestUnavailable:
                await pins.acquire("default", os.urandom(16), tree)
        finally:
            await asyncio.to_thread(started.close)


@pytest.mark.parametrize("key", ["", "0" * 64])
async def test_the_wrong_service_key_opens_nothing(pair: Pair, key: str) -> None:
    async with dialed(pair.ingest.target, key) as peer:
        with pytest.raises(IngestUnavailable):
            await RemotePins(peer).release("default", os.urandom(16))


async def test_a_persons_key_opens_neither_service_and_the_service_key_no_other(pair: Pair) -> None:
    async with (
        grpc.aio.insecure_channel(pair.ingest.target) as ingest,
        grpc.aio.insecure_channel(pair.registry.target) as registry,
    ):
        pin: Any = pins_pb2_grpc.PinServiceStub(ingest)
        key: Any = keys_pb2_grpc.KeyServiceStub(registry)
        content: Any = ingest_pb2_grpc.IngestServiceStub(ingest)
        names: Any = registry_pb2_grpc.RegistryServiceStub(registry)
        for method, request, bearer_key in (
            (pin.ListPins, pins_pb2.ListPinsRequest(entity="default"), pair.key),
            (key.CheckKey, keys_pb2.CheckKeyRequest(key_id="x"), pair.key),
            (content.OpenSession, chunks_pb2.OpenSessionRequest(entity="default"), pair.service_key),
            (names.WhoAmI, registry_pb2.WhoAmIRequest(), pair.service_key),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request, metadata=bearer(bearer_key))
            assert (caught.value.code().name, reason_of(caught.value)) == ("UNAUTHENTICATED", "KEY_INVALID")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request)
            assert (caught.value.code().name, reason_of(caught.value)) == ("UNAUTHENTICATED", "KEY_MISSING")


async def test_ingest_asks_the_registry_about_keys(pair: Pair) -> None:
    async with grpc.aio.insecure_channel(pair.ingest.target) as channel:
        stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)

        async def reason(entity: str, key: str) -> str:
            try:
                await stub.OpenSession(chunks_pb2.OpenSessionRequest(entity=entity), metadata=bearer(key))
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return ""

        assert await reason("default", pair.key) == ""
        assert await reason("rival", pair.key) == "ENTITY_DENIED"
        known = parse_key(pair.key)
        assert await reason("default", ApiKey(known.key_id, "A" * 43).text) == "KEY_INVALID"
        pair.registry.kill()
        assert await reason("default", pair.key) == "KEYS_UNAVAILABLE"


async def test_a_role_and_its_end_reach_ingest(pair: Pair) -> None:
    async with (
        grpc.aio.insecure_channel(pair.ingest.target) as ingest,
        grpc.aio.insecure_channel(pair.registry.target) as registry,
    ):
        access: Any = access_pb2_grpc.AccessServiceStub(registry)
        content: Any = ingest_pb2_grpc.IngestServiceStub(ingest)

        async def refused(method: Any, request: Any, key: str) -> str:
            try:
                await method(request, metadata=bearer(key))
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return ""

        member = access_pb2.AddMemberRequest(entity="default", name="vic", role=access_pb2.ROLE_VIEWER)
        await access.AddMember(member, metadata=bearer(pair.key))
        asked = access_pb2.CreateKeyRequest(entity="default", member="vic")
        made = await access.CreateKey(asked, metadata=bearer(pair.key))
        read = (content.GetCapabilities, capabilities_pb2.GetCapabilitiesRequest(entity="default"), made.secret_key)
        write = (content.OpenSession, chunks_pb2.OpenSessionRequest(entity="default"), made.secret_key)
        assert await refused(*read) == ""
        assert await refused(*write) == "ROLE_DENIED"
        operator = (pair.registry.data / "operator.key").read_text().strip()
        assert await refused(read[0], read[1], operator) == "ROLE_DENIED"
        revoke = access_pb2.RevokeKeyRequest(entity="default", key_id=made.key.key_id)
        await access.RevokeKey(revoke, metadata=bearer(pair.key))
        # The pair remembers nothing: `--key-cache-seconds 0`.
        assert await refused(*read) == "KEY_INVALID"
