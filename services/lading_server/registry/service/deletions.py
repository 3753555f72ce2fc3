"""The methods of RegistryService about what goes and comes back."""

from __future__ import annotations

from lading_proto.registry.v1 import collections_pb2, registry_pb2_grpc, versions_pb2
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.callers import Context, caller_of
from lading_server.registry.service.convert import collection_to_proto
from lading_server.registry.service.convert_deletions import (
    delete_page_to_proto,
    delete_query_from_proto,
    undelete_target_from_proto,
    undeleted_to_proto,
)
from lading_server.registry.service.convert_lists import page_from_proto, project_to_proto


class DeletionsServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Serves one Registry."""

    _registry: Registry

    async def UndeleteVersion(
        self, request: versions_pb2.UndeleteVersionRequest, context: Context
    ) -> versions_pb2.UndeleteVersionResponse:
        caller = caller_of(request.entity, context)
        target = undelete_target_from_proto(caller, request)
        undeleted = await self._registry.undeleting.undelete(
            caller, target, with_links=request.with_links, request_id=request.request_id
        )
        return undeleted_to_proto(undeleted, self._registry.settings.max_message_bytes)

    async def DeleteVersions(
        self, request: versions_pb2.DeleteVersionsRequest, context: Context
    ) -> versions_pb2.DeleteVersionsResponse:
        caller = caller_of(request.entity, context)
        page = await self._registry.delete_by_query.page(
            caller, delete_query_from_proto(request), page_from_proto(request), request.request_id
        )
        return delete_page_to_proto(page)

    async def DeleteCollection(
        self, request: collections_pb2.DeleteCollectionRequest, context: Context
    ) -> collections_pb2.DeleteCollectionResponse:
        row, is_done = await self._registry.deleting.delete_collection(
            caller_of(request.entity, context),
            request.project,
            request.collection,
            force=request.force,
            purge=request.purge,
            request_id=request.request_id,
        )
        return collections_pb2.DeleteCollectionResponse(collection=collection_to_proto(row), done=is_done)

    async def UndeleteCollection(
        self, request: collections_pb2.UndeleteCollectionRequest, context: Context
    ) -> collections_pb2.UndeleteCollectionResponse:
        caller = caller_of(request.entity, context)
        row, is_done = await self._registry.deleting.undelete_collection(
            caller, request.project, request.collection, request.request_id
        )
        return collections_pb2.UndeleteCollectionResponse(collection=collection_to_proto(row), done=is_done)

    async def DeleteProject(
        self, request: collections_pb2.DeleteProjectRequest, context: Context
    ) -> collections_pb2.DeleteProjectResponse:
        row, is_done = await self._registry.deleting.delete_project(
            caller_of(request.entity, context),
            request.project,
            force=request.force,
            purge=request.purge,
            request_id=request.request_id,
        )
        return collections_pb2.DeleteProjectResponse(project=project_to_proto(row), done=is_done)
