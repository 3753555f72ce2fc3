"""Ingest and registry as two processes that show certificates to each other."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

import lading
from lading_proto.registry.v1 import keys_pb2
from lading_server.common.peers import PeerFailed, dialed
from lading_server.common.settings import load_settings
from lading_server.common.tls import Certificates
from lading_server.ingest.registry_keys import RemoteKeys
from tests.integration.test_two_processes import free_port
from tests.support.certificates import LOCAL, Authority, Pair
from tests.support.server import ServerProcess, running_server


class Split(NamedTuple):
    ingest: ServerProcess
    registry: ServerProcess
    registry_mutual: str
    authority: Authority
    service_key: str


@pytest.fixture(params=["required", "optional"])
def split(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Split]:
    """Two processes. Clients have to show certificates as well, or have an address for those that do not."""
    authority, service_key, key_file = Authority(tmp_path), secrets.token_hex(32), tmp_path / "service.key"
    key_file.write_text(service_key)
    ingest_at, registry_at, ingest_mutual, registry_mutual = (f"127.0.0.1:{free_port()}" for _ in range(4))
    is_required = request.param == "required"
    if is_required:
        ingest_mutual, registry_mutual = ingest_at, registry_at
    with ExitStack() as stack:

        def run(name: str, at: str, mutual: str, *flags: str) -> ServerProcess:
            served, shown = authority.issue(name, *LOCAL), authority.issue(f"{name}-as-a-client")
            tls = ["--tls-cert", served.cert, "--tls-key", served.key, "--tls-client-ca", authority.file]
            peer = ["--peer-ca", authority.file, "--peer-cert", shown.cert, "--peer-key", shown.key]
            auth = ["--tls-client-auth", request.param, *([] if is_required else ["--mutual-listen", mutual])]
            shared = ["--services", name, "--listen", at, "--service-key-file", key_file, "--key-cache-seconds", "0"]
            arguments = map(str, [*tls, *peer, *auth, *shared, *flags])
            return stack.enter_context(running_server(tmp_path / name, *arguments, auth="keys"))

        ingest = run("ingest", ingest_at, ingest_mutual, "--registry-target", registry_mutual)
        targets = ("--ingest-target", ingest_at, "--ingest-peer-target", ingest_mutual)
        registry = run("registry", registry_at, registry_mutual, *targets)
        yield Split(ingest, registry, registry_mutual, authority, service_key)


async def test_a_version_is_committed_through_both(split: Split, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    shown = split.authority.issue("client")
    async with lading.Client(
        f"grpcs://{split.registry.target}",
        api_key=split.registry.api_key,
        ca_file=split.authority.file,
        client_cert=shown.cert,
        client_key=shown.key,
        retry=0,
    ) as client:
        await client.put(tmp_path / "model.bin", "vision/digits", type="model")
        fetched = await (await client.version("vision/digits:latest")).download(tmp_path / "fetched")
    assert (Path(fetched) / "model.bin").read_bytes() == b"weights"


async def test_the_service_key_is_nothing_without_a_certificate(split: Split) -> None:
    settings = load_settings(["--peer-ca", str(split.authority.file)], {})
    for target in (split.registry.target, split.registry_mutual):
        async with dialed(target, split.service_key, Certificates(settings)) as peer:
            with pytest.raises(PeerFailed):
                await peer.ask(RemoteKeys(peer)._stub.CheckKey, _key(), 5)


async def test_the_service_key_works_with_a_certificate(split: Split) -> None:
    shown = split.authority.issue("service")
    settings = _peer_settings(split.authority, shown)
    async with dialed(split.registry_mutual, split.service_key, Certificates(settings)) as peer:
        assert not (await peer.ask(RemoteKeys(peer)._stub.CheckKey, _key(), 5)).HasField("grant")


class _Mirror(grpc.GenericRpcHandler):
    """Answers with the name in the client's certificate; `/waits` not before it may."""

    def __init__(self) -> None:
        self.entered, self.gate = asyncio.Event(), asyncio.Event()

    def service(self, details: Any) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            if details.method.endswith("/waits"):
                self.entered.set()
                await self.gate.wait()
            return bytes(context.auth_context()["x509_common_name"][0])

        return grpc.unary_unary_rpc_method_handler(answer)


async def test_the_certificate_for_the_other_service_changes_under_open_calls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served, shown = authority.issue("server", *LOCAL), authority.issue("before")
    pair = (served.key.read_bytes(), served.cert.read_bytes())
    server, mirror = grpc.aio.server(), _Mirror()
    server.add_generic_rpc_handlers([mirror])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], authority.file.read_bytes(), True))
    await server.start()
    certificates = Certificates(_peer_settings(authority, shown))
    async with asyncio.timeout(30), dialed(f"127.0.0.1:{port}", "", certificates) as peer:
        call = peer.channel.unary_unary("/test/answers")
        open_call = peer.channel.unary_unary("/test/waits")(b"")
        assert await call(b"") == b"before"
        await mirror.entered.wait()
        shown.replace(authority.issue("after"))
        certificates.read_again()
        assert await call(b"") == b"after"
        shutil.copy(served.key, shown.key)
        certificates.read_again()
        assert await call(b"") == b"after"
        mirror.gate.set()
        assert await open_call == b"before"
    await server.stop(None)


def _peer_settings(authority: Authority, shown: Pair) -> Any:
    flags = ["--peer-ca", authority.file, "--peer-cert", shown.cert, "--peer-key", shown.key]
    return load_settings([str(flag) for flag in flags], {})


def _key() -> Any:
    return keys_pb2.CheckKeyRequest(key_id="x", secret_hash=bytes(32))
