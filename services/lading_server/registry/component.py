"""The registry as a part of a server."""

from __future__ import annotations

import grpc

from lading_proto.registry.v1 import registry_pb2, registry_pb2_grpc
from lading_server.common.settings import Settings
from lading_server.registry.servicer import RegistryServicer


class RegistryComponent:
    """What a server adds to itself to serve the registry."""

    service_names = (registry_pb2.DESCRIPTOR.services_by_name["RegistryService"].full_name,)

    def __init__(self, settings: Settings) -> None:
        self._servicer = RegistryServicer(settings)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the service."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self._servicer, server)
