"""Every rpc that real servers serve, called as everybody: allowed and refused as the table of roles says.

The rpcs are found by reflection, of ingest and the registry as two processes, which is where all are served. A call
that is allowed may fail for any other reason: its request holds nothing but an entity.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from lading_server.common.roles import WHO_MAY_CALL, Required, Role
from tests.support.server import ServerProcess, running_server
from tests.support.wire import iter_of, reason_of

ENTITY, RIVAL = "default", "rival"
CALLERS = ("nobody", "rival", "viewer", "member", "admin", "operator", "service")
REFUSALS = {"KEY_MISSING", "KEY_INVALID", "ENTITY_DENIED", "ROLE_DENIED"}


class Servers(NamedTuple):
    ingest: ServerProcess
    registry: ServerProcess
    keys: dict[str, str]

    def of(self, service: str) -> ServerProcess:
        """Which process serves it; health and reflection are at both."""
        return self.ingest if service.startswith("lading.ingest.") else self.registry


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),) if key else ()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    directory = tmp_path_factory.mktemp("matrix")
    service_key, key_file = secrets.token_hex(32), directory / "service.key"
    key_file.write_text(service_key)
    ingest_at, registry_at = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    shared = ("--service-key-file", str(key_file))
    ingest_flags = ("--services", "ingest", "--listen", ingest_at, "--registry-target", registry_at)
    registry_flags = ("--services", "registry", "--listen", registry_at, "--ingest-target", ingest_at)
    with (
        running_server(directory / "ingest", *ingest_flags, *shared, auth="keys") as ingest,
        running_server(directory / "registry", *registry_flags, *shared, auth="keys") as registry,
    ):
        yield Servers(ingest, registry, made_keys(registry, service_key))


def made_keys(registry: ServerProcess, service_key: str) -> dict[str, str]:
    """A key of each kind of caller."""
    admin, operator = registry.api_key, (registry.data / "operator.key").read_text().strip()
    keys = {"nobody": "", "admin": admin, "operator": operator, "service": service_key}
    with grpc.insecure_channel(registry.target) as channel:
        stub = access_pb2_grpc.AccessServiceStub(channel)
        made = stub.CreateEntity(
            access_pb2.CreateEntityRequest(name=RIVAL, admin="root"), metadata=bearer(operator), timeout=30
        )
        keys["rival"] = made.secret_key
        for name, role in (("viewer", access_pb2.ROLE_VIEWER), ("member", access_pb2.ROLE_MEMBER)):
            member = access_pb2.AddMemberRequest(entity=ENTITY, name=name, role=role)
            stub.AddMember(member, metadata=bearer(admin), timeout=30)
            key = access_pb2.CreateKeyRequest(entity=ENTITY, member=name)
            keys[name] = stub.CreateKey(key, metadata=bearer(admin), timeout=30).secret_key
    return keys


def served(target: str) -> list[MethodDescriptor]:
    """Every rpc of a server, as its reflection tells it."""
    with grpc.insecure_channel(target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        def ask(**question: str) -> Any:
            request = reflection_pb2.ServerReflectionRequest(**question)
            (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=30)
            return answer

        pool, added = DescriptorPool(), set[str]()

        def add(raw: bytes) -> None:
            file = FileDescriptorProto.FromString(raw)
            if file.name in added:
                return
            added.add(file.name)
            for name in file.dependency:
                for needed in ask(file_by_filename=name).file_descriptor_response.file_descriptor_proto:
                    add(needed)
            pool.Add(file)

        methods: list[MethodDescriptor] = []
        for service in ask(list_services="").list_services_response.service:
            for raw in ask(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto:
                add(raw)
            methods += pool.FindServiceByName(service.name).methods
        return methods


def full_name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def message_class(descriptor: Descriptor) -> Any:
    modules = {"grpc.health.v1": health_pb2, "grpc.reflection.v1alpha": reflection_pb2}
    module = modules.get(descriptor.file.package) or import_module(
        descriptor.file.name.removesuffix(".proto").replace("/", ".") + "_pb2"
    )
    return getattr(module, descriptor.name)


def names_entity(method: MethodDescriptor) -> bool:
    fields = method.input_type.fields_by_name
    start = fields["start"].message_type if "start" in fields else None
    return "entity" in fields or (start is not None and "entity" in start.fields_by_name)


async def outcome(target: str, method: MethodDescriptor, key: str) -> str:
    """Call an rpc of the entity; return the reason of a refusal, or "" where it was let in."""
    message = message_class(method.input_type)()
    if names_entity(method):
        (message if "entity" in method.input_type.fields_by_name else message.start).entity = ENTITY
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        shape = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }[method.client_streaming, method.server_streaming]
        multi: Any = shape(
            full_name(method),
            message_class(method.input_type).SerializeToString,
            message_class(method.output_type).FromString,
        )
        request = iter_of([message]) if method.client_streaming else message
        call = multi(request, metadata=bearer(key), timeout=30)
        try:
            # Of a stream the first answer tells; health's has no end.
            await (call.read() if method.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            reason = reason_of(error)
            assert reason in REFUSALS or error.code().name not in ("UNAUTHENTICATED", "PERMISSION_DENIED")
            return reason if reason in REFUSALS else ""
        finally:
            call.cancel()
    return ""


def expected(required: Required, caller: str, *, names_one: bool) -> str:
    """What the table says of a caller, as the reason of the refusal."""
    if required is Required.ANYBODY:
        return ""
    if required is Required.SERVICE:
        return {"service": "", "nobody": "KEY_MISSING"}.get(caller, "KEY_INVALID")
    if caller == "nobody":
        return "KEY_MISSING"
    if caller == "service":
        return "KEY_INVALID"
    if not required.allows(Role.ADMIN if caller == "rival" else Role(caller)):
        return "ROLE_DENIED"
    return "ENTITY_DENIED" if caller == "rival" and names_one else ""


def test_every_rpc_that_is_served_has_an_entry_and_every_entry_is_of_one(servers: Servers) -> None:
    found = {full_name(method) for server in servers[:2] for method in served(server.target)}
    assert found - WHO_MAY_CALL.keys() == set()
    assert WHO_MAY_CALL.keys() - found == set()
    assert len(found) > 50


def test_one_process_serves_nothing_besides(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", auth="keys") as server:
        found = {full_name(method) for method in served(server.target)}
    assert {name for name, required in WHO_MAY_CALL.items() if required is not Required.SERVICE} == found


async def test_every_rpc_lets_in_whom_the_table_names_and_nobody_else(servers: Servers) -> None:
    methods = {full_name(method): method for server in servers[:2] for method in served(server.target)}
    told: dict[tuple[str, str], str] = {}
    meant: dict[tuple[str, str], str] = {}
    for name, method in methods.items():
        target = servers.of(method.containing_service.full_name).target
        for caller in CALLERS:
            told[name, caller] = await outcome(target, method, servers.keys[caller])
            meant[name, caller] = expected(WHO_MAY_CALL[name], caller, names_one=names_entity(method))
    wrong = {at: (told[at], reason) for at, reason in meant.items() if told[at] != reason}
    assert wrong == {}, "what was told, and what the table says"


async def test_the_operator_opens_no_rpc_that_names_an_entity(servers: Servers) -> None:
    methods = [method for server in servers[:2] for method in served(server.target)]
    opened = {
        method.name
        for method in methods
        if method.containing_service.full_name.startswith("lading.")
        and await outcome(servers.of(method.containing_service.full_name).target, method, servers.keys["operator"])
        == ""
    }
    maintenance = {"CollectGarbage", "GetLastCollection", "CheckStore"}
    assert opened == {"GetServerInfo", "WhoAmI", "CreateEntity", "ListEntities", "SetLimits"} | maintenance
    assert not any(names_entity(method) for method in methods if method.name in opened)


@pytest.mark.parametrize(
    ("method", "required", "role"),
    [
        ("/lading.registry.v1.AccessService/AddMember", "admin", "viewer"),
        ("/lading.registry.v1.RegistryService/DeleteVersion", "admin", "member"),
        ("/lading.registry.v1.RegistryService/ListProjects", "viewer", "operator"),
    ],
)
async def test_a_refusal_says_which_role_is_needed(servers: Servers, method: str, required: str, role: str) -> None:
    async with grpc.aio.insecure_channel(servers.registry.target) as channel:
        multi: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await multi(b"", metadata=bearer(servers.keys[role]), timeout=30)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    assert f"required\x12{chr(len(required))}{required}".encode() in details
