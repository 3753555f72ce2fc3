"""Which versions need what is lost: what a check tells at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

from lading_format.tree import FileEntry
from lading_server.common.errors import CorruptRecord, StorageFailed, TreeNotFound
from lading_server.ingest.domain.check_findings import HurtVersion
from lading_server.ingest.domain.tree_pages import decode_page, page_blobs
from lading_server.ingest.domain.tree_reader import TreeReader
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.checks import PinCheck, Tenant
from lading_server.ingest.index.schema import ContentState
from lading_server.ingest.index.store import ContentIndex

_PINS_AT_ONCE = 1000
# Damaged blobs whose digests are in memory at once, about 100 bytes each. Where there are more, the index is asked.
_DAMAGED_AT_ONCE = 100_000
# Paths that are told of one version.
_PATHS = 20
# Trees whose damage is remembered, for versions that share one.
_REMEMBERED = 1000


class _Damage(NamedTuple):
    """What of a tree is lost. `pages`: whether pages are."""

    pages: bool
    paths: tuple[str, ...]
    files: int


@dataclass(frozen=True)
class HurtVersions:
    """Finds versions by their pins."""

    index: ContentIndex
    trees: TreeReader
    workers: Workers

    async def of(self, tenant: Tenant) -> AsyncIterator[HurtVersion]:
        """Yield the versions that cannot be read whole, by their ids."""
        damaged = set(await self.index.checks.damaged_blobs(tenant.id, _DAMAGED_AT_ONCE))
        known: dict[bytes, _Damage] = {}
        async for pin in self._pins(tenant.id):
            found = known.get(pin.tree_digest)
            if found is None:
                found = known[pin.tree_digest] = await self._damage(tenant, pin, damaged)
                if len(known) > _REMEMBERED:
                    del known[next(iter(known))]
            if found.pages or found.files:
                yield HurtVersion(tenant.name, pin.version_uid, pin.tree_digest, *found)

    async def _pins(self, entity_id: int) -> AsyncIterator[PinCheck]:
        after = b""
        while rows := await self.index.checks.pins(entity_id, after, _PINS_AT_ONCE):
            for row in rows:
                yield row
            after = rows[-1].version_uid

    async def _damage(self, tenant: Tenant, pin: PinCheck, damaged: set[bytes]) -> _Damage:
        """Return what of a pinned tree is lost. Reads its pages, if the entity has damaged blobs at all."""
        lost_pages = pin.tree_state != ContentState.LIVE
        paths: list[str] = []
        files = 0
        if not damaged or not pin.is_readable:
            return _Damage(lost_pages, (), 0)
        try:
            async for page in self.trees.page_digests(tenant.name, pin.tree_digest):
                try:
                    payload = await self.trees.payload(tenant.name, page)
                except (CorruptRecord, StorageFailed):
                    lost_pages = True
                    continue
                found = await self._damaged_among(tenant.id, await self.workers.run(page_blobs, payload), damaged)
                if found:
                    hit = [
                        entry.path
                        for entry in await self.workers.run(decode_page, payload)
                        if isinstance(entry, FileEntry) and entry.digest in found
                    ]
                    paths += hit[: _PATHS - len(paths)]
                    files += len(hit)
        except TreeNotFound:
            return _Damage(True, tuple(paths), files)
        return _Damage(lost_pages, tuple(paths), files)

    async def _damaged_among(self, entity_id: int, digests: list[bytes], damaged: set[bytes]) -> set[bytes]:
        """Return which of a page's blobs are damaged. Where too many are to be remembered, the index is asked."""
        if len(damaged) < _DAMAGED_AT_ONCE:
            return damaged.intersection(digests)
        return await self.index.checks.damaged_of(entity_id, digests)
