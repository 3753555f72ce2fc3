"""Which versions keep their trees, told to ingest before it collects."""

from __future__ import annotations

from collections.abc import Collection

from lading_server.common.errors import TooManyItems
from lading_server.common.kept_versions import KeptVersion
from lading_server.registry.store.kept import entity_names, expected_uids, kept_page
from lading_server.registry.store.store import RegistryStore

# Of anything at a time: some 700 KB on the wire.
MAX_ITEMS = 10_000


class Kept:
    """KeptVersions over the registry's own database. Never raises RegistryUnavailable: here it is."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store

    async def entities(self, after: str, limit: int) -> list[str]:
        """See KeptVersions.entities."""
        async with self._store.database.read() as connection:
            return await entity_names(connection, after, _bounded(limit))

    async def page(self, entity: str, after: bytes, limit: int) -> list[KeptVersion]:
        """See KeptVersions.page. An entity that is not known has none."""
        entity_id = await self._store.entities.find(entity)
        if entity_id is None:
            return []
        async with self._store.database.read() as connection:
            return await kept_page(connection, entity_id, after, _bounded(limit))

    async def expected(self, entity: str, uids: Collection[bytes]) -> set[bytes]:
        """See KeptVersions.expected. Raises TooManyItems."""
        if len(uids) > MAX_ITEMS:
            raise TooManyItems(
                f"{len(uids):,} versions in one message, and it may have {MAX_ITEMS:,}; split it", limit=MAX_ITEMS
            )
        entity_id = await self._store.entities.find(entity)
        if entity_id is None:
            return set()
        async with self._store.database.read() as connection:
            return await expected_uids(connection, entity_id, uids)


def _bounded(limit: int) -> int:
    return max(1, min(limit, MAX_ITEMS))
