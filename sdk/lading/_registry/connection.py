"""Which server, whose entity, and calls to it. What every part of the client stands on."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from lading._address import Address, parse_address
from lading._cache.local import LocalCache
from lading._config import Settings, Wishes, settle
from lading._content import Content
from lading._digest_cache import DigestCache
from lading._registry.models import Identity
from lading._registry.names import CollectionName, collection_name, portfolio_name, rule_place, version_name
from lading._retry import RetryPolicy
from lading._transport import Transport
from lading._version import Version
from lading_format.references import VersionReference
from lading_proto.registry.v1 import registry_pb2

if TYPE_CHECKING:
    from lading_proto.registry.v1.access_pb2_grpc import AccessServiceAsyncStub
    from lading_proto.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub
    from lading_proto.registry.v1.retention_pb2_grpc import RetentionServiceAsyncStub

Response = TypeVar("Response")


class Connection:
    """One client's way to its server. Safe for any number of tasks of one event loop.

    Opens nothing before the first call; that one reads the settings' files. For the SDK's own parts: a program uses
    `Client`.

    Attributes:
        policy: When to try again, and when to give up.
    """

    def __init__(
        self, wishes: Wishes, policy: RetryPolicy, digests: DigestCache | None, cache: LocalCache | None = None
    ) -> None:
        self._wishes = wishes
        self.policy = policy
        self._settings: Settings | None = None
        self._registry: Transport | None = None
        self._ingest: Transport | None = None
        self._identity: Identity | None = None
        self._contents: dict[str, Content] = {}
        self._digests = digests
        self._cache = cache

    async def settings(self) -> Settings:
        """Return what the arguments, the environment and the files come to.

        Raises:
            InvalidArgument: The address is malformed.
        """
        if self._settings is None:
            self._settings = await asyncio.to_thread(settle, self._wishes)
        return self._settings

    async def project(self) -> str:
        """Return the project that is meant where none is named."""
        return (await self.settings()).project

    async def entity(self) -> str:
        """Return the entity that is meant where none is named: the configured one, or else the key's."""
        return (await self.settings()).entity or (await self.identity()).entity

    async def identity(self) -> Identity:
        """Return whom the key belongs to; asked once."""
        if self._identity is None:
            response = await self.call(lambda stub: stub.WhoAmI, registry_pb2.WhoAmIRequest())
            self._identity = Identity(response.principal, response.entity, response.role, response.key_id)
        return self._identity

    async def call(
        self,
        method: Callable[[RegistryServiceAsyncStub], Callable[..., Awaitable[Response]]],
        request: object,
        *,
        policy: RetryPolicy | None = None,
    ) -> Response:
        """Await one call to the registry, repeated while it fails for a passing reason.

        Args:
            method: Picks the method: `lambda stub: stub.GetVersion`.
            request: Its message. One that changes something has a `request_id`, so that repeating is harmless.
            policy: When to give up, if not as the client does.
        """
        transport = await self._transport()
        return await (policy or self.policy).call(lambda: transport.call(method(transport.registry), request))

    async def call_access(
        self,
        method: Callable[[AccessServiceAsyncStub], Callable[..., Awaitable[Response]]],
        request: object,
        *,
        policy: RetryPolicy | None = None,
    ) -> Response:
        """Await one call to AccessService, which the registry serves too. As `call`."""
        transport = await self._transport()
        return await (policy or self.policy).call(lambda: transport.call(method(transport.access), request))

    async def call_retention(
        self,
        method: Callable[[RetentionServiceAsyncStub], Callable[..., Awaitable[Response]]],
        request: object,
    ) -> Response:
        """Await one call to RetentionService, which the registry serves too. As `call`."""
        transport = await self._transport()
        return await self.policy.call(lambda: transport.call(method(transport.retention), request))

    async def content(self, entity: str) -> Content:
        """Return the way to an entity's content. Asks the server once where that is."""
        transport = await self._ingest_transport()
        found = self._contents.get(entity)
        if found is None:
            found = self._contents[entity] = Content(transport, entity, self.policy, self._digests, self._cache)
        return found

    async def ingest(self) -> Transport:
        """Return the way to ingest itself, for what is about no entity. Asks the server once where that is."""
        return await self._ingest_transport()

    async def version_name(self, reference: str | Version) -> VersionReference:
        """Return what a reference means, in full. Raises InvalidArgument."""
        if isinstance(reference, Version):
            return VersionReference(reference.entity, reference.project, reference.collection, number=reference.number)
        entity, project = await self._places(reference)
        return version_name(reference, entity, project)

    async def collection_name(self, text: str) -> CollectionName:
        """Return which collection a name means. Raises InvalidArgument."""
        entity, project = await self._places(text)
        return collection_name(text, entity, project)

    async def rule_place(self, text: str) -> CollectionName:
        """Return for which collection, or for which project, a rule is. Raises InvalidArgument."""
        entity, project = await self._places(text)
        return rule_place(text, entity, project)

    async def portfolio_name(self, text: str) -> CollectionName:
        """Return which registered model a name means. Raises InvalidArgument."""
        entity, _ = await self._places(text)
        return portfolio_name(text, entity)

    async def close(self) -> None:
        """Close the connections. Another call opens them again."""
        for transport in {self._registry, self._ingest} - {None}:
            if transport is not None:
                await transport.close()

    async def _places(self, text: str) -> tuple[str, str]:
        """Return the entity and project that a name leaves out. A full name asks no server."""
        named = text.removeprefix("lading://").count("/") >= 2
        return "" if named else await self.entity(), await self.project()

    async def _transport(self) -> Transport:
        settings = await self.settings()
        if self._registry is None:
            self._registry = Transport(settings.address, settings.api_key, settings.trust)
        return self._registry

    async def _ingest_transport(self) -> Transport:
        if self._ingest is None:
            info = await self.call(lambda stub: stub.GetServerInfo, registry_pb2.GetServerInfoRequest())
            registry = await self._transport()
            settings = await self.settings()
            there = settings.address
            if info.ingest_target:
                told = parse_address(info.ingest_target)
                there = Address(told.host, told.port, settings.address.tls)
            if self._ingest is None:  # another task may have been faster
                same = there == settings.address
                self._ingest = registry if same else Transport(there, settings.api_key, settings.trust)
        return self._ingest


def fresh_request_id() -> str:
    """Return the id of one call that changes something: the same for all its repetitions."""
    return uuid.uuid4().hex


def whole_name(reference: VersionReference) -> str:
    """Return a reference as requests have it: the entity is a field of its own."""
    return f"{reference.project}/{reference.collection}{reference.selector}"
