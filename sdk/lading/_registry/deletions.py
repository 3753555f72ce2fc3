"""What can be deleted in the registry, and had back."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from lading._listing import EndlessPages
from lading._registry import convert
from lading._registry.connection import fresh_request_id, whole_name
from lading._registry.models import CollectionProgress, DeleteResult, ProjectProgress, Undeleted
from lading._registry.reads import RegistryReads
from lading._version import Version
from lading_proto.registry.v1 import collections_pb2, versions_pb2


class RegistryDeletions(RegistryReads):
    """The part of `Client` that deletes and undeletes. All of it is for admins."""

    async def delete(self, reference: str | Version, force: bool = False, purge: bool = False) -> Version:
        """Delete a version; return it as it was. Its number is not given again.

        It can be undeleted for as long as the server is set to, a week if not said otherwise; then it is purged, and
        its content is collected if nothing else needs it.

        Args:
            reference: The version.
            force: Delete it although aliases or links point at it; they go with it.
            purge: Purge it at once, for good. A version that was deleted before can be purged so.

        Raises:
            NotFound: There is no such collection, version or alias.
            FailedPrecondition: Aliases or links point at it, which the message names; or it is a link: `unlink` it.

        Source: RegistryService.DeleteVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        name = await self.connection.version_name(reference)
        request = versions_pb2.DeleteVersionRequest(
            entity=name.entity, reference=whole_name(name), force=force, purge=purge, request_id=fresh_request_id()
        )
        response = await self.connection.call(lambda stub: stub.DeleteVersion, request)
        return convert.version(response.version, name.entity, self.connection)

    async def undelete(self, reference: str | Version, with_links: bool = False) -> Undeleted:
        """Bring a deleted version or link back, without its aliases; `latest` moves to it if it is the newest.

        One that is there is left as it is.

        Args:
            reference: By `:vN` or `@b3:…`, for its aliases went with it; or a version that `versions` lists as deleted.
            with_links: Bring back the links, too, that went with it when it was deleted by force, at most 500.

        Raises:
            NotFound: There never was one, or it was purged.
            FailedPrecondition: It is a link to something deleted, which the message names; or its collection is just
                being deleted.
            InvalidArgument: The reference is an alias.

        Source: RegistryService.UndeleteVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        name = await self.connection.version_name(reference)
        request = versions_pb2.UndeleteVersionRequest(
            entity=name.entity, with_links=with_links, request_id=fresh_request_id()
        )
        if isinstance(reference, Version):
            request.uid = reference.uid
        else:
            request.reference = whole_name(name)
        response = await self.connection.call(lambda stub: stub.UndeleteVersion, request)
        links = [convert.version(link, name.entity, self.connection) for link in response.links]
        return Undeleted(convert.version(response.version, name.entity, self.connection), tuple(links))

    async def delete_versions(
        self,
        query: str = "",
        collection: str | None = None,
        force: bool = False,
        purge: bool = False,
        dry_run: bool = True,
    ) -> AsyncGenerator[DeleteResult, None]:
        """Yield what matches a query, the oldest first, and whether it was deleted or why not.

        Without `dry_run=False` nothing is deleted, and what would be is told. Versions are deleted a page at a time,
        each page whole or not at all; those of a page that was begun are deleted although nobody reads on. To go on
        after an interruption, call again.

        Args:
            query: As in `search`. May be empty where there is a collection.
            collection: Only versions of this one: `[entity/][project/]name`.
            force: Delete also what aliases or links point at; they go with it. Never what a protected alias points at.
            purge: Purge at once, for good.
            dry_run: Only tell.

        Raises:
            NotFound: There is no such collection.
            InvalidArgument: The query cannot be read; or there is neither a query nor a collection.

        Source: RegistryService.DeleteVersions in protos/lading_proto/registry/v1/registry.proto.
        """
        request = versions_pb2.DeleteVersionsRequest(query=query, force=force, purge=purge, dry_run=dry_run)
        if collection is None:
            request.entity = await self.connection.entity()
        else:
            found = await self.connection.collection_name(collection)
            request.entity, request.project, request.collection = found.entity, found.project, found.name
        pages = EndlessPages("The server")
        while True:
            request.request_id = fresh_request_id()
            response = await self.connection.call(lambda stub: stub.DeleteVersions, request)
            for result in response.results:
                yield convert.delete_result(result, request.entity, self.connection)
            if not pages.goes_on(response.next_page_token, len(response.results)):
                return
            request.page_token = response.next_page_token

    async def delete_collection(self, name: str, force: bool = False, purge: bool = False) -> CollectionProgress:
        """Delete a collection with all its versions; return it as it was. It is not found from then on.

        Its name is free when that is done. Under it a collection goes on with the old one's numbers.

        Args:
            name: `[entity/][project/]name`.
            force: Delete it although aliases other than `latest`, or links, point into it; they go with it.
            purge: Purge its versions at once, for good, also those that were deleted before.

        Raises:
            NotFound: There is no such collection.
            FailedPrecondition: Aliases or links point into it, which the message names.

        Source: RegistryService.DeleteCollection in protos/lading_proto/registry/v1/registry.proto.
        """
        found = await self.connection.collection_name(name)
        request = collections_pb2.DeleteCollectionRequest(
            entity=found.entity,
            project=found.project,
            collection=found.name,
            force=force,
            purge=purge,
            request_id=fresh_request_id(),
        )
        response = await self.connection.call(lambda stub: stub.DeleteCollection, request)
        return CollectionProgress(convert.collection(response.collection, found.entity), response.done)

    async def undelete_collection(self, name: str) -> CollectionProgress:
        """Bring a collection back with the versions that went with it, and without their aliases; return it.

        Args:
            name: `[entity/][project/]name`.

        Raises:
            NotFound: There never was one, or it was purged.
            FailedPrecondition: It is being purged, or its project is being deleted.

        Source: RegistryService.UndeleteCollection in protos/lading_proto/registry/v1/registry.proto.
        """
        found = await self.connection.collection_name(name)
        request = collections_pb2.UndeleteCollectionRequest(
            entity=found.entity, project=found.project, collection=found.name, request_id=fresh_request_id()
        )
        response = await self.connection.call(lambda stub: stub.UndeleteCollection, request)
        return CollectionProgress(convert.collection(response.collection, found.entity), response.done)

    async def delete_project(self, name: str, force: bool = False, purge: bool = False) -> ProjectProgress:
        """Delete a project with all its collections; return it as it was. Its runs stay, and can be read.

        Its collections are undeleted one by one, and the project is there again with the first.

        Args:
            name: The project.
            force: Delete it although it has collections; they go with it, whatever points into them.
            purge: Purge their versions at once, for good.

        Raises:
            NotFound: There is no such project.
            FailedPrecondition: It has collections, which the message names; or it is `model-registry`.

        Source: RegistryService.DeleteProject in protos/lading_proto/registry/v1/registry.proto.
        """
        entity = await self.connection.entity()
        request = collections_pb2.DeleteProjectRequest(
            entity=entity, project=name, force=force, purge=purge, request_id=fresh_request_id()
        )
        response = await self.connection.call(lambda stub: stub.DeleteProject, request)
        return ProjectProgress(convert.project(response.project, entity), response.done)
