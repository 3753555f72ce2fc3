"""What can be asked of the registry. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from lading._registry import audit, convert, pages
from lading._registry.connection import Connection, whole_name
from lading._registry.models import (
    AuditReport,
    Collection,
    Event,
    Identity,
    Lineage,
    MetricPoint,
    Project,
    RunDetails,
    RunInfo,
)
from lading._version import Version
from lading_proto.registry.v1 import (
    collections_pb2,
    events_pb2,
    lineage_pb2,
    runs_pb2,
    versions_pb2,
)


class RegistryReads:
    """The half of `Client` that asks.

    Attributes:
        connection: What calls go through. For the SDK's own parts.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def whoami(self) -> Identity:
        """Return whom the key belongs to.

        Raises:
            Unauthenticated: There is no key, or the server does not take it.

        Source: RegistryService.WhoAmI in protos/lading_proto/registry/v1/registry.proto.
        """
        return await self.connection.identity()

    async def version(self, reference: str | Version) -> Version:
        """Return the version that a reference means now.

        Args:
            reference: `[entity/][project/]name`, and then nothing (meaning `:latest`), `:alias`, `:vN` or `@b3:<hex>`;
                `lading://` may stand in front. Or a version, to see what it is now.

        Raises:
            NotFound: There is no such collection, version or alias.
            InvalidArgument: The reference is malformed.

        Source: RegistryService.GetVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        name = await self.connection.version_name(reference)
        request = versions_pb2.GetVersionRequest(entity=name.entity)
        if isinstance(reference, Version):
            request.uid = reference.uid
        else:
            request.reference = whole_name(name)
        response = await self.connection.call(lambda stub: stub.GetVersion, request)
        return convert.version(response.version, name.entity, self.connection)

    async def collection(self, name: str) -> Collection:
        """Return a collection.

        Args:
            name: `[entity/][project/]name`.

        Raises:
            NotFound: There is no such collection.
            InvalidArgument: The name is malformed.

        Source: RegistryService.GetCollection in protos/lading_proto/registry/v1/registry.proto.
        """
        found = await self.connection.collection_name(name)
        request = collections_pb2.GetCollectionRequest(
            entity=found.entity, project=found.project, collection=found.name
        )
        response = await self.connection.call(lambda stub: stub.GetCollection, request)
        return convert.collection(response.collection, found.entity)

    async def projects(self) -> AsyncGenerator[Project, None]:
        """Yield the entity's projects, sorted by name.

        Source: RegistryService.ListProjects in protos/lading_proto/registry/v1/registry.proto.
        """
        entity = await self.connection.entity()
        request = collections_pb2.ListProjectsRequest(entity=entity)
        listing = pages.items(self.connection, lambda stub: stub.ListProjects, request, lambda page: page.projects)
        async with aclosing(listing):
            async for item in listing:
                yield convert.project(item, entity)

    async def collections(
        self, project: str | None = None, query: str = "", deleted: bool = False
    ) -> AsyncGenerator[Collection, None]:
        """Yield collections, sorted by project and name.

        Args:
            project: Only those in this project; None for all of the entity.
            query: Only those that match, as in `search`: `type=model tag=approved`.
            deleted: Those that were deleted and can be undeleted, instead of those that are there.

        Raises:
            InvalidArgument: The query cannot be read; `metadata["position"]` says where.

        Source: RegistryService.ListCollections in protos/lading_proto/registry/v1/registry.proto.
        """
        entity = await self.connection.entity()
        request = collections_pb2.ListCollectionsRequest(
            entity=entity, project=project or "", query=query, deleted=deleted
        )
        listing = pages.items(
            self.connection, lambda stub: stub.ListCollections, request, lambda page: page.collections
        )
        async with aclosing(listing):
            async for item in listing:
                yield convert.collection(item, entity)

    async def versions(self, collection: str, deleted: bool = False) -> AsyncGenerator[Version, None]:
        """Yield the versions of a collection, the newest first.

        Args:
            collection: `[entity/][project/]name`.
            deleted: Those that were deleted and can be undeleted, until their `purge_at`, instead of those that are
                there; also of a collection that was deleted.

        Raises:
            NotFound: There is no such collection.

        Source: RegistryService.ListVersions in protos/lading_proto/registry/v1/registry.proto.
        """
        found = await self.connection.collection_name(collection)
        request = versions_pb2.ListVersionsRequest(
            entity=found.entity, project=found.project, collection=found.name, deleted=deleted
        )
        listing = pages.items(self.connection, lambda stub: stub.ListVersions, request, lambda page: page.versions)
        async with aclosing(listing):
            async for item in listing:
                yield convert.version(item, found.entity, self.connection)

    async def search(self, query: str = "", order_by: str = "") -> AsyncGenerator[Version, None]:
        """Yield versions of any collection that match all conditions of a query.

        Args:
            query: Conditions such as `type=model tag=approved metadata.accuracy > 0.9 created >= 2026-01-31`; a word
                alone means that the name holds it. SearchVersionsRequest in versions.proto has the whole grammar.
            order_by: `created`, `name`, `size` or `metadata.KEY`, and then ` desc` or nothing; empty for the newest
                first.

        Raises:
            InvalidArgument: The query or the order cannot be read; `metadata["position"]` says where.

        Source: RegistryService.SearchVersions in protos/lading_proto/registry/v1/registry.proto.
        """
        entity = await self.connection.entity()
        request = versions_pb2.SearchVersionsRequest(entity=entity, query=query, order_by=order_by)
        listing = pages.items(self.connection, lambda stub: stub.SearchVersions, request, lambda page: page.versions)
        async with aclosing(listing):
            async for item in listing:
                yield convert.version(item, entity, self.connection)

    async def lineage(self, reference: str | Version, direction: str = "both", depth: int = 10) -> Lineage:
        """Return which runs made a version from which others, and what was made from it.

        Args:
            reference: The version. Of a link, its source is asked about, and the link is in the graph.
            direction: `upstream` for what it came from, `downstream` for what came from it, or `both`.
            depth: How many runs to pass on the way, 1 to 100.

        Raises:
            NotFound: There is no such collection, version or alias.
            InvalidArgument: The reference or the direction is malformed, or the depth out of range.

        Source: RegistryService.GetLineage in protos/lading_proto/registry/v1/registry.proto.
        """
        name = await self.connection.version_name(reference)
        request = lineage_pb2.GetLineageRequest(
            entity=name.entity, reference=whole_name(name), direction=convert.direction(direction), depth=depth
        )
        response = await self.connection.call(lambda stub: stub.GetLineage, request)
        return convert.lineage(response, name.entity, self.connection)

    async def runs(self, project: str | None = None) -> AsyncGenerator[RunInfo, None]:
        """Yield runs, the newest first.

        Args:
            project: Only those in this project; None for all of the entity.

        Source: RegistryService.ListRuns in protos/lading_proto/registry/v1/registry.proto.
        """
        entity = await self.connection.entity()
        request = runs_pb2.ListRunsRequest(entity=entity, project=project or "")
        listing = pages.items(self.connection, lambda stub: stub.ListRuns, request, lambda page: page.runs)
        async with aclosing(listing):
            async for item in listing:
                yield convert.run(item, entity)

    async def run(self, run_id: str) -> RunDetails:
        """Return a run, with what it measured, used and made.

        Raises:
            NotFound: The entity has no such run.

        Source: RegistryService.GetRun in protos/lading_proto/registry/v1/registry.proto.
        """
        entity = await self.connection.entity()
        request = runs_pb2.GetRunRequest(entity=entity, run_id=run_id)
        response = await self.connection.call(lambda stub: stub.GetRun, request)
        return convert.run_details(response, entity, self.connection)

    async def metrics(
        self, run_id: str, key: str, max_points: int = 1000, min_step: int = 0, max_step: int | None = None
    ) -> list[MetricPoint]:
        """Return what a run measured under one key, sorted by step.

        Args:
            run_id: The run.
            key: What was measured: `loss`.
            max_points: How many points at most. Of more, the steps are divided into ranges of equal width, and each
                gives its first point.
            min_step: Only from this step on.
            max_step: Only up to this step; None for all.

        Raises:
            NotFound: The entity has no such run.
            InvalidArgument: The key is malformed.

        Source: RegistryService.GetMetrics in protos/lading_proto/registry/v1/registry.proto.
        """
        request = runs_pb2.GetMetricsRequest(
            entity=await self.connection.entity(),
            run_id=run_id,
            key=key,
            min_step=min_step,
            max_step=max_step,
            max_points=max_points,
        )
        response = await self.connection.call(lambda stub: stub.GetMetrics, request)
        return [convert.metric_point(point) for point in response.points]

    async def events(
        self,
        project: str | None = None,
        collection: str | None = None,
        version: str | Version | None = None,
        after_revision: int = 0,
        newest_first: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Yield what changed, in order.

        Args:
            project: Only in this project; None for all of the entity.
            collection: Only about this collection and its versions: `[entity/][project/]name`.
            version: Only about this version.
            after_revision: Only after this revision: that of the last event that was seen, to continue.
            newest_first: The newest first, instead of the oldest.

        Raises:
            NotFound: There is no such version.
            InvalidArgument: A name is malformed.

        Source: RegistryService.ListEvents in protos/lading_proto/registry/v1/registry.proto.
        """
        request = events_pb2.ListEventsRequest(
            project=project or "", after_revision=after_revision, newest_first=newest_first
        )
        if version is not None:
            found = version if isinstance(version, Version) else await self.version(version)
            request.entity, request.version_uid = found.entity, found.uid
        elif collection is not None:
            within = collection if project is None or "/" in collection else f"{project}/{collection}"
            name = await self.connection.collection_name(within)
            request.entity, request.project, request.collection = name.entity, name.project, name.name
        else:
            request.entity = await self.connection.entity()
        listing = pages.items(self.connection, lambda stub: stub.ListEvents, request, lambda page: page.events)
        async with aclosing(listing):
            async for item in listing:
                yield convert.event(item)

    async def verify_audit(self, from_sequence: int | None = None, from_hash: str | None = None) -> AuditReport:
        """Read all events of the entity, and tell whether each is the one that was written after the one before it.

        Without a head that was seen before, an end that was cut off is not found, nor a log that was written anew from
        its beginning: keep `head_sequence` and `head_hash` of the report where the server's operator cannot reach them.

        Args:
            from_sequence: The `head_sequence` of a report that was seen before.
            from_hash: Its `head_hash`.

        Raises:
            InvalidArgument: Only one of the two is given, or the hash is not 64 hexadecimal digits.

        Source: RegistryService.ListEvents in protos/lading_proto/registry/v1/registry.proto.
        """
        chain = audit.Chain(audit.seen_head(from_sequence, from_hash))
        request = events_pb2.ListEventsRequest(entity=await self.connection.entity())
        listing = pages.items(self.connection, lambda stub: stub.ListEvents, request, lambda page: page.events)
        async with aclosing(listing):
            async for item in listing:
                if not chain.accepts(convert.chained_event(item), item.chain_hash):
                    break
        return chain.report()
