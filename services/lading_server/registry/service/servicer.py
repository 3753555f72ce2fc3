"""RegistryService, put together from the servicers of its subjects."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, TypeAlias

import grpc

from lading_proto.registry.v1 import registry_pb2
from lading_server.common.callers import current_principal
from lading_server.common.settings import limits
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.deletions import DeletionsServicer
from lading_server.registry.service.lists import ListsServicer
from lading_server.registry.service.runs import RunsServicer
from lading_server.registry.service.versions import VersionsServicer

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Those that callers of this service have to stay within.
_LIMITS = frozenset(
    {
        "calls_per_second_per_entity",
        "calls_per_second_per_key",
        "default_quota_bytes",
        "max_description_bytes",
        "max_lineage_nodes",
        "max_message_bytes",
        "max_metadata_bytes",
        "max_metric_points",
        "max_page_size",
        "max_ref_changes",
        "max_streams",
        "max_streams_per_entity",
        "max_streams_per_key",
        "max_tags",
        "run_timeout_seconds",
        "undelete_seconds",
    }
)


class RegistryServicer(VersionsServicer, DeletionsServicer, RunsServicer, ListsServicer):
    """Serves one Registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def GetServerInfo(
        self, request: registry_pb2.GetServerInfoRequest, context: Context
    ) -> registry_pb2.GetServerInfoResponse:
        settings = self._registry.settings
        return registry_pb2.GetServerInfoResponse(
            server_version=version("lading"),
            # Empty where it is in the same process, and so at the address that was asked.
            ingest_target=settings.ingest_target if settings.services == "registry" else "",
            limits=[
                registry_pb2.ServerLimit(name=limit.name, value=limit.value, description=limit.description)
                for limit in limits(settings)
                if limit.name in _LIMITS
            ],
        )

    async def WhoAmI(self, request: registry_pb2.WhoAmIRequest, context: Context) -> registry_pb2.WhoAmIResponse:
        principal = current_principal()
        # Without keys there is no other wish to go by; the operator's key is for none.
        entity = self._registry.settings.default_entity if principal.role is None else principal.entity
        role = "" if principal.role is None else principal.role.value
        return registry_pb2.WhoAmIResponse(principal=principal.name, entity=entity, role=role, key_id=principal.key_id)
