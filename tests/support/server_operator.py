"""What the operator and the admins of a server with keys do before a test begins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from tests.support.server import ServerProcess


def bearer(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")] if key else []


class Operator:
    """Calls to AccessService."""

    def __init__(self, server: ServerProcess, channel: Any) -> None:
        self.stub: Any = access_pb2_grpc.AccessServiceStub(channel)
        self.key = (server.data / "operator.key").read_text().strip()

    async def new_entity(self, name: str) -> str:
        """Make an entity; return the key of its admin."""
        request = access_pb2.CreateEntityRequest(name=name, admin="root")
        return str((await self.stub.CreateEntity(request, metadata=bearer(self.key))).secret_key)

    async def new_key(self, entity: str, admin_key: str) -> str:
        """Make another key of an entity's admin."""
        request = access_pb2.CreateKeyRequest(entity=entity)
        return str((await self.stub.CreateKey(request, metadata=bearer(admin_key))).secret_key)

    async def revoke(self, entity: str, admin_key: str, key: str) -> None:
        request = access_pb2.RevokeKeyRequest(entity=entity, key_id=key.split("_")[1])
        await self.stub.RevokeKey(request, metadata=bearer(admin_key))

    async def limit(
        self, name: str, *, entity: access_pb2.Limits | None = None, key: access_pb2.Limits | None = None
    ) -> access_pb2.EntityInfo:
        """Set limits; return what they are then."""
        request = access_pb2.SetLimitsRequest(name=name, limits=entity, key_limits=key)
        told: access_pb2.EntityInfo = (await self.stub.SetLimits(request, metadata=bearer(self.key))).entity
        return told


@asynccontextmanager
async def operator_of(server: ServerProcess) -> AsyncIterator[Operator]:
    async with grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Operator(server, channel)
