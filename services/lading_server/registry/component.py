"""The registry as a part of a server: opened in order, and closed so that nothing acknowledged is lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from lading_proto.registry.v1 import (
    access_pb2,
    access_pb2_grpc,
    kept_pb2,
    kept_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
    retention_pb2,
    retention_pb2_grpc,
)
from lading_server.common.access import KeyChecker
from lading_server.common.kept_versions import KeptVersions
from lading_server.common.pins import ContentPins
from lading_server.common.settings import Settings
from lading_server.registry.domain.access import AccessRules, run_access
from lading_server.registry.domain.first_keys import ADMIN_KEY_FILE, make_admins_key, make_operators_key
from lading_server.registry.domain.kept import Kept
from lading_server.registry.domain.registry import run_registry
from lading_server.registry.service.access import AccessServicer
from lading_server.registry.service.kept import KeptVersionServicer
from lading_server.registry.service.keys import KeyServicer
from lading_server.registry.service.retention import RetentionServicer
from lading_server.registry.service.servicer import RegistryServicer
from lading_server.registry.store.store import RegistryStore

_log = logging.getLogger(__name__)


class RegistryComponent:
    """What a server adds to itself to serve the registry."""

    def __init__(
        self,
        servicer: RegistryServicer,
        retention: RetentionServicer,
        access: AccessRules,
        kept: KeptVersions,
        directory: Path,
        *,
        serves_peer: bool,
    ) -> None:
        """`directory` is where the first keys were left; `serves_peer`: whether ingest is another process."""
        self._servicer = servicer
        self._retention = retention
        self._access = access
        self._kept = kept
        self._directory = directory
        self._serves_peer = serves_peer

    @property
    def service_names(self) -> Sequence[str]:
        """The full names of its services."""
        names = [
            registry_pb2.DESCRIPTOR.services_by_name["RegistryService"].full_name,
            access_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
            retention_pb2.DESCRIPTOR.services_by_name["RetentionService"].full_name,
        ]
        if self._serves_peer:
            names.append(keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name)
            names.append(kept_pb2.DESCRIPTOR.services_by_name["KeptVersionService"].full_name)
        return names

    @property
    def keys(self) -> KeyChecker:
        """What knows the keys, and remembers the good ones."""
        return self._access.remembered

    @property
    def kept(self) -> KeptVersions:
        """What ingest asks, where it is in the same process."""
        return self._kept

    @property
    def admin_key_file(self) -> Path | None:
        """Where the first key is, if it still lies there."""
        path = self._directory / ADMIN_KEY_FILE
        return path if path.exists() else None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register its services."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self._servicer, server)
        access_pb2_grpc.add_AccessServiceServicer_to_server(AccessServicer(self._access), server)
        retention_pb2_grpc.add_RetentionServiceServicer_to_server(self._retention, server)
        if self._serves_peer:
            keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(self._access.keys), server)
            kept_pb2_grpc.add_KeptVersionServiceServicer_to_server(KeptVersionServicer(self._kept), server)


@asynccontextmanager
async def open_registry(settings: Settings, pins: ContentPins) -> AsyncIterator[RegistryComponent]:
    """Open the registry of the settings.

    Args:
        pins: How ingest is asked to keep trees whole.

    Raises:
        DatabaseUnavailable: The database cannot be used; the message says what to do.
        OSError: The data directory cannot be made, or the first keys not be written to it.
    """
    data = Path(settings.data)
    async with AsyncExitStack() as stack:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = settings.registry_database_url or f"sqlite:///{data.absolute() / 'registry.db'}"
        store = await RegistryStore.open(url)
        stack.push_async_callback(store.close)
        if settings.auth == "keys":
            if await make_admins_key(store, data, settings.default_entity):
                _log.info("made entity %s and an admin key for it", settings.default_entity)
            if await make_operators_key(store, data):
                _log.info("made the operator's key")
        access = await stack.enter_async_context(run_access(settings, store))
        registry = await stack.enter_async_context(run_registry(settings, store, pins))
        yield RegistryComponent(
            RegistryServicer(registry),
            RetentionServicer(registry.retention),
            access,
            Kept(store),
            data.absolute(),
            serves_peer=settings.services == "registry",
        )
