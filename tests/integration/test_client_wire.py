"""What every call of a client carries, and over which connection: the key, and TLS where it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import lading
from lading._address import parse_address
from lading._transport import Transport
from lading_proto.ingest.v1 import files_pb2
from lading_proto.registry.v1 import collections_pb2, registry_pb2

_TLS = Path(__file__).parents[1] / "support" / "tls"
_INGEST = "lading.ingest.v1.IngestService"
_REGISTRY = "lading.registry.v1.RegistryService"


class _Recorder(grpc.GenericRpcHandler):
    """Answers a call of each kind, and keeps the key that it came with."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.ingest_target = ""
        self.request_ids: list[str] = []

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        self.keys[method] = dict(details.invocation_metadata).get("authorization", "")
        return {
            "GetServerInfo": grpc.unary_unary_rpc_method_handler(self._info),
            "CreateCollection": grpc.unary_unary_rpc_method_handler(self._create),
            "WhoAmI": grpc.unary_unary_rpc_method_handler(_whoami),
            "GetUpload": grpc.unary_unary_rpc_method_handler(_unary),
            "ReadFile": grpc.unary_stream_rpc_method_handler(_answers),
            "UploadFile": grpc.stream_unary_rpc_method_handler(_whole),
            "PutChunks": grpc.stream_stream_rpc_method_handler(_answers),
            "CommitBlobs": grpc.stream_stream_rpc_method_handler(_answers),
        }.get(method)

    async def _info(self, request: bytes, context: Any) -> bytes:
        return registry_pb2.GetServerInfoResponse(ingest_target=self.ingest_target).SerializeToString()

    async def _create(self, request: bytes, context: Any) -> bytes:
        """Break down at every first attempt, as if the answer got lost."""
        self.request_ids.append(collections_pb2.CreateCollectionRequest.FromString(request).request_id)
        if len(self.request_ids) % 2:
            await context.abort(grpc.StatusCode.UNKNOWN, "the answer got lost")
        collection = collections_pb2.Collection(kind=collections_pb2.COLLECTION_KIND_SEQUENCE)
        return collections_pb2.CreateCollectionResponse(collection=collection).SerializeToString()


async def _whoami(request: bytes, context: Any) -> bytes:
    return registry_pb2.WhoAmIResponse(principal="admin", entity="acme").SerializeToString()


async def _unary(request: Any, context: Any) -> bytes:
    return b""


async def _whole(requests: AsyncIterator[bytes], context: Any) -> bytes:
    async for _ in requests:
        pass
    return b""


async def _answers(request: Any, context: Any) -> AsyncIterator[bytes]:
    yield b""


@asynccontextmanager
async def _serving(recorder: _Recorder, *, tls: bool) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([recorder])
    if tls:
        pair = ((_TLS / "localhost.key").read_bytes(), (_TLS / "localhost.pem").read_bytes())
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def _call_each_kind(transport: Transport) -> None:
    await transport.call(transport.registry.WhoAmI, registry_pb2.WhoAmIRequest())
    await transport.call(transport.control.GetUpload, files_pb2.GetUploadRequest())
    read = transport.bulk(0).ReadFile(files_pb2.ReadFileRequest())
    for call in (read, transport.put_chunks(1), transport.control.CommitBlobs()):
        stream: Any = transport.stream(call)
        assert await stream.read(10) is not None
        stream.cancel()
    upload: Any = transport.stream(transport.bulk(0).UploadFile())
    await upload.done_writing()
    await upload.result()


_KINDS = {"WhoAmI", "GetUpload", "ReadFile", "UploadFile", "PutChunks", "CommitBlobs"}


async def test_the_key_goes_with_every_kind_of_call() -> None:
    recorder = _Recorder()
    async with _serving(recorder, tls=False) as port:
        transport = Transport(parse_address(f"127.0.0.1:{port}"), "the-key")
        await _call_each_kind(transport)
        await transport.close()
    assert recorder.keys == dict.fromkeys(_KINDS, "Bearer the-key")


async def test_without_a_key_none_is_sent() -> None:
    recorder = _Recorder()
    async with _serving(recorder, tls=False) as port:
        transport = Transport(parse_address(f"127.0.0.1:{port}"))
        await _call_each_kind(transport)
        await transport.close()
    assert recorder.keys == dict.fromkeys(_KINDS, "")


async def test_tls_trusts_what_the_system_trusts(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = _Recorder()
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    async with _serving(recorder, tls=True) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(_TLS / "localhost.pem"))
        async with lading.Client(f"grpcs://localhost:{port}", api_key="the-key") as client:
            assert await client.whoami() == lading.Identity("admin", "acme")
        monkeypatch.delenv("SSL_CERT_FILE")
        async with lading.Client(f"grpcs://localhost:{port}", api_key="secret", retry=0) as client:
            with pytest.raises(lading.Unavailable):
                await client.whoami()
        async with lading.Client(f"localhost:{port}", api_key="secret", retry=0) as client:
            with pytest.raises(lading.Unavailable):
                await client.whoami()
    assert recorder.keys == {"WhoAmI": "Bearer the-key"}


async def test_content_goes_to_where_the_registry_says_that_it_is() -> None:
    names, content = _Recorder(), _Recorder()
    async with _serving(names, tls=False) as port, _serving(content, tls=False) as other_port:
        names.ingest_target = f"127.0.0.1:{other_port}"
        async with lading.Client(f"127.0.0.1:{port}", api_key="the-key", retry=0) as client:
            with pytest.raises(lading.Incompatible):  # it knows no GetCapabilities
                await client.put({}, "digits", type="dataset")
    assert names.keys.keys() == {"GetServerInfo", "WhoAmI"}
    assert content.keys == {"GetCapabilities": "Bearer the-key"}


async def test_a_change_is_repeated_with_the_request_id_that_it_had() -> None:
    recorder = _Recorder()
    async with _serving(recorder, tls=False) as port, lading.Client(f"127.0.0.1:{port}") as client:
        await client.create_collection("digits", type="dataset")
        await client.create_collection("digits", type="dataset")
    first, again, second, second_again = recorder.request_ids
    assert (first, second) == (again, second_again)
    assert first != second
    assert len(first) == 32
