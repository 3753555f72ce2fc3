"""Lists and searches, a page at a time. Rows that come or go meanwhile never make others come twice or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from lading_format.names import check_collection, check_project, check_version_uid
from lading_server.common.callers import Caller
from lading_server.common.page_tokens import check_position, make_token, open_token, page_limit
from lading_server.registry.domain.pages import (
    Page,
    PageRequest,
    collection_bytes,
    event_bytes,
    read_page,
    run_bytes,
    version_bytes,
)
from lading_server.registry.domain.queries import COLLECTION_FIELDS, parse_order, parse_query
from lading_server.registry.domain.runs import Runs
from lading_server.registry.store.rows import CollectionRow, EventFilter, EventRow, ProjectRow, RunRow, VersionRow
from lading_server.registry.store.scan import Position
from lading_server.registry.store.schema import VersionState
from lading_server.registry.store.store import RegistryStore

_PAGE_SIZE = 100
_PROJECTS_PAGE_SIZE = 1000
# A project takes up to 160 bytes of an answer.
_MOST_PROJECTS = 16_000
# No revision is larger, nor can a database be asked about one.
_MOST_REVISION = (1 << 63) - 1


class EventRequest(NamedTuple):
    """Which events are wanted; what is empty is no condition."""

    project: str
    collection: str
    version_uid: str
    after_revision: int
    newest_first: bool


class Lists:
    """Lists what callers have. Safe for many tasks at once.

    All methods raise InvalidPageSize and InvalidPageToken; a token is good for the same entity and request only.
    """

    def __init__(self, store: RegistryStore, runs: Runs, max_page_size: int) -> None:
        self._store = store
        self._runs = runs
        self._max_page_size = max_page_size

    async def search_versions(self, caller: Caller, query: str, order_by: str, page: PageRequest) -> Page[VersionRow]:
        """Return versions that match a query, in the order that is asked for. Raises InvalidQuery."""
        conditions, order = parse_query(query), parse_order(order_by)
        scope = (caller.entity, "SearchVersions", query, order_by)
        after, limit = self._open(page, scope)
        entity_id = await self._store.entities.find(caller.entity)
        if entity_id is None:
            return Page([], "")
        async with self._store.database.read() as connection:
            hits = await self._store.search.page(connection, entity_id, conditions, order, after, limit)
            read = partial(self._store.versions.by_ids, connection)
            rows, end = await read_page(hits, read, version_bytes)
        return Page(rows, _token(scope, end))

    async def versions(
        self, caller: Caller, project: str, collection: str, page: PageRequest, *, deleted: bool = False
    ) -> Page[VersionRow]:
        """Return the versions of a collection, the newest first. Raises InvalidName, CollectionNotFound.

        Args:
            deleted: Those that can be undeleted, instead of those that are there; of a deleted collection, too.
        """
        check_collection(check_project(project), collection)
        scope = (caller.entity, "ListVersions", project, collection, deleted)
        after, limit = self._open(page, scope, int)
        entity_id = await self._store.entities.find(caller.entity)
        async with self._store.database.read() as connection:
            collection_id = await self._store.lists.collection_id(
                connection, entity_id, project, collection, is_deleted=deleted
            )
            state = VersionState.DELETED if deleted else VersionState.LIVE
            hits = await self._store.lists.versions(connection, collection_id, after, limit, state)
            read = partial(self._store.versions.by_ids, connection, state=state)
            rows, end = await read_page(hits, read, version_bytes)
        return Page(rows, _token(scope, end))

    async def collections(
        self, caller: Caller, project: str, query: str, page: PageRequest, *, deleted: bool = False
    ) -> Page[CollectionRow]:
        """Return collections that match a query, sorted by project and name. Raises InvalidName, InvalidQuery.

        Args:
            project: The only project; empty for all.
            deleted: Those that can be undeleted, instead of those that are there.
        """
        if project:
            check_project(project)
        conditions = parse_query(query, COLLECTION_FIELDS)
        scope = (caller.entity, "ListCollections", project, query, deleted)
        after, limit = self._open(page, scope)
        entity_id = await self._store.entities.find(caller.entity)
        if entity_id is None:
            return Page([], "")
        async with self._store.database.read() as connection:
            hits = await self._store.lists.collections(
                connection, entity_id, project, conditions, after, limit, is_deleted=deleted
            )
            read = partial(self._store.collections.by_ids, connection)
            rows, end = await read_page(hits, read, collection_bytes)
        return Page(rows, _token(scope, end))

    async def projects(self, caller: Caller, page: PageRequest) -> Page[ProjectRow]:
        """Return the entity's projects, sorted by name."""
        scope = (caller.entity, "ListProjects")
        after, limit = self._open(page, scope, str, default=_PROJECTS_PAGE_SIZE, most=_MOST_PROJECTS)
        entity_id = await self._store.entities.find(caller.entity)
        if entity_id is None:
            return Page([], "")
        async with self._store.database.read() as connection:
            rows = await self._store.lists.projects(connection, entity_id, after, limit + 1)
        return Page(rows[:limit], _token(scope, (rows[limit - 1].name,) if len(rows) > limit else None))

    async def runs(self, caller: Caller, project: str, page: PageRequest) -> Page[RunRow]:
        """Return runs, the newest first, with the last values of their metrics. Raises InvalidName.

        Args:
            project: The only project; empty for all.
        """
        if project:
            check_project(project)
        scope = (caller.entity, "ListRuns", project)
        after, limit = self._open(page, scope, int)
        entity_id = await self._store.entities.find(caller.entity)
        if entity_id is None:
            return Page([], "")
        async with self._store.database.read() as connection:

            async def read(ids: Sequence[int]) -> dict[int, RunRow]:
                found = await self._store.runs.by_ids(connection, ids)
                return {row.id: row for row in await self._runs.with_last_values(connection, list(found.values()))}

            hits = await self._store.lists.runs(connection, entity_id, project, after, limit)
            rows, end = await read_page(hits, read, run_bytes)
        return Page(rows, _token(scope, end))

    async def events(self, caller: Caller, request: EventRequest, page: PageRequest) -> tuple[Page[EventRow], int]:
        """Return what changed, and the revision of the last change of the server. Raises InvalidName.

        No event after that revision is in the page, and every one up to it is in this page or another.
        """
        uid = _check_events(request)
        scope = (caller.entity, "ListEvents", *request)
        after, limit = self._open(page, scope, int)
        entity_id = await self._store.entities.find(caller.entity)
        async with self._store.database.read() as connection:
            current = await self._store.lists.current_revision(connection)
            if entity_id is None:
                return Page([], ""), current
            wanted = EventFilter(
                after_revision=min(request.after_revision, _MOST_REVISION),
                up_to_revision=current,
                newest_first=request.newest_first,
                project=request.project,
                collection=request.collection,
                version_uid=uid,
            )
            hits = await self._store.lists.events(connection, entity_id, wanted, after, limit)
            read = partial(self._store.lists.events_by_revision, connection)
            rows, end = await read_page(hits, read, event_bytes)
        return Page(rows, _token(scope, end)), current

    def _open(
        self,
        page: PageRequest,
        scope: Sequence[object],
        *kinds: type,
        default: int = _PAGE_SIZE,
        most: int | None = None,
    ) -> tuple[Position | None, int]:
        """Return where a page begins and how many rows it has; `kinds` are those of its position, if known."""
        limit = page_limit(page.size, default, min(self._max_page_size, most or self._max_page_size))
        position = open_token(page.token, scope)
        if position is None:
            return None, limit
        if kinds:
            check_position(position, kinds)
        return tuple(position), limit


def _check_events(request: EventRequest) -> bytes | None:
    # A collection is one of a project, so there has to be one.
    if request.project or request.collection:
        check_project(request.project)
    if request.collection:
        check_collection(request.project, request.collection)
    return check_version_uid(request.version_uid) if request.version_uid else None


def _token(scope: Sequence[object], position: Position | None) -> str:
    return "" if position is None else make_token(scope, position)
