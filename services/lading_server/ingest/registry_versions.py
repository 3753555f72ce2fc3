"""KeptVersions at the end of a channel: the registry in a process of its own. Or at the end of none."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lading_proto.registry.v1 import kept_pb2, kept_pb2_grpc
from lading_server.common.kept_versions import KeptVersion
from lading_server.common.peers import Peer, PeerFailed
from lading_server.common.registry_errors import NoRegistry, RegistryUnavailable

# A page is a range of an index; a registry that is busy may take a while all the same, and nobody waits.
_ASK_SECONDS = 30.0


class RemoteVersions:
    """See KeptVersions. An attempt that is not answered is repeated for a few seconds."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry
        self._stub = kept_pb2_grpc.KeptVersionServiceStub(registry.channel)

    async def entities(self, after: str, limit: int) -> list[str]:
        """See KeptVersions.entities."""
        request = kept_pb2.ListKeptEntitiesRequest(after=after, limit=limit)
        return list((await self._ask(self._stub.ListKeptEntities, request)).names)

    async def page(self, entity: str, after: bytes, limit: int) -> list[KeptVersion]:
        """See KeptVersions.page."""
        request = kept_pb2.ListKeptVersionsRequest(entity=entity, after=after, limit=limit)
        response = await self._ask(self._stub.ListKeptVersions, request)
        return [KeptVersion(one.uid, one.tree_digest) for one in response.versions]

    async def expected(self, entity: str, uids: Collection[bytes]) -> set[bytes]:
        """See KeptVersions.expected."""
        request = kept_pb2.GetExpectedVersionsRequest(entity=entity, uids=uids)
        return set((await self._ask(self._stub.GetExpectedVersions, request)).uids)

    async def _ask(self, method: Any, request: object) -> Any:
        try:
            return await self._registry.ask(method, request, _ASK_SECONDS)
        except PeerFailed as failure:
            # A wrong service key among others, and a registry of an older release: the operator sees which.
            raise RegistryUnavailable(
                f"the registry does not say which versions it keeps ({failure}); nothing is deleted without it"
            ) from failure


class NoRegistryVersions:
    """See KeptVersions. Of a registry that ingest was not told of: every call says what to set."""

    async def entities(self, after: str, limit: int) -> list[str]:
        """Raises NoRegistry."""
        raise _no_registry()

    async def page(self, entity: str, after: bytes, limit: int) -> list[KeptVersion]:
        """Raises NoRegistry."""
        raise _no_registry()

    async def expected(self, entity: str, uids: Collection[bytes]) -> set[bytes]:
        """Raises NoRegistry."""
        raise _no_registry()


def _no_registry() -> NoRegistry:
    return NoRegistry(
        "this server was not told where the registry is, and without it nobody knows what is kept; start it with "
        "--registry-target, and the registry with the same --service-key-file"
    )
