"""The methods of MaintenanceService: each names its rule and converts. No rules here."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lading_format.digest import parse_digest
from lading_proto.ingest.v1 import maintenance_pb2, maintenance_pb2_grpc
from lading_server.common.streams import write_with_deadline
from lading_server.ingest.domain.entities import check_entity
from lading_server.ingest.domain.explain import Explainer
from lading_server.ingest.domain.garbage import EntityOutcome, Garbage, Progress
from lading_server.ingest.service import convert_maintenance as convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class MaintenanceServicer(maintenance_pb2_grpc.MaintenanceServiceServicer):
    """Serves the collector of one ingest."""

    def __init__(self, garbage: Garbage, explainer: Explainer, idle_seconds: float) -> None:
        """`idle_seconds`: how long a caller may take to read what it is told."""
        self._garbage = garbage
        self._explainer = explainer
        self._idle_seconds = idle_seconds

    async def CollectGarbage(  # type: ignore[override]  # writes to the context instead of yielding
        self, request: maintenance_pb2.CollectGarbageRequest, context: Context
    ) -> None:
        async def tell(event: Progress | EntityOutcome) -> None:
            await write_with_deadline(context, convert.event_to_proto(event), self._idle_seconds)

        await self._garbage.run(
            tell,
            name=check_entity(request.name) if request.name else "",
            dry_run=request.dry_run,
            release_unknown_pins=request.release_unknown_pins,
        )

    async def ExplainContent(
        self, request: maintenance_pb2.ExplainContentRequest, context: Context
    ) -> maintenance_pb2.ExplainContentResponse:
        entity, digest = check_entity(request.entity), parse_digest(request.digest)
        return convert.explanation_to_proto(await self._explainer.explain(entity, digest))

    async def GetLastCollection(
        self, request: maintenance_pb2.GetLastCollectionRequest, context: Context
    ) -> maintenance_pb2.GetLastCollectionResponse:
        return convert.last_run_to_proto(await self._garbage.last(), is_running=self._garbage.is_running)
