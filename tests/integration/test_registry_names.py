"""Names over the wire: what callers send and see of versions, aliases, links and collections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from lading_proto.registry.v1 import collections_pb2, refs_pb2, registry_pb2_grpc, versions_pb2
from lading_server.common.access import Access
from lading_server.common.drain import Drain
from lading_server.common.grpc_status import DETAILS_KEY
from lading_server.common.interceptor import CallInterceptor
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings
from lading_server.registry.component import open_registry
from tests.support.registry import PinsInMemory


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture
async def stub(tmp_path: Path, pins: PinsInMemory) -> AsyncIterator[registry_pb2_grpc.RegistryServiceAsyncStub]:
    async with open_registry(Settings(data=str(tmp_path / "data")), pins) as component:
        server = grpc.aio.server(interceptors=[CallInterceptor(Drain(), Metrics(), 8, Access(None))])
        component.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield registry_pb2_grpc.RegistryServiceStub(channel)  # type: ignore[misc]
        await server.stop(None)


def commit_request(tree: bytes, **more: object) -> versions_pb2.CommitVersionRequest:
    return versions_pb2.CommitVersionRequest(
        entity="acme",
        project="vision",
        collection="digits",
        type="dataset",
        tree_digest=f"b3:{tree.hex()}",
        **more,  # type: ignore[arg-type]
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    trailers = error.trailing_metadata()
    assert trailers is not None
    details = trailers[DETAILS_KEY]
    assert isinstance(details, bytes)
    return details.decode(errors="replace")


async def test_a_version_is_committed_and_found(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    tree = pins.new_tree()
    committed = await stub.CommitVersion(
        commit_request(
            tree,
            description="# Digits",
            metadata_json='{"rows":1797}',
            tags=["raw"],
            aliases=[versions_pb2.AliasChange(alias="best", must_not_exist=True)],
            request_id="r-1",
        )
    )
    version = committed.version
    assert committed.created
    assert (version.project, version.collection, version.number, version.type) == ("vision", "digits", 0, "dataset")
    assert version.tree_digest == f"b3:{tree.hex()}"
    assert (version.file_count, version.reference_count, version.size_bytes) == (3, 1, 4096)
    assert (version.description, version.metadata_json, list(version.tags)) == ("# Digits", '{"rows":1797}', ["raw"])
    assert list(version.aliases) == ["best", "latest"]
    assert not version.is_link
    assert version.created_at.seconds > 0
    for target in ({"reference": "vision/digits:best"}, {"uid": version.uid}):
        found = await stub.GetVersion(versions_pb2.GetVersionRequest(entity="acme", **target))
        assert found.version == version


async def test_versions_are_described_and_deleted(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    await stub.CommitVersion(commit_request(pins.new_tree(), description="# Card", tags=["raw"]))
    request = versions_pb2.UpdateVersionRequest(
        entity="acme", reference="vision/digits:v0", metadata_json='{"a":1}', add_tags=["b"], remove_tags=["raw"]
    )
    updated = (await stub.UpdateVersion(request)).version
    assert (updated.description, updated.metadata_json, list(updated.tags)) == ("# Card", '{"a":1}', ["b"])
    request = versions_pb2.UpdateVersionRequest(entity="acme", reference="vision/digits:v0", description="")
    assert (await stub.UpdateVersion(request)).version.description == ""
    deletion = versions_pb2.DeleteVersionRequest(entity="acme", reference="vision/digits:v0")
    deleted = await stub.DeleteVersion(deletion)
    assert (deleted.version.uid, list(deleted.version.aliases)) == (updated.uid, ["latest"])
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.DeleteVersion(deletion)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert "VERSION_NOT_FOUND" in reason_of(error.value)


async def test_aliases_and_links_change_together(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    source = (await stub.CommitVersion(commit_request(pins.new_tree()))).version
    set_best = versions_pb2.AliasChange(alias="best", must_not_exist=True)
    staging = versions_pb2.AliasChange(alias="staging")
    changes = [
        refs_pb2.RefChange(aliases=refs_pb2.ChangeAliases(reference="vision/digits:v0", aliases=[set_best])),
        refs_pb2.RefChange(link=refs_pb2.Link(source="vision/digits:best", portfolio="A Reader", aliases=[staging])),
    ]
    results = (await stub.UpdateRefs(refs_pb2.UpdateRefsRequest(entity="acme", changes=changes))).results
    assert [result.created for result in results] == [False, True]
    assert list(results[0].version.aliases) == ["best", "latest"]
    linked = results[1].version
    assert (linked.project, linked.collection, linked.number) == ("model-registry", "A Reader", 0)
    assert (linked.is_link, linked.source, linked.source_uid) == (True, "vision/digits:v0", source.uid)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.UpdateRefs(refs_pb2.UpdateRefsRequest(entity="acme", changes=changes))
    assert error.value.code() is grpc.StatusCode.ABORTED
    assert "ALIAS_MOVED" in reason_of(error.value)
    unlink = refs_pb2.RefChange(unlink=refs_pb2.Unlink(reference="model-registry/A Reader:v0", force=True))
    (result,) = (await stub.UpdateRefs(refs_pb2.UpdateRefsRequest(entity="acme", changes=[unlink]))).results
    assert result.version == linked


async def test_what_changed_is_answered_although_the_versions_are_too_large_for_a_message(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    # The largest that there are. Nine of them are more than the 4 MiB that a client takes.
    texts = {"description": "c" * (256 << 10), "metadata_json": json.dumps({"m": "m" * ((256 << 10) - 9)})}
    for _ in range(9):
        whole = (await stub.CommitVersion(commit_request(pins.new_tree(), **texts))).version
    links = [
        refs_pb2.RefChange(link=refs_pb2.Link(source=f"vision/digits:v{at}", portfolio="Reader")) for at in range(9)
    ]
    request = refs_pb2.UpdateRefsRequest(entity="acme", changes=links, request_id="r-1")
    first = await stub.UpdateRefs(request)
    assert [(result.version.number, result.version.description) for result in first.results] == [
        (at, "") for at in range(9)
    ]
    assert await stub.UpdateRefs(request) == first
    one = refs_pb2.UpdateRefsRequest(entity="acme", changes=links[8:])
    assert (await stub.UpdateRefs(one)).results[0].version.description == texts["description"]

    others = [
        refs_pb2.RefChange(link=refs_pb2.Link(source="vision/digits:v8", portfolio=f"Reader {at}")) for at in range(8)
    ]
    await stub.UpdateRefs(refs_pb2.UpdateRefsRequest(entity="acme", changes=others))
    await stub.DeleteVersion(versions_pb2.DeleteVersionRequest(entity="acme", reference="vision/digits:v8", force=True))
    undeletion = versions_pb2.UndeleteVersionRequest(entity="acme", uid=whole.uid, with_links=True, request_id="r-2")
    back = await stub.UndeleteVersion(undeletion)
    assert back.version == whole
    assert [(link.source_uid, link.metadata_json) for link in back.links] == [(whole.uid, "")] * 9
    assert await stub.UndeleteVersion(undeletion) == back


async def test_a_belief_in_version_zero_is_a_belief(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    believes = versions_pb2.AliasChange(alias="best", expected_number=0)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.CommitVersion(commit_request(pins.new_tree(), aliases=[believes]))
    assert error.value.code() is grpc.StatusCode.ABORTED


async def test_collections_are_made_told_about_and_changed(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    creation = collections_pb2.CreateCollectionRequest(
        entity="acme", project="vision", collection="digits", type="dataset", description="# All", tags=["b", "a"]
    )
    made = (await stub.CreateCollection(creation)).collection
    assert (made.kind, made.type, list(made.tags)) == (
        collections_pb2.COLLECTION_KIND_SEQUENCE,
        "dataset",
        ["a", "b"],
    )
    await stub.CommitVersion(commit_request(pins.new_tree()))
    update = collections_pb2.UpdateCollectionRequest(
        entity="acme", project="vision", collection="digits", add_tags=["c"], remove_tags=["a"]
    )
    updated = (await stub.UpdateCollection(update)).collection
    assert (updated.description, list(updated.tags), updated.version_count) == ("# All", ["b", "c"], 1)
    assert [(target.alias, target.number) for target in updated.aliases] == [("latest", 0)]
    question = collections_pb2.GetCollectionRequest(entity="acme", project="vision", collection="digits")
    assert (await stub.GetCollection(question)).collection == updated


async def test_what_names_nothing_is_refused(stub: registry_pb2_grpc.RegistryServiceAsyncStub) -> None:
    for request, reason in (
        (versions_pb2.GetVersionRequest(entity="Acme", reference="vision/digits"), "INVALID_ENTITY"),
        (versions_pb2.GetVersionRequest(entity="acme"), "INVALID_NAME"),
        (versions_pb2.GetVersionRequest(entity="acme", uid="short"), "INVALID_NAME"),
        (versions_pb2.GetVersionRequest(entity="acme", reference="vision/digits@b3:1"), "INVALID_DIGEST"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.GetVersion(request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason in reason_of(error.value)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.UpdateRefs(refs_pb2.UpdateRefsRequest(entity="acme", changes=[refs_pb2.RefChange()]))
    assert "INVALID_NAME" in reason_of(error.value)


async def test_a_commit_whose_caller_hangs_up_is_finished(
    stub: registry_pb2_grpc.RegistryServiceAsyncStub, pins: PinsInMemory
) -> None:
    tree = pins.new_tree()
    pins.open.clear()
    call = stub.CommitVersion(commit_request(tree, request_id="r-1"))
    await pins.until_called(1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    pins.open.set()
    again = await stub.CommitVersion(commit_request(tree, request_id="r-1"))
    assert again.created
    assert again.version.number == 0
