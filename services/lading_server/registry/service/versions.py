"""The methods of RegistryService about collections, versions, aliases and links."""

from __future__ import annotations

from lading_format.names import check_version_uid
from lading_proto.registry.v1 import collections_pb2, refs_pb2, registry_pb2_grpc, versions_pb2
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.registry import Registry
from lading_server.registry.service.callers import Context, caller_of
from lading_server.registry.service.convert import version_to_proto
from lading_server.registry.service.convert_versions import (
    collection_to_proto,
    commit_from_proto,
    outcomes_to_proto,
    ref_changes_from_proto,
)


class VersionsServicer(registry_pb2_grpc.RegistryServiceServicer):
    """Serves one Registry."""

    _registry: Registry

    async def CreateCollection(
        self, request: collections_pb2.CreateCollectionRequest, context: Context
    ) -> collections_pb2.CreateCollectionResponse:
        row = await self._registry.collections.create(
            caller_of(request.entity, context),
            request.project,
            request.collection,
            request.type,
            description=request.description,
            tags=request.tags,
            request_id=request.request_id,
        )
        return collections_pb2.CreateCollectionResponse(collection=collection_to_proto(row))

    async def GetCollection(
        self, request: collections_pb2.GetCollectionRequest, context: Context
    ) -> collections_pb2.GetCollectionResponse:
        caller = caller_of(request.entity, context)
        row = await self._registry.collections.get(caller, request.project, request.collection)
        return collections_pb2.GetCollectionResponse(collection=collection_to_proto(row))

    async def UpdateCollection(
        self, request: collections_pb2.UpdateCollectionRequest, context: Context
    ) -> collections_pb2.UpdateCollectionResponse:
        row = await self._registry.collections.update(
            caller_of(request.entity, context),
            request.project,
            request.collection,
            description=request.description if request.HasField("description") else None,
            add_tags=request.add_tags,
            remove_tags=request.remove_tags,
            request_id=request.request_id,
        )
        return collections_pb2.UpdateCollectionResponse(collection=collection_to_proto(row))

    async def CommitVersion(
        self, request: versions_pb2.CommitVersionRequest, context: Context
    ) -> versions_pb2.CommitVersionResponse:
        caller = caller_of(request.entity, context)
        version, created = await self._registry.commits.commit(caller, commit_from_proto(request))
        return versions_pb2.CommitVersionResponse(version=version_to_proto(version), created=created)

    async def GetVersion(
        self, request: versions_pb2.GetVersionRequest, context: Context
    ) -> versions_pb2.GetVersionResponse:
        caller = caller_of(request.entity, context)
        if request.HasField("uid"):
            row = await self._registry.versions.get_by_uid(caller, check_version_uid(request.uid))
        else:
            row = await self._registry.versions.get(caller, reference_of(caller, request.reference))
        return versions_pb2.GetVersionResponse(version=version_to_proto(row))

    async def UpdateVersion(
        self, request: versions_pb2.UpdateVersionRequest, context: Context
    ) -> versions_pb2.UpdateVersionResponse:
        caller = caller_of(request.entity, context)
        row = await self._registry.versions.update(
            caller,
            reference_of(caller, request.reference),
            description=request.description if request.HasField("description") else None,
            metadata=request.metadata_json if request.HasField("metadata_json") else None,
            add_tags=request.add_tags,
            remove_tags=request.remove_tags,
            ttl_seconds=request.ttl_seconds if request.HasField("ttl_seconds") else None,
            request_id=request.request_id,
        )
        return versions_pb2.UpdateVersionResponse(version=version_to_proto(row))

    async def DeleteVersion(
        self, request: versions_pb2.DeleteVersionRequest, context: Context
    ) -> versions_pb2.DeleteVersionResponse:
        caller = caller_of(request.entity, context)
        reference = reference_of(caller, request.reference)
        row = await self._registry.versions.delete(
            caller, reference, force=request.force, purge=request.purge, request_id=request.request_id
        )
        return versions_pb2.DeleteVersionResponse(version=version_to_proto(row))

    async def UpdateRefs(self, request: refs_pb2.UpdateRefsRequest, context: Context) -> refs_pb2.UpdateRefsResponse:
        caller = caller_of(request.entity, context)
        changes = ref_changes_from_proto(caller, request)
        outcomes = await self._registry.refs.update(caller, changes, request_id=request.request_id)
        return outcomes_to_proto(outcomes, self._registry.settings.max_message_bytes)
