"""Garbage, and what keeps content from becoming it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from lading._errors import NotFound
from lading._maintenance import convert
from lading._maintenance.models import EntityCollection, Explanation, GarbageProgress, LastCollection
from lading._registry.connection import Connection
from lading._transport import Stream
from lading_proto.ingest.v1 import maintenance_pb2
from lading_proto.registry.v1 import versions_pb2

# Versions whose names `explain` asks for: a call each.
_NAMED = 100

_Events = Stream[maintenance_pb2.CollectGarbageRequest, maintenance_pb2.CollectGarbageResponse]


class Maintenance:
    """The part of `Client` that keeps a store.

    Attributes:
        connection: What calls go through. For the SDK's own parts.
    """

    connection: Connection

    async def collect_garbage(
        self, *, dry_run: bool = False, release_unknown_pins: bool = False, entity: str | None = None
    ) -> AsyncGenerator[GarbageProgress | EntityCollection, None]:
        """Collect garbage, one entity after the other; yield what is being done and what came of it. For the operator.

        The server does so by itself, once an hour unless it is set otherwise. To leave early is to end the run; the
        next one goes on from there.

        Args:
            dry_run: Change nothing, and tell what would go, what it would free and why.
            release_unknown_pins: Also release the pins of versions that the registry does not know. For after its
                database was lost or restored, when it is sure that those versions are not wanted back.
            entity: The one tenant that is meant; None for all.

        Raises:
            FailedPrecondition: A run is at it, or ingest was not told where the registry is.
            Unavailable: The registry does not answer; nothing more is deleted.
            InvalidArgument: The entity's name is none.

        Source: MaintenanceService.CollectGarbage in protos/lading_proto/ingest/v1/maintenance.proto.
        """
        request = maintenance_pb2.CollectGarbageRequest(
            dry_run=dry_run, release_unknown_pins=release_unknown_pins, name=entity or ""
        )
        transport = await self.connection.ingest()

        async def begin() -> tuple[_Events, maintenance_pb2.CollectGarbageResponse | None]:
            stream: _Events = transport.stream(transport.maintenance.CollectGarbage(request))
            return stream, await stream.read()

        # Only the beginning is tried again: what was told once would be told twice.
        stream, told = await self.connection.policy.call(begin)
        try:
            while told is not None:
                yield convert.event(told)
                told = await stream.read()
        finally:
            stream.cancel()

    async def last_collection(self) -> LastCollection:
        """Return when garbage was last collected, and what that came to. For the operator.

        Source: MaintenanceService.GetLastCollection in protos/lading_proto/ingest/v1/maintenance.proto.
        """
        transport = await self.connection.ingest()
        request = maintenance_pb2.GetLastCollectionRequest()
        response = await self.connection.policy.call(
            lambda: transport.call(transport.maintenance.GetLastCollection, request)
        )
        return convert.last_collection(response)

    async def explain(self, digest: str) -> Explanation:
        """Return what is known of a file, a tree or a chunk, and what keeps it from being collected.

        Args:
            digest: `b3:<64 hex>`.

        Raises:
            NotFound: The entity has nothing of this digest, in the trash neither.
            InvalidArgument: The digest is malformed.

        Source: MaintenanceService.ExplainContent in protos/lading_proto/ingest/v1/maintenance.proto.
        """
        entity = await self.connection.entity()
        transport = await self.connection.ingest()
        request = maintenance_pb2.ExplainContentRequest(entity=entity, digest=digest)
        response = await self.connection.policy.call(
            lambda: transport.call(transport.maintenance.ExplainContent, request)
        )
        return convert.explanation(response, digest, await self._names(entity, response.version_uids[:_NAMED]))

    async def _names(self, entity: str, uids: Iterable[bytes]) -> dict[bytes, str]:
        """Return the references of versions by their ids. Deleted ones have none."""
        names: dict[bytes, str] = {}
        for uid in uids:
            request = versions_pb2.GetVersionRequest(entity=entity, uid=uid.hex())
            try:
                version = (await self.connection.call(lambda stub: stub.GetVersion, request)).version
            except NotFound:
                continue
            names[uid] = f"{entity}/{version.project}/{version.collection}:v{version.number}"
        return names
