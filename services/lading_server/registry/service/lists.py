"""The methods of RegistryService about lists, searches and events."""

from __future__ import annotations

from functools import partial

from lading_proto.registry.v1 import collections_pb2, events_pb2, registry_pb2_grpc, runs_pb2, versions_pb2
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.callers import Context, caller_of
from lading_server.registry.service.convert import collection_to_proto, version_to_proto
from lading_server.registry.service.convert_deletions import deleted_collection_to_proto, deleted_version_to_proto
from lading_server.registry.service.convert_lists import (
    event_to_proto,
    events_from_proto,
    page_from_proto,
    project_to_proto,
)
from lading_server.registry.service.convert_runs import run_to_proto


class ListsServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Serves one Registry."""

    _registry: Registry

    async def ListProjects(
        self, request: collections_pb2.ListProjectsRequest, context: Context
    ) -> collections_pb2.ListProjectsResponse:
        caller = caller_of(request.entity, context)
        page = await self._registry.lists.projects(caller, page_from_proto(request))
        return collections_pb2.ListProjectsResponse(
            projects=[project_to_proto(row) for row in page.rows], next_page_token=page.token
        )

    async def ListCollections(
        self, request: collections_pb2.ListCollectionsRequest, context: Context
    ) -> collections_pb2.ListCollectionsResponse:
        caller = caller_of(request.entity, context)
        page = await self._registry.lists.collections(
            caller, request.project, request.query, page_from_proto(request), deleted=request.deleted
        )
        to_proto = partial(deleted_collection_to_proto, self._registry.settings)
        return collections_pb2.ListCollectionsResponse(
            collections=map(to_proto if request.deleted else collection_to_proto, page.rows), next_page_token=page.token
        )

    async def ListVersions(
        self, request: versions_pb2.ListVersionsRequest, context: Context
    ) -> versions_pb2.ListVersionsResponse:
        caller = caller_of(request.entity, context)
        page = await self._registry.lists.versions(
            caller, request.project, request.collection, page_from_proto(request), deleted=request.deleted
        )
        to_proto = partial(deleted_version_to_proto, self._registry.settings)
        return versions_pb2.ListVersionsResponse(
            versions=map(to_proto if request.deleted else version_to_proto, page.rows), next_page_token=page.token
        )

    async def SearchVersions(
        self, request: versions_pb2.SearchVersionsRequest, context: Context
    ) -> versions_pb2.SearchVersionsResponse:
        caller = caller_of(request.entity, context)
        page = await self._registry.lists.search_versions(
            caller, request.query, request.order_by, page_from_proto(request)
        )
        return versions_pb2.SearchVersionsResponse(
            versions=[version_to_proto(row) for row in page.rows], next_page_token=page.token
        )

    async def ListRuns(self, request: runs_pb2.ListRunsRequest, context: Context) -> runs_pb2.ListRunsResponse:
        caller = caller_of(request.entity, context)
        page = await self._registry.lists.runs(caller, request.project, page_from_proto(request))
        return runs_pb2.ListRunsResponse(runs=[run_to_proto(row) for row in page.rows], next_page_token=page.token)

    async def ListEvents(
        self, request: events_pb2.ListEventsRequest, context: Context
    ) -> events_pb2.ListEventsResponse:
        caller = caller_of(request.entity, context)
        page, current = await self._registry.lists.events(caller, events_from_proto(request), page_from_proto(request))
        return events_pb2.ListEventsResponse(
            events=[event_to_proto(row) for row in page.rows], next_page_token=page.token, current_revision=current
        )
