"""Rules of aliases over gRPC, with keys: what an admin and a member of an entity are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import lading
from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from tests.support.server import ServerProcess, running_server

RULE = access_pb2.AliasRule(
    project="model-registry", alias="production", protected=True, required_tags=["approved"], required_metadata=["a.b"]
)


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path / "data", auth="keys") as server:
        yield server


async def test_a_rule_from_its_setting_to_its_end(keyed: ServerProcess) -> None:
    admins = (("authorization", f"Bearer {keyed.api_key}"),)
    async with (
        lading.Client(keyed.target, api_key=keyed.api_key) as admin,
        grpc.aio.insecure_channel(keyed.target) as channel,
    ):
        stub: access_pb2_grpc.AccessServiceAsyncStub = access_pb2_grpc.AccessServiceStub(channel)  # type: ignore[assignment]
        kept = await stub.SetAliasRule(access_pb2.SetAliasRuleRequest(entity="default", rule=RULE), metadata=admins)
        assert kept.rule == RULE
        await admin.add_member("max", "member")
        made = await admin.create_key("max")
        members = (("authorization", f"Bearer {made.secret_key}"),)
        listed = await stub.ListAliasRules(access_pb2.ListAliasRulesRequest(entity="default"), metadata=members)
        assert list(listed.rules) == [RULE]

        async with lading.Client(keyed.target, api_key=made.secret_key) as member:
            await member.put({"a.txt": Path(__file__)}, "vision/digits", type="model")
            with pytest.raises(lading.PermissionDenied, match="only admins") as denied:
                await member.link("vision/digits:v0", "Reader", aliases=["production"])
            assert (denied.value.reason, denied.value.metadata) == ("ALIAS_PROTECTED", {"alias": "production"})
            with pytest.raises(lading.FailedPrecondition, match="approved") as lacking:
                await admin.link("vision/digits:v0", "Reader", aliases=["production"])
            assert lacking.value.reason == "ALIAS_REQUIRES"
            assert lacking.value.metadata == {"alias": "production", "tags": "approved", "metadata": "a.b"}
            await member.update_version("vision/digits:v0", metadata={"a": {"b": 1}}, add_tags=["approved"])
            linked = await admin.link("vision/digits:v0", "Reader", aliases=["production"])
            assert linked.aliases == ("latest", "production")
            with pytest.raises(lading.PermissionDenied):
                await member.unlink(linked, force=True)

            gone = access_pb2.DeleteAliasRuleRequest(entity="default", project="model-registry", alias="production")
            await stub.DeleteAliasRule(gone, metadata=admins)
            await member.unlink(linked, force=True)
        told = [event async for event in admin.events() if event.kind.startswith("alias_rule.")]
        assert [(event.kind, event.actor, event.origin) for event in told] == [
            ("alias_rule.set", "admin", "127.0.0.1"),
            ("alias_rule.deleted", "admin", "127.0.0.1"),
        ]
