"""The methods of RegistryService."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, TypeAlias

import grpc

from lading_proto.registry.v1 import registry_pb2, registry_pb2_grpc
from lading_server.common.settings import Settings, limits

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class RegistryServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Introduces the server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def GetServerInfo(
        self, request: registry_pb2.GetServerInfoRequest, context: Context
    ) -> registry_pb2.GetServerInfoResponse:
        # Ingest is in the same process, so at the address that was asked.
        return registry_pb2.GetServerInfoResponse(
            server_version=version("lading"),
            ingest_target="",
            limits=[
                registry_pb2.ServerLimit(name=limit.name, value=limit.value, description=limit.description)
                for limit in limits(self._settings)
                if limit.name in ("max_message_bytes", "max_streams")
            ],
        )
