"""Versions and links that come back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lading_format.errors import InvalidName
from lading_format.names import LATEST, check_request_id
from lading_format.references import VersionReference
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import SourceDeleted, VersionNotFound
from lading_server.common.settings import Settings
from lading_server.registry.domain.aliases import settle_latest
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.gone import find_once, version_gone
from lading_server.registry.domain.outcomes import Outcome, from_memory, to_memory
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_changes import collection_deleting
from lading_server.registry.store.collection_states import show_collection
from lading_server.registry.store.deletions import links_that_went_with, live_sources, show_versions
from lading_server.registry.store.entities import ensure_project
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import CollectionState, VersionState
from lading_server.registry.store.store import RegistryStore

# Links that come back in one change.
_MOST_LINKS = 500


class Undeleted(NamedTuple):
    """A version that is there again, and the links that came back with it, which have its card and its metadata."""

    version: VersionRow
    links: list[VersionRow]

    @classmethod
    def of(cls, version: VersionRow, links: Iterable[VersionRow]) -> Undeleted:
        """Take links that were read without the two: 500 copies of them would be a quarter of a gigabyte."""
        return cls(
            version, [link._replace(description=version.description, metadata=version.metadata) for link in links]
        )


@dataclass(frozen=True, slots=True)
class Undeleting:
    """The rules of versions that come back. Every method is inside the entity of its caller.

    That a version is deleted and not purged is asked and changed in one change, and to purge one is a change too: so
    what came back has its pin, and what lost its pin never comes back.
    """

    settings: Settings
    store: RegistryStore

    async def undelete(
        self, caller: Caller, target: VersionReference | bytes, *, with_links: bool = False, request_id: str = ""
    ) -> Undeleted:
        """Make a deleted version visible again, without its aliases. One that is there is left as it is.

        Args:
            target: Its number, its tree (the newest deleted version of it), or its id.
            with_links: Bring back the links that went with it, too, at most 500.

        Raises:
            InvalidName, RequestIdReused: The request cannot be taken.
            CollectionNotFound, VersionNotFound: It never was, or it was purged.
            SourceDeleted: It is a link, and what it points at is deleted.
            CollectionDeleting: Its collection is on its way to being deleted.
        """
        request_id = request_id and check_request_id(request_id)
        if isinstance(target, VersionReference) and target.number is None and target.digest is None:
            raise InvalidName(
                f"alias {target.alias or LATEST!r} went with the version; say which by :vN or @b3:…", field="reference"
            )
        asked = fingerprint(
            "UndeleteVersion", target=target if isinstance(target, bytes) else str(target), with_links=with_links
        )
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return await self._remembered(change, memory["results"])
            row = await self._find(change, target)
            undeleted = await self._show(change, row, with_links=with_links)
            results = [to_memory(Outcome(one)) for one in (undeleted.version, *undeleted.links)]
            await change.remember(request_id, asked, {"results": results})
            return undeleted

    async def _remembered(self, change: Change, results: list[dict[str, Any]]) -> Undeleted:
        first, *others = results
        version, _ = await from_memory(change, self.store.versions, first)
        links = [await from_memory(change, self.store.versions, one, briefly=True) for one in others]
        return Undeleted.of(version, [link.version for link in links])

    async def _find(self, change: Change, target: VersionReference | bytes) -> VersionRow:
        versions, connection, entity_id = self.store.versions, change.connection, change.entity_id
        if isinstance(target, bytes):
            row = await versions.once(connection, entity_id, target)
            return row if row is not None else await versions.by_uid(connection, entity_id, target)
        row = await find_once(self.store, connection, entity_id, target)
        return row if row is not None else await versions.resolve(connection, entity_id, target)

    async def _show(self, change: Change, row: VersionRow, *, with_links: bool) -> Undeleted:
        versions = self.store.versions
        if row.state is VersionState.PURGED:
            raise version_gone(self.settings, row)
        await self._have_collection(change, row)
        if row.state is VersionState.LIVE:
            return Undeleted(await versions.by_id(change.connection, row.id), [])
        links = await links_that_went_with(change, row, _MOST_LINKS) if with_links else []
        if row.source_id is not None and not await live_sources(change, [row]):
            raise SourceDeleted(
                f"{row.name} is a link to {row.source}, which is deleted; undelete that first", source=row.source
            )
        shown = [row, *await versions.once_by_ids(change.connection, links)]
        await show_versions(change, shown)
        for key in dict.fromkeys(one.collection_key for one in shown):
            await settle_latest(change, key)
        version = await versions.by_id(change.connection, row.id)
        return Undeleted.of(version, await versions.once_by_ids(change.connection, links))

    async def _have_collection(self, change: Change, row: VersionRow) -> None:
        """Bring the version's collection back, alone, where it was deleted."""
        found = await self.store.collections.by_ids(change.connection, [row.collection_id])
        collection = found[row.collection_id]
        if collection.state in (CollectionState.DELETING, CollectionState.PURGING):
            raise collection_deleting(collection.project, collection.name)
        if collection.state is CollectionState.DELETED:
            if row.state is not VersionState.DELETED:
                raise VersionNotFound(f"{row.name} is not there", reference=row.name)
            await ensure_project(change, collection.project)
            await show_collection(change, collection)
