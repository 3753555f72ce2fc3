"""The registry as a part of a server: opened in order, and closed so that nothing acknowledged is lost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc

from lading_proto.registry.v1 import keys_pb2, keys_pb2_grpc, registry_pb2, registry_pb2_grpc
from lading_server.common.access import KeyChecker
from lading_server.common.pins import ContentPins
from lading_server.common.settings import Settings
from lading_server.registry.domain.keys import ADMIN_KEY_FILE, Keys
from lading_server.registry.domain.registry import run_registry
from lading_server.registry.service.keys import KeyServicer
from lading_server.registry.service.servicer import RegistryServicer
from lading_server.registry.store.store import RegistryStore

_log = logging.getLogger(__name__)


class RegistryComponent:
    """What a server adds to itself to serve the registry."""

    def __init__(self, servicer: RegistryServicer, keys: Keys, admin_key_file: Path, *, serves_keys: bool) -> None:
        """`serves_keys`: whether another process asks for keys."""
        self._servicer = servicer
        self._keys = keys
        self._admin_key_file = admin_key_file
        self._serves_keys = serves_keys

    @property
    def service_names(self) -> Sequence[str]:
        """The full names of its services."""
        names = [registry_pb2.DESCRIPTOR.services_by_name["RegistryService"].full_name]
        return [*names, keys_pb2.DESCRIPTOR.services_by_name["KeyService"].full_name] if self._serves_keys else names

    @property
    def keys(self) -> KeyChecker:
        """What knows the keys."""
        return self._keys

    @property
    def admin_key_file(self) -> Path | None:
        """Where the first key is, if it still lies there."""
        return self._admin_key_file if self._admin_key_file.exists() else None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register its services."""
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(self._servicer, server)
        if self._serves_keys:
            keys_pb2_grpc.add_KeyServiceServicer_to_server(KeyServicer(self._keys), server)


@asynccontextmanager
async def open_registry(settings: Settings, pins: ContentPins) -> AsyncIterator[RegistryComponent]:
    """Open the registry of the settings.

    Args:
        pins: How ingest is asked to keep trees whole.

    Raises:
        DatabaseUnavailable: The database cannot be used; the message says what to do.
        OSError: The data directory cannot be made, or the first key not be written to it.
    """
    data = Path(settings.data)
    async with AsyncExitStack() as stack:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = settings.registry_database_url or f"sqlite:///{data.absolute() / 'registry.db'}"
        store = await RegistryStore.open(url)
        stack.push_async_callback(store.close)
        keys = Keys(store)
        if settings.auth == "keys" and await keys.make_first(data, settings.default_entity):
            _log.info("made entity %s and an admin key for it", settings.default_entity)
        registry = await stack.enter_async_context(run_registry(settings, store, pins))
        yield RegistryComponent(
            RegistryServicer(registry),
            keys,
            data.absolute() / ADMIN_KEY_FILE,
            serves_keys=settings.services == "registry",
        )
