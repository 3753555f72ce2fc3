"""Keys: no rpc answers without one, and with another entity's key none tells anything."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lading_format.local_server import local_server_path
from lading_proto.ingest.v1 import chunks_pb2, ingest_pb2, pins_pb2
from lading_proto.registry.v1 import keys_pb2, registry_pb2
from lading_server.common.keys import new_key
from tests.support.server import ServerProcess, running_server
from tests.support.wire import iter_of, reason_of

PUBLIC = (
    ingest_pb2.DESCRIPTOR.services_by_name["IngestService"],
    registry_pb2.DESCRIPTOR.services_by_name["RegistryService"],
)
INTERNAL = (
    pins_pb2.DESCRIPTOR.services_by_name["PinService"],
    keys_pb2.DESCRIPTOR.services_by_name["KeyService"],
)
# What needs no key, and what names no entity.
OPEN = {"GetServerInfo"}
NAMELESS = {"GetServerInfo", "WhoAmI"}


def methods(services: tuple[ServiceDescriptor, ...]) -> list[MethodDescriptor]:
    return [method for service in services for method in service.methods]


KEYED = [method for method in methods(PUBLIC) if method.name not in OPEN]


def message_class(descriptor: Descriptor) -> Any:
    module = import_module(descriptor.file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return getattr(module, descriptor.name)


def named(method: MethodDescriptor, entity: str) -> Any:
    """The request, or the first message of the stream, with nothing in it but an entity."""
    message = message_class(method.input_type)()
    if "entity" in method.input_type.fields_by_name:
        message.entity = entity
    elif "start" in method.input_type.fields_by_name:
        message.start.entity = entity
    return message


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("keyed") / "data", auth="keys") as server:
        yield server


@asynccontextmanager
async def channel_to(server: ServerProcess) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


async def call(channel: Any, method: MethodDescriptor, messages: list[Any], key: str | None) -> list[Any]:
    """Make any call; return what it answered. Raises AioRpcError."""
    metadata = [] if key is None else [("authorization", f"Bearer {key}")]
    path = f"/{method.containing_service.full_name}/{method.name}"
    shape = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    multi = shape(
        path, message_class(method.input_type).SerializeToString, message_class(method.output_type).FromString
    )
    made = multi(iter_of(messages) if method.client_streaming else messages[0], metadata=metadata, timeout=30)
    return [answer async for answer in made] if method.server_streaming else [await made]


async def refusal(channel: Any, method: MethodDescriptor, messages: list[Any], key: str | None) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, messages, key)
    return caught.value.code().name, reason_of(caught.value), caught.value.details() or ""


# --- every rpc ---


def test_every_request_names_its_entity_where_it_is_looked_for() -> None:
    for method in KEYED:
        if method.name not in NAMELESS:
            fields = method.input_type.fields_by_name
            start = fields["start"].message_type if "start" in fields else None
            is_named = "entity" in fields or (start is not None and "entity" in start.fields_by_name)
            assert is_named, f"{method.full_name} hides its entity"


@pytest.mark.parametrize("method", KEYED, ids=lambda method: method.name)
async def test_without_a_key_no_rpc_answers(keyed_server: ServerProcess, method: MethodDescriptor) -> None:
    async with channel_to(keyed_server) as channel:
        message = named(method, "default")
        assert (await refusal(channel, method, [message], None))[:2] == ("UNAUTHENTICATED", "KEY_MISSING")
        for key in ("nonsense", new_key().text, keyed_server.api_key[:-1], ""):
            assert (await refusal(channel, method, [message], key))[:2] == ("UNAUTHENTICATED", "KEY_INVALID")


@pytest.mark.parametrize(
    "method", [method for method in KEYED if method.name not in NAMELESS], ids=lambda method: method.name
)
async def test_with_another_entitys_key_no_rpc_tells_anything(
    keyed_server: ServerProcess, method: MethodDescriptor
) -> None:
    async with channel_to(keyed_server) as channel:
        told = [
            await refusal(channel, method, [named(method, entity)], keyed_server.api_key)
            for entity in ("rival", "never-heard-of", "Not A Name")
        ]
    # Whether there is such an entity does not show.
    assert {(code, reason) for code, reason, _ in told} == {("PERMISSION_DENIED", "ENTITY_DENIED")}
    assert len({text for _, _, text in told}) == 1


@pytest.mark.parametrize("method", methods(INTERNAL), ids=lambda method: method.name)
async def test_what_the_services_ask_of_each_other_is_not_served_in_one_process(
    keyed_server: ServerProcess, method: MethodDescriptor
) -> None:
    async with channel_to(keyed_server) as channel:
        code, _, _ = await refusal(channel, method, [named(method, "default")], keyed_server.api_key)
        assert code == "UNIMPLEMENTED"


async def test_a_later_message_of_a_stream_cannot_name_another_entity(keyed_server: ServerProcess) -> None:
    (method,) = (method for method in KEYED if method.name == "PutChunks")
    async with channel_to(keyed_server) as channel:
        (open_session,) = (method for method in KEYED if method.name == "OpenSession")
        (session,) = await call(channel, open_session, [named(open_session, "default")], keyed_server.api_key)
        messages = [
            chunks_pb2.PutChunksRequest(start=chunks_pb2.PutChunksStart(entity=entity, session_id=session.session_id))
            for entity in ("default", "rival")
        ]
        assert (await refusal(channel, method, messages, keyed_server.api_key))[1] == "ENTITY_DENIED"


# --- what needs none ---


async def test_health_reflection_and_server_info_need_no_key(keyed_server: ServerProcess) -> None:
    async with channel_to(keyed_server) as channel:
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = [
            one async for one in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter_of([ask]))
        ]
        served = {service.name for service in answer.list_services_response.service}
        assert {service.full_name for service in PUBLIC} <= served
        assert not {service.full_name for service in INTERNAL} & served
        (info,) = (method for method in methods(PUBLIC) if method.name == "GetServerInfo")
        (told,) = await call(channel, info, [registry_pb2.GetServerInfoRequest()], None)
        assert told.ingest_target == ""


# --- the first key ---


async def test_the_first_start_leaves_a_key_that_only_its_owner_can_read(keyed_server: ServerProcess) -> None:
    path = keyed_server.data / "admin.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"admin key in {path}" in keyed_server.ready_line
    assert re.fullmatch(r"lading_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", keyed_server.api_key)
    async with channel_to(keyed_server) as channel:
        (who,) = (method for method in KEYED if method.name == "WhoAmI")
        (told,) = await call(channel, who, [registry_pb2.WhoAmIRequest()], keyed_server.api_key)
    assert (told.principal, told.entity) == ("admin", "default")


def test_a_second_start_keeps_the_key(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--default-entity", "acme", auth="keys") as server:
        key = server.api_key
        server.terminate()
    with running_server(tmp_path / "data", auth="keys") as server:
        assert server.api_key == key
    os.unlink(tmp_path / "data" / "admin.key")
    with running_server(tmp_path / "data", auth="keys") as server:
        # There is a key; whoever took its file has it.
        assert not (tmp_path / "data" / "admin.key").exists()
        assert "admin key" not in server.ready_line


async def test_the_log_has_the_keys_id_and_never_its_secret(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--log-level", "debug", auth="keys") as server:
        key = server.api_key
        async with channel_to(server) as channel:
            (who,) = (method for method in KEYED if method.name == "WhoAmI")
            await call(channel, who, [registry_pb2.WhoAmIRequest()], key)
            await refusal(channel, who, [registry_pb2.WhoAmIRequest()], key + "x")
            await refusal(
                channel, who, [registry_pb2.WhoAmIRequest()], key.replace(key[10], "y" if key[10] == "z" else "z")
            )
        server.terminate()
        lines = [json.loads(line) for line in server.log_text().splitlines()]
    calls = [line for line in lines if line["message"] == "call"]
    _, key_id, _ = key.split("_", 2)
    assert [line["caller"] for line in calls] == [f"admin/{key_id}", "", ""]
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") for line in calls)
    assert key[20:] not in server.log_text()
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file() and path.name != "admin.key":
            assert key[20:].encode() not in path.read_bytes(), path


# --- shells next door ---


def test_a_running_server_leaves_word_for_the_shells_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_server(tmp_path / "data", auth="keys") as server:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(server.runtime))
        host, _, port = server.target.rpartition(":")
        path = Path(local_server_path(host, int(port)))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        word = json.loads(path.read_text())
        assert word == {"address": server.target, "key_file": str(tmp_path / "data/admin.key"), "pid": server.pid}
        assert Path(word["key_file"]).read_text().strip() == server.api_key
        server.terminate()
        assert list(path.parent.iterdir()) == []
