"""Collections and projects that go and come back: told at once, done a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lading_format.names import LATEST, MODEL_REGISTRY, check_collection, check_project, check_request_id
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import (
    CollectionInUse,
    ProjectNotEmpty,
    ProjectNotFound,
    WrongKind,
)
from lading_server.common.settings import Settings
from lading_server.registry.domain.batches import Batches
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.gone import collection_gone
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_changes import collection_deleting
from lading_server.registry.store.collection_states import (
    aliases_into,
    begin_deletion,
    begin_project_deletion,
    begin_undeletion,
    collections_in,
    find_project,
    has_unfinished,
    links_into,
)
from lading_server.registry.store.entities import ensure_project
from lading_server.registry.store.rows import CollectionRow, ProjectRow
from lading_server.registry.store.schema import CollectionState, ProjectState
from lading_server.registry.store.store import RegistryStore
from lading_server.registry.store.versions import collection_not_found

# How many aliases, links and collections an error names.
_NAMED = 10


class Progress(NamedTuple):
    """A collection, and whether all of what was asked for is done, or goes on in the background."""

    collection: CollectionRow
    is_done: bool


class ProjectProgress(NamedTuple):
    """A project as it was, and whether all of what was asked for is done, or goes on in the background."""

    project: ProjectRow
    is_done: bool


@dataclass(frozen=True, slots=True)
class Deleting:
    """The rules of collections and projects that go and come back. Every method is inside the entity of its caller.

    Guarantee: the first change hides the whole, and from then on no version comes in; what is left to do is in the
    tables, so whoever looks next goes on with it, this process or another.
    """

    settings: Settings
    store: RegistryStore
    batches: Batches
    # Told that something was deleted, and whether it was purged too.
    on_delete: Callable[[bool], object]
    # Told that there is more to do in the background.
    on_unfinished: Callable[[], object]

    async def delete_collection(
        self,
        caller: Caller,
        project: str,
        name: str,
        *,
        force: bool = False,
        purge: bool = False,
        request_id: str = "",
    ) -> Progress:
        """Hide a collection and delete its versions. Returns it as it was.

        Args:
            force: Although aliases other than `latest`, or links from elsewhere, point into it; they go with it.
            purge: Give all its versions up for ever, also those that were deleted before.

        Raises:
            InvalidName, RequestIdReused: The request cannot be taken.
            CollectionNotFound: The entity has no such collection.
            CollectionInUse: It is pointed into, and it is not forced.
        """
        check_collection(check_project(project), name)
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint("DeleteCollection", project=project, name=name, force=force, purge=purge)
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return await self._remembered(change, memory)
            row = await self._to_delete(change, project, name, purge=purge)
            if not force:
                await _check_unused(change, row)
            await begin_deletion(change, row, CollectionState.PURGING if purge else CollectionState.DELETING)
            is_done = await self.batches.first(change, row.id)
            await change.remember(request_id, asked, {"id": row.id, "versions": row.version_count})
        self._tell(is_done, purge=purge)
        return Progress(row, is_done)

    async def undelete_collection(self, caller: Caller, project: str, name: str, request_id: str = "") -> Progress:
        """Make a collection visible again, and the versions that went with it. One that is there keeps what it has.

        Raises:
            InvalidName, RequestIdReused: The request cannot be taken.
            CollectionNotFound: It never was, or it was purged.
            CollectionDeleting: It is being purged, or its project is being deleted.
        """
        check_collection(check_project(project), name)
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint("UndeleteCollection", project=project, name=name)
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return await self._remembered(change, memory)
            row = await self.store.collections.once_named(change.connection, change.entity_id, project, name)
            if row is None:
                raise collection_not_found(project, name)
            is_done = True
            if row.state is CollectionState.PURGING:
                raise collection_deleting(project, name)
            if row.deletion is not None:
                await ensure_project(change, project)
                await begin_undeletion(change, row)
                is_done = await self.batches.first(change, row.id)
            elif row.state is CollectionState.DELETED:
                raise collection_gone(self.settings, row)
            await change.remember(request_id, asked, {"id": row.id, "versions": None})
            row = await self.store.collections.by_id(change.connection, row.id)
        self._tell(is_done)
        return Progress(row, is_done)

    async def delete_project(
        self, caller: Caller, project: str, *, force: bool = False, purge: bool = False, request_id: str = ""
    ) -> ProjectProgress:
        """Hide a project and delete its collections. Its runs stay. Returns it as it was.

        Args:
            force: Although it has collections, whatever points into them.
            purge: Give all their versions up for ever.

        Raises:
            InvalidName, RequestIdReused: The request cannot be taken.
            ProjectNotFound: The entity has no such project.
            ProjectNotEmpty: It has collections, and it is not forced.
            WrongKind: It is the one of the registered models.
        """
        check_project(project)
        if project == MODEL_REGISTRY:
            raise WrongKind(f"{MODEL_REGISTRY} stays; delete its collections")
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint("DeleteProject", project=project, force=force, purge=purge)
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            found = await find_project(change, project)
            if found is None or (memory is None and found.state is not ProjectState.LIVE):
                raise ProjectNotFound(f"there is no project {project}; check the name", project=project)
            row = ProjectRow(found.name, found.created_at_ms)
            if memory is not None:
                is_told = found.state not in (ProjectState.DELETING, ProjectState.PURGING)
                return ProjectProgress(row, is_told and not await has_unfinished(change, found.id))
            numbers = await collections_in(change, found.id, _NAMED)
            if numbers and not force:
                rows = await self.store.collections.by_ids(change.connection, numbers)
                raise _not_empty(project, [rows[number].name for number in numbers])
            await begin_project_deletion(change, found, ProjectState.PURGING if purge else ProjectState.DELETING)
            is_done = await self.batches.first_of_project(change, found.id)
            await change.remember(request_id, asked, {})
        self._tell(is_done, purge=purge)
        return ProjectProgress(row, is_done)

    async def _to_delete(self, change: Change, project: str, name: str, *, purge: bool) -> CollectionRow:
        """Return the collection that is meant: to be purged, a deleted one may be."""
        row = await self.store.collections.once_named(change.connection, change.entity_id, project, name)
        if row is None:
            raise collection_not_found(project, name)
        if row.state in (CollectionState.LIVE, CollectionState.UNDELETING):
            return row
        if purge and row.deletion is not None and row.state is not CollectionState.PURGING:
            return row
        raise collection_gone(self.settings, row)

    async def _remembered(self, change: Change, memory: dict[str, int | None]) -> Progress:
        number, versions = memory["id"], memory["versions"]
        row = (await self.store.collections.by_ids(change.connection, [number or 0])).get(number or 0)
        if row is None:
            raise AssertionError(f"collection {number} was answered once and has no row")
        working = (CollectionState.DELETING, CollectionState.PURGING, CollectionState.UNDELETING)
        is_done = row.state not in working
        return Progress(row if versions is None else row._replace(version_count=versions), is_done)

    def _tell(self, is_done: bool, *, purge: bool = False) -> None:
        self.on_delete(purge)
        if not is_done:
            self.on_unfinished()


async def _check_unused(change: Change, row: CollectionRow) -> None:
    """Raise CollectionInUse when aliases other than `latest`, or links from elsewhere, point into a collection."""
    aliases = [alias for alias in await aliases_into(change, row.id, _NAMED + 1) if alias != LATEST][:_NAMED]
    links = await links_into(change, row.id, _NAMED)
    if aliases or links:
        raise CollectionInUse(
            f"{row.project}/{row.name} is in use: {', '.join([*aliases, *links])} point into it; move them, or say "
            "force and they go with it",
            aliases=",".join(aliases),
            links=",".join(links),
        )


def _not_empty(project: str, names: Sequence[str]) -> ProjectNotEmpty:
    return ProjectNotEmpty(
        f"{project} has collections: {', '.join(names)}; delete them, or say force and they go with it",
        collections=",".join(names),
    )
