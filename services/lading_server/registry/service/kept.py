"""The methods of KeptVersionService. No rules here."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lading_proto.registry.v1 import kept_pb2, kept_pb2_grpc
from lading_server.common.kept_versions import KeptVersions

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class KeptVersionServicer(kept_pb2_grpc.KeptVersionServiceServicer):
    """Serves the kept versions of one registry."""

    def __init__(self, kept: KeptVersions) -> None:
        self._kept = kept

    async def ListKeptEntities(
        self, request: kept_pb2.ListKeptEntitiesRequest, context: Context
    ) -> kept_pb2.ListKeptEntitiesResponse:
        return kept_pb2.ListKeptEntitiesResponse(names=await self._kept.entities(request.after, request.limit))

    async def ListKeptVersions(
        self, request: kept_pb2.ListKeptVersionsRequest, context: Context
    ) -> kept_pb2.ListKeptVersionsResponse:
        page = await self._kept.page(request.entity, request.after, request.limit)
        return kept_pb2.ListKeptVersionsResponse(
            versions=[kept_pb2.KeptVersion(uid=one.uid, tree_digest=one.tree_digest) for one in page]
        )

    async def GetExpectedVersions(
        self, request: kept_pb2.GetExpectedVersionsRequest, context: Context
    ) -> kept_pb2.GetExpectedVersionsResponse:
        return kept_pb2.GetExpectedVersionsResponse(uids=await self._kept.expected(request.entity, request.uids))
