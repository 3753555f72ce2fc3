"""No rpc gives or confirms anything of another entity: by name, digest, session, upload, run, version or page token.

Every rpc that the server serves is called by an admin of one entity with names that another entity has, and by an admin
of a third with names that nobody has, in the same order. What they are told has to be the same, but for the names that
they brought themselves. An rpc without a case here fails the test.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import lading
from lading_proto.ingest.v1 import (
    capabilities_pb2,
    check_pb2,
    chunks_pb2,
    files_pb2,
    ingest_pb2,
    maintenance_pb2,
    trees_pb2,
    usage_pb2,
)
from lading_proto.registry.v1 import (
    access_pb2,
    collections_pb2,
    events_pb2,
    lineage_pb2,
    refs_pb2,
    registry_pb2,
    retention_pb2,
    runs_pb2,
    versions_pb2,
)
from tests.support.server import ServerProcess, running_server
from tests.support.server_operator import bearer, operator_of
from tests.support.wire import Wire, digest_of, iter_of, reason_of, recipe, text_digest

SECRET = b"the weights that acme trained for a month"
CARD = "what acme thinks of its weights"
INGEST, REGISTRY, ACCESS, RETENTION = (
    "lading.ingest.v1.IngestService",
    "lading.registry.v1.RegistryService",
    "lading.registry.v1.AccessService",
    "lading.registry.v1.RetentionService",
)
CHECK, MAINTENANCE = "lading.ingest.v1.CheckService", "lading.ingest.v1.MaintenanceService"
SERVICES: Mapping[str, ServiceDescriptor] = {
    service.full_name: service
    for module in (ingest_pb2, check_pb2, maintenance_pb2, registry_pb2, access_pb2, retention_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}
# What differs from call to call, whoever makes it.
VOLATILE = re.compile(
    r"(uid|session_id|secret_key|key_id|(_|\b)revision|chain_hash|origin|created_at|updated_at|time|_at)$"
)


@dataclass(frozen=True)
class Names:
    """Everything that a caller can name. Of the same form, whether somebody has it or not."""

    entity: str
    project: str
    collection: str
    alias: str
    member: str
    key_id: str
    digest: str
    tree: str
    session: str
    upload: str
    run: str
    uid: str
    project_token: str
    tree_token: str
    request: str

    @property
    def reference(self) -> str:
        return f"{self.project}/{self.collection}:{self.alias}"


def nobodys() -> Names:
    """Names that nobody has."""
    letters = uuid.uuid4().hex
    return Names(
        entity=f"x{letters[:7]}",
        project=f"p{letters[:7]}",
        collection=f"c{letters[:7]}",
        alias=f"a{letters[:7]}",
        member=f"m{letters[:7]}",
        key_id=letters[:12],
        digest=f"b3:{os.urandom(32).hex()}",
        tree=f"b3:{os.urandom(32).hex()}",
        session=os.urandom(16).hex(),
        upload=f"u{letters[:7]}",
        run=f"r{letters[:7]}",
        uid=os.urandom(16).hex(),
        project_token="bm90aGluZyBpbiB0aGlz",
        tree_token="bm90aGluZyBpbiB0aGlz",
        request=f"q{letters}",
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("tenants") / "data", auth="keys") as process:
        yield process


@pytest.fixture
async def acme(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Names]:
    """What an entity has that stored one of each."""
    names = nobodys()
    async with operator_of(server) as operator:
        key = await operator.new_entity(names.entity)
        member = access_pb2.AddMemberRequest(entity=names.entity, name=names.member, role=access_pb2.ROLE_MEMBER)
        await operator.stub.AddMember(member, metadata=bearer(key))
        made = access_pb2.CreateKeyRequest(entity=names.entity, member=names.member)
        key_id = (await operator.stub.CreateKey(made, metadata=bearer(key))).key.key_id
    for path in ("model.bin", "sub/card.md"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(SECRET if path == "model.bin" else CARD.encode())
    async with (
        lading.Client(server.target, api_key=key, project=names.project) as client,
        Wire(server.target, names.entity, key=key) as wire,
    ):
        put = await client.put(
            tmp_path, names.collection, type="model", aliases=[names.alias], description=CARD, tags=["acmes"]
        )
        await client.put(tmp_path, f"other-{names.project}/other", type="model")
        channel = wire.channel
        run = runs_pb2.CreateRunRequest(entity=names.entity, project=names.project, run_id=names.run, job_type="train")
        await unary(channel, REGISTRY, "CreateRun", key)(run)
        projects = collections_pb2.ListProjectsRequest(entity=names.entity, page_size=1)
        project_token = (await unary(channel, REGISTRY, "ListProjects", key)(projects)).next_page_token
        tree = put.version.digest
        page = trees_pb2.ListTreeRequest(entity=names.entity, tree_digest=tree, page_size=1)
        tree_token = (await wire.stub.ListTree(page)).next_page_token
        assert project_token
        assert tree_token
        start = files_pb2.UploadFileStart(entity=names.entity, upload_id=names.upload)
        sent = [files_pb2.UploadFileRequest(start=start), files_pb2.UploadFileRequest(data=SECRET)]
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.stub.UploadFile(iter_of(sent))
        yield Names(
            **{
                **{one.name: getattr(names, one.name) for one in fields(Names)},
                "key_id": key_id,
                "digest": text_digest(SECRET),
                "tree": tree,
                "session": await wire.session(),
                "uid": put.version.uid,
                "project_token": project_token,
                "tree_token": tree_token,
            }
        )


# --- what is called ---


Case = Callable[[str, Names], list[Any]]


def start_of(kind: Any, names: Names, entity: str) -> Any:
    return kind(start={"entity": entity, "session_id": names.session})


def raw(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("b3:"))


def aliases(names: Names) -> list[versions_pb2.AliasChange]:
    return [versions_pb2.AliasChange(alias=names.alias)]


CASES: Mapping[str, Mapping[str, Case]] = {
    INGEST: {
        "GetCapabilities": lambda me, n: [capabilities_pb2.GetCapabilitiesRequest(entity=me)],
        "GetUsage": lambda me, n: [usage_pb2.GetUsageRequest(entity=me)],
        "OpenSession": lambda me, n: [chunks_pb2.OpenSessionRequest(entity=me)],
        "CloseSession": lambda me, n: [chunks_pb2.CloseSessionRequest(entity=me, session_id=n.session)],
        "FindMissingChunks": lambda me, n: [
            chunks_pb2.FindMissingChunksRequest(entity=me, session_id=n.session, digests=raw(n.digest))
        ],
        "PutChunks": lambda me, n: [start_of(chunks_pb2.PutChunksRequest, n, me)],
        "CommitBlobs": lambda me, n: [start_of(chunks_pb2.CommitBlobsRequest, n, me)],
        "PutTree": lambda me, n: [start_of(trees_pb2.PutTreeRequest, n, me)],
        "GetTree": lambda me, n: [trees_pb2.GetTreeRequest(entity=me, tree_digest=n.tree)],
        "ListTree": lambda me, n: [trees_pb2.ListTreeRequest(entity=me, tree_digest=n.tree, page_token=n.tree_token)],
        "DiffTrees": lambda me, n: [trees_pb2.DiffTreesRequest(entity=me, base_digest=n.tree, target_digest=n.tree)],
        "StatBlobs": lambda me, n: [chunks_pb2.StatBlobsRequest(entity=me, digests=[n.digest])],
        "ReadBlobs": lambda me, n: [
            chunks_pb2.ReadBlobsRequest(entity=me, ranges=[chunks_pb2.BlobRange(blob_digest=raw(n.digest))])
        ],
        "GetUpload": lambda me, n: [files_pb2.GetUploadRequest(entity=me, upload_id=n.upload)],
        # Continues somebody's upload, from where that is.
        "UploadFile": lambda me, n: [
            files_pb2.UploadFileRequest(
                start=files_pb2.UploadFileStart(entity=me, upload_id=n.upload, offset_bytes=len(SECRET))
            )
        ],
        "ReadFile": lambda me, n: [
            files_pb2.ReadFileRequest(entity=me, tree_path=files_pb2.TreePath(tree_digest=n.tree, path="model.bin"))
        ],
    },
    # Both for the operator, but for one rpc.
    CHECK: {
        "CheckStore": lambda me, n: [
            check_pb2.CheckStoreRequest(level=check_pb2.CHECK_LEVEL_INDEX, only_entity=n.entity)
        ]
    },
    MAINTENANCE: {
        "CollectGarbage": lambda me, n: [maintenance_pb2.CollectGarbageRequest(dry_run=True, name=n.entity)],
        "ExplainContent": lambda me, n: [maintenance_pb2.ExplainContentRequest(entity=me, digest=n.tree)],
        "GetLastCollection": lambda me, n: [maintenance_pb2.GetLastCollectionRequest()],
    },
    REGISTRY: {
        "GetServerInfo": lambda me, n: [registry_pb2.GetServerInfoRequest()],
        "WhoAmI": lambda me, n: [registry_pb2.WhoAmIRequest()],
        "GetCollection": lambda me, n: [
            collections_pb2.GetCollectionRequest(entity=me, project=n.project, collection=n.collection)
        ],
        "UpdateCollection": lambda me, n: [
            collections_pb2.UpdateCollectionRequest(
                entity=me, project=n.project, collection=n.collection, description="taken", request_id=n.request
            )
        ],
        "ListProjects": lambda me, n: [collections_pb2.ListProjectsRequest(entity=me, page_token=n.project_token)],
        "ListCollections": lambda me, n: [collections_pb2.ListCollectionsRequest(entity=me, project=n.project)],
        "CommitVersion": lambda me, n: [
            versions_pb2.CommitVersionRequest(
                entity=me, project="mine", collection="mine", type="model", tree_digest=n.tree
            )
        ],
        "GetVersion": lambda me, n: [versions_pb2.GetVersionRequest(entity=me, uid=n.uid)],
        "ListVersions": lambda me, n: [
            versions_pb2.ListVersionsRequest(entity=me, project=n.project, collection=n.collection)
        ],
        "SearchVersions": lambda me, n: [versions_pb2.SearchVersionsRequest(entity=me, query='tag = "acmes"')],
        "UpdateVersion": lambda me, n: [
            versions_pb2.UpdateVersionRequest(entity=me, reference=n.reference, description="taken")
        ],
        "DeleteVersion": lambda me, n: [versions_pb2.DeleteVersionRequest(entity=me, reference=n.reference)],
        "UndeleteVersion": lambda me, n: [versions_pb2.UndeleteVersionRequest(entity=me, uid=n.uid)],
        "DeleteVersions": lambda me, n: [versions_pb2.DeleteVersionsRequest(entity=me, query='tag = "acmes"')],
        "DeleteCollection": lambda me, n: [
            collections_pb2.DeleteCollectionRequest(entity=me, project=n.project, collection=n.collection, force=True)
        ],
        "UndeleteCollection": lambda me, n: [
            collections_pb2.UndeleteCollectionRequest(entity=me, project=n.project, collection=n.collection)
        ],
        "DeleteProject": lambda me, n: [
            collections_pb2.DeleteProjectRequest(entity=me, project=n.project, force=True, purge=True)
        ],
        "UpdateRefs": lambda me, n: [
            refs_pb2.UpdateRefsRequest(
                entity=me,
                changes=[refs_pb2.RefChange(link=refs_pb2.Link(source=n.reference, portfolio="Mine", run_id=n.run))],
            )
        ],
        "GetLineage": lambda me, n: [lineage_pb2.GetLineageRequest(entity=me, reference=n.reference)],
        "GetRun": lambda me, n: [runs_pb2.GetRunRequest(entity=me, run_id=n.run)],
        "ListRuns": lambda me, n: [runs_pb2.ListRunsRequest(entity=me, project=n.project)],
        "UpdateRun": lambda me, n: [runs_pb2.UpdateRunRequest(entity=me, run_id=n.run, summary_json="{}")],
        "Heartbeat": lambda me, n: [runs_pb2.HeartbeatRequest(entity=me, run_id=n.run)],
        "FinishRun": lambda me, n: [
            runs_pb2.FinishRunRequest(entity=me, run_id=n.run, state=runs_pb2.RUN_STATE_FINISHED)
        ],
        "LogMetrics": lambda me, n: [
            runs_pb2.LogMetricsRequest(entity=me, run_id=n.run, points=[runs_pb2.MetricPoint(key="loss", value=1)])
        ],
        "GetMetrics": lambda me, n: [runs_pb2.GetMetricsRequest(entity=me, run_id=n.run, key="loss")],
        "UseVersion": lambda me, n: [
            runs_pb2.UseVersionRequest(entity=me, run_id=n.run, reference=f"{n.project}/{n.collection}")
        ],
        "ListEvents": lambda me, n: [
            events_pb2.ListEventsRequest(entity=me, project=n.project, collection=n.collection, version_uid=n.uid)
        ],
        # Last, for they make things of these names.
        "CreateCollection": lambda me, n: [
            collections_pb2.CreateCollectionRequest(
                entity=me, project=n.project, collection=n.collection, type="data", request_id=n.request
            )
        ],
        "CreateRun": lambda me, n: [
            runs_pb2.CreateRunRequest(entity=me, project="mine", run_id=n.run, job_type="other", request_id=n.request)
        ],
    },
    ACCESS: {
        "CreateEntity": lambda me, n: [access_pb2.CreateEntityRequest(name=n.entity, admin="me")],
        "ListEntities": lambda me, n: [access_pb2.ListEntitiesRequest()],
        "SetLimits": lambda me, n: [access_pb2.SetLimitsRequest(name=n.entity, limits=access_pb2.Limits(streams=1))],
        "RemoveMember": lambda me, n: [access_pb2.RemoveMemberRequest(entity=me, name=n.member)],
        "ListMembers": lambda me, n: [access_pb2.ListMembersRequest(entity=me)],
        "CreateKey": lambda me, n: [access_pb2.CreateKeyRequest(entity=me, member=n.member)],
        "RevokeKey": lambda me, n: [access_pb2.RevokeKeyRequest(entity=me, key_id=n.key_id)],
        "ListKeys": lambda me, n: [access_pb2.ListKeysRequest(entity=me, member=n.member)],
        "SetAliasRule": lambda me, n: [
            access_pb2.SetAliasRuleRequest(
                entity=me, rule=access_pb2.AliasRule(project=n.project, collection=n.collection, alias=n.alias)
            )
        ],
        "DeleteAliasRule": lambda me, n: [
            access_pb2.DeleteAliasRuleRequest(entity=me, project=n.project, collection=n.collection, alias=n.alias)
        ],
        "ListAliasRules": lambda me, n: [access_pb2.ListAliasRulesRequest(entity=me)],
        "AddMember": lambda me, n: [access_pb2.AddMemberRequest(entity=me, name=n.member, role=access_pb2.ROLE_VIEWER)],
    },
    RETENTION: {
        "GetRetentionRule": lambda me, n: [
            retention_pb2.GetRetentionRuleRequest(entity=me, project=n.project, collection=n.collection)
        ],
        "DeleteRetentionRule": lambda me, n: [
            retention_pb2.DeleteRetentionRuleRequest(entity=me, project=n.project, collection=n.collection)
        ],
        "SimulateRetention": lambda me, n: [
            retention_pb2.SimulateRetentionRequest(entity=me, project=n.project, collection=n.collection)
        ],
        "SetRetentionRule": lambda me, n: [
            retention_pb2.SetRetentionRuleRequest(
                entity=me, rule=retention_pb2.RetentionRule(project=n.project, collection=n.collection, keep_last=1)
            )
        ],
        "ListRetentionRules": lambda me, n: [retention_pb2.ListRetentionRulesRequest(entity=me)],
        "ApplyRetention": lambda me, n: [
            retention_pb2.ApplyRetentionRequest(entity=me, project=n.project, collection=n.collection)
        ],
    },
}


# --- how ---


async def served(target: str) -> dict[str, list[MethodDescriptor]]:
    """Every rpc of Lading's that a server serves, as its reflection tells it, by service."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = [one async for one in stub.ServerReflectionInfo(iter_of([ask]))]
    names = [service.name for service in answer.list_services_response.service if service.name.startswith("lading.")]
    return {name: list(SERVICES[name].methods) for name in names}


def message_class(descriptor: Descriptor) -> Any:
    module = import_module(descriptor.file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return getattr(module, descriptor.name)


def unary(channel: Any, service: str, name: str, key: str) -> Callable[[Any], Any]:
    method = SERVICES[service].methods_by_name[name]
    multi = channel.unary_unary(
        f"/{service}/{name}",
        message_class(method.input_type).SerializeToString,
        message_class(method.output_type).FromString,
    )
    return lambda request: multi(request, metadata=bearer(key), timeout=30)


async def told(channel: Any, method: MethodDescriptor, messages: list[Any], key: str) -> dict[str, Any]:
    """Make a call; return all that it told, and the raw bytes of it."""
    shape = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[method.client_streaming, method.server_streaming]
    multi = shape(
        f"/{method.containing_service.full_name}/{method.name}",
        message_class(method.input_type).SerializeToString,
        message_class(method.output_type).FromString,
    )
    request = iter_of(messages) if method.client_streaming else messages[0]
    call = multi(request, metadata=bearer(key), timeout=30)
    try:
        answers = [one async for one in call] if method.server_streaming else [await call]
    except grpc.aio.AioRpcError as error:
        details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        return {"status": (error.code().name, reason_of(error), error.details()), "raw": bytes(details)}
    return {"answers": [steady(one) for one in answers], "raw": b"".join(one.SerializeToString() for one in answers)}


def steady(message: Any) -> dict[str, Any]:
    """A message's fields, without those that differ from call to call."""
    shown: dict[str, Any] = {}
    for field, value in message.ListFields():
        if VOLATILE.search(field.name):
            continue
        if field.message_type is None:
            shown[field.name] = list(value) if field.is_repeated else value
        elif field.is_repeated:
            shown[field.name] = [steady(one) for one in value]
        else:
            shown[field.name] = steady(value)
    return shown


def without(shown: object, names: Names, me: str) -> str:
    """What was told, with what the caller brought taken out."""
    text = repr(shown)
    brought = {one.name: getattr(names, one.name) for one in fields(Names)} | {"me": me}
    for name, value in sorted(brought.items(), key=lambda item: -len(item[1])):
        text = text.replace(repr(raw(value))[2:-1] if value.startswith("b3:") else value, f"<{name}>")
        text = text.replace(value, f"<{name}>")
    return text


async def test_every_rpc_has_a_case(server: ServerProcess) -> None:
    found = {service: {method.name for method in methods} for service, methods in (await served(server.target)).items()}
    assert found == {service: set(cases) for service, cases in CASES.items()}


async def test_no_rpc_tells_what_somebody_else_has_from_what_nobody_has(server: ServerProcess, acme: Names) -> None:
    nobody = nobodys()
    outcomes: list[dict[str, str]] = []
    for names in (acme, nobody):
        me = f"rival{uuid.uuid4().hex[:8]}"
        async with operator_of(server) as operator:
            key = await operator.new_entity(me)
        outcome: dict[str, str] = {}
        async with grpc.aio.insecure_channel(server.target) as channel:
            for service, cases in CASES.items():
                methods = SERVICES[service].methods_by_name
                for name, case in cases.items():
                    answer = await told(channel, methods[name], case(me, names), key)
                    data = answer.pop("raw")
                    assert SECRET not in data, name
                    assert CARD.encode() not in data, name
                    assert b"acmes" not in data, name
                    outcome[name] = without(answer, names, me)
        outcomes.append(outcome)
    assert outcomes[0] == outcomes[1]
    # The comparison compares something: most of these are refusals, of many kinds.
    reasons = set(re.findall(r"'([A-Z_]+_(?:NOT_FOUND|EXPIRED|DENIED|MISMATCH))'", str(outcomes[0])))
    assert len(reasons) >= 8, reasons


async def test_acme_still_has_what_it_had(server: ServerProcess, acme: Names) -> None:
    """What the rivals did to names of acme did nothing to acme: a digest or an id is no permission."""
    async with operator_of(server) as operator:
        key = await operator.new_entity(f"thief{acme.entity}")
    async with grpc.aio.insecure_channel(server.target) as channel:
        for service, cases in CASES.items():
            methods = SERVICES[service].methods_by_name
            for name, case in cases.items():
                await told(channel, methods[name], case(f"thief{acme.entity}", acme), key)
    async with operator_of(server) as operator:
        listed = (
            await operator.stub.ListEntities(access_pb2.ListEntitiesRequest(), metadata=bearer(operator.key))
        ).entities
    assert [one.limits.streams for one in listed if one.name == acme.entity] == [0]


def test_what_differs_from_call_to_call_is_little() -> None:
    """What is left out of the comparison is what a server makes up, and nothing that it was told."""
    compared = ("digest", "description", "tags", "name", "project", "missing_digests", "state", "durable_bytes")
    assert not any(VOLATILE.search(name) for name in compared)
    assert digest_of(SECRET) == raw(text_digest(SECRET))
    assert recipe(SECRET).blob_digest == digest_of(SECRET)
