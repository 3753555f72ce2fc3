"""A server with TLS: content and names, client certificates, and certificates that change under open streams."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import lading
from lading_proto.ingest.v1 import files_pb2, ingest_pb2_grpc
from tests.support.certificates import LOCAL, Authority, Pair, shown_by
from tests.support.server import ServerProcess, running_server
from tests.support.wire import iter_of, text_digest

SECONDS = 30.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server", *LOCAL)


@pytest.fixture
def tls_server(tmp_path: Path, pair: Pair) -> Iterator[ServerProcess]:
    with running_server(tmp_path / "server-data", *_flags(pair)) as server:
        yield server


def _flags(pair: Pair) -> tuple[str, ...]:
    return "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)


def _client(target: str, authority: Authority, pair: Pair | None = None) -> lading.Client:
    cert, key = pair if pair is not None else (None, None)
    url = f"grpcs://{target}"
    return lading.Client(url, entity="acme", ca_file=authority.file, client_cert=cert, client_key=key, retry=0)


def _channel(target: str, authority: Authority) -> Any:
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authority.file.read_bytes()))


async def _put_and_get(client: lading.Client, root: Path) -> None:
    source = root / "source"
    source.mkdir()
    (source / "small").write_bytes(b"weights")
    (source / "large").write_bytes(bytes(3 << 20) + b"end")
    await client.put(source, "vision/digits", type="dataset")
    fetched = await (await client.version("vision/digits:latest")).download(root / "fetched")
    for name in ("small", "large"):
        assert (Path(fetched) / name).read_bytes() == (source / name).read_bytes()


async def test_versions_go_in_and_come_out_over_tls(
    tls_server: ServerProcess, authority: Authority, tmp_path: Path
) -> None:
    async with _client(tls_server.target, authority) as client:
        await _put_and_get(client, tmp_path)


async def test_content_alone_goes_over_tls(tls_server: ServerProcess, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"weights")
    async with lading.IngestClient(
        f"grpcs://{tls_server.target}", entity="acme", ca_file=authority.file, retry=0
    ) as client:
        stored = await client.upload_tree({"file": tmp_path / "file"})
        await client.download_tree(stored.tree.digest, tmp_path / "fetched")
    assert (tmp_path / "fetched/file").read_bytes() == b"weights"


async def test_health_and_reflection_answer_over_tls(tls_server: ServerProcess, authority: Authority) -> None:
    async with _channel(tls_server.target, authority) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = [answer async for answer in reflection.ServerReflectionInfo(iter_of([ask]))]
        names = {service.name for service in answer.list_services_response.service}
        assert {"lading.ingest.v1.IngestService", "lading.registry.v1.RegistryService"} <= names


def test_the_ready_line_and_the_word_for_this_user_say_the_scheme(tls_server: ServerProcess) -> None:
    assert f"is ready at grpcs://{tls_server.target} " in tls_server.ready_line
    (word,) = (tls_server.runtime / "lading/servers").iterdir()
    assert json.loads(word.read_text())["address"] == f"grpcs://{tls_server.target}"


@pytest.mark.parametrize("tls", [True, False])
def test_an_address_that_others_can_reach_needs_tls_or_a_warning(tmp_path: Path, pair: Pair, tls: bool) -> None:
    flags = _flags(pair) if tls else ("--insecure",)
    with running_server(tmp_path / "server-data", *flags, "--listen", "0.0.0.0:0") as server:
        assert ("whoever is on the way can read keys and content" in server.log_text()) is not tls


async def test_a_server_that_requires_client_certificates_takes_no_others(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    good, bad = authority.issue("client"), Authority(tmp_path, "stranger").issue("client")
    flags = ("--tls-client-auth", "required", "--tls-client-ca", str(authority.file))
    with running_server(tmp_path / "server-data", *_flags(pair), *flags) as server:
        async with _client(server.target, authority, good) as client:
            await _put_and_get(client, tmp_path)
        for shown in (None, bad):
            async with _client(server.target, authority, shown) as client:
                with pytest.raises(lading.Unavailable, match="LADING_CLIENT_CERT and LADING_CLIENT_KEY"):
                    await client.whoami()


async def test_client_certificates_are_optional_where_a_second_address_requires_them(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    shown = authority.issue("client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mutual = f"127.0.0.1:{taken.getsockname()[1]}"
    flags = ("--tls-client-auth", "optional", "--tls-client-ca", str(authority.file), "--mutual-listen", mutual)
    with running_server(tmp_path / "server-data", *_flags(pair), *flags) as server:
        for target, certificate in ((server.target, None), (server.target, shown), (mutual, shown)):
            async with _client(target, authority, certificate) as client:
                await client.whoami()
        async with _client(mutual, authority) as client:
            with pytest.raises(lading.Unavailable, match="LADING_CLIENT_CERT"):
                await client.whoami()


async def test_a_new_certificate_is_shown_to_new_connections_and_drops_no_stream(
    tls_server: ServerProcess, authority: Authority, pair: Pair
) -> None:
    content = bytes(range(256)) * (8 << 10)
    half = len(content) // 2
    async with asyncio.timeout(SECONDS), _channel(tls_server.target, authority) as channel:
        stub: Any = ingest_pb2_grpc.IngestServiceStub(channel)
        upload = stub.UploadFile()
        start = files_pb2.UploadFileStart(entity="acme", upload_id="rotated")
        await upload.write(files_pb2.UploadFileRequest(start=start))
        await upload.write(files_pb2.UploadFileRequest(data=content[:half]))
        assert await asyncio.to_thread(shown_by, tls_server.target, authority) == "server"

        pair.replace(authority.issue("renewed", *LOCAL))
        tls_server.process.send_signal(signal.SIGHUP)
        await _until(lambda: shown_by(tls_server.target, authority) == "renewed")

        # The key of another: what was good before stays.
        pair.key.write_bytes(authority.issue("another", *LOCAL).key.read_bytes())
        tls_server.process.send_signal(signal.SIGHUP)
        await _until(lambda: "the certificates in use stay" in tls_server.log_text())
        assert await asyncio.to_thread(shown_by, tls_server.target, authority) == "renewed"

        await upload.write(files_pb2.UploadFileRequest(data=content[half:]))
        await upload.write(files_pb2.UploadFileRequest(finish=files_pb2.UploadFileFinish()))
        assert (await upload).digest == text_digest(content)
    assert "BEGIN" not in tls_server.log_text()


async def _until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds; whoever waits sets the limit."""
    while not await asyncio.to_thread(condition):
        pass


def test_without_certificates_a_hangup_ends_the_process_as_ever(server: ServerProcess) -> None:
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(SECONDS) == -signal.SIGHUP
