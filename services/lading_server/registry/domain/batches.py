"""Batches of what is deleted or brought back, in the background: each is one change, so a crash loses none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lading_server.common.callers import Caller
from lading_server.common.roles import Role
from lading_server.registry.domain.aliases import settle_latest
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.versions import remove_versions
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_states import (
    Unfinished,
    begin_deletion,
    collections_in,
    end_undeletion,
    forget_deletion,
    project_by_id,
    set_project_state,
    set_state,
    unfinished_collections,
    unfinished_projects,
    version_ids,
)
from lading_server.registry.store.deletions import links_to, live_sources, purge_versions, show_versions
from lading_server.registry.store.rows import CollectionRow
from lading_server.registry.store.schema import CollectionState, ProjectState, VersionState
from lading_server.registry.store.store import RegistryStore

# Versions of one change: some ten milliseconds of SQLite's one writer, and of the memory for what is told of them.
BATCH = 500
# Collections of one change that are told to go.
_COLLECTIONS = 100
# Before the number of every version.
_START = -1


@dataclass(frozen=True, slots=True)
class Batches:
    """Goes on with collections and projects that are on their way, until closing begins.

    Two processes may be at the same collection: each change looks at what is there now, and does what is left.
    """

    store: RegistryStore
    closing: Closing
    # Told that there are pins to release.
    on_purge: Callable[[], object]

    async def run(self) -> None:
        """Finish what there is to finish."""
        await self._finish_projects()
        last = 0
        while found := await self._unfinished_collections(last):
            for one in found:
                last = one.id
                if not await self._finish(one):
                    return

    async def first(self, change: Change, collection_id: int) -> bool:
        """Do the first batch of a collection, in the change that began it; return whether that was all."""
        return await self._step(change, collection_id, _START) is None

    async def first_of_project(self, change: Change, project_id: int) -> bool:
        """Tell the first collections of a project to go, in the change that began it; return whether that was all."""
        return await self._step_project(change, project_id)

    async def _unfinished_collections(self, after: int) -> list[Unfinished]:
        async with self.store.database.read() as connection:
            return await unfinished_collections(connection, after, BATCH)

    async def _finish(self, one: Unfinished) -> bool:
        """Finish a collection; return False when closing began first."""
        # Whoever had it deleted was an admin then.
        caller = Caller(one.entity, one.principal, role=Role.ADMIN)
        after: int | None = _START
        while after is not None:
            if self.closing.started:
                return False
            async with self.store.change(caller) as change:
                after = await self._step(change, one.id, after)
            self.on_purge()
        return True

    async def _finish_projects(self) -> None:
        last = 0
        while True:
            async with self.store.database.read() as connection:
                found = await unfinished_projects(connection, last, BATCH)
            if not found:
                return
            for one in found:
                last, is_done = one.id, False
                while not is_done and not self.closing.started:
                    async with self.store.change(Caller(one.entity, one.principal, role=Role.ADMIN)) as change:
                        is_done = await self._step_project(change, one.id)

    async def _step_project(self, change: Change, project_id: int) -> bool:
        project = await project_by_id(change, project_id)
        if project is None or project.state not in (ProjectState.DELETING, ProjectState.PURGING):
            return True
        is_purge = project.state is ProjectState.PURGING
        state = CollectionState.PURGING if is_purge else CollectionState.DELETING
        numbers = await collections_in(change, project_id, _COLLECTIONS)
        rows = await self.store.collections.by_ids(change.connection, numbers) if numbers else {}
        for number in numbers:
            await begin_deletion(change, rows[number], state)
        if len(numbers) < _COLLECTIONS:
            await set_project_state(change, project, ProjectState.DELETED)
        # The collections' versions are what is left, if there was any.
        return not numbers

    async def _step(self, change: Change, collection_id: int, after: int) -> int | None:
        """Do one batch; return the number of its last version, or None when the collection is where it should be."""
        row = (await self.store.collections.by_ids(change.connection, [collection_id])).get(collection_id)
        match row:
            case CollectionRow(state=CollectionState.DELETING | CollectionState.PURGING):
                return await self._delete(change, row, after)
            case CollectionRow(state=CollectionState.UNDELETING):
                return await self._undelete(change, row, after)
            case _:
                return None

    async def _delete(self, change: Change, row: CollectionRow, after: int) -> int | None:
        is_purge = row.state is CollectionState.PURGING
        ids = await version_ids(change, row.id, VersionState.LIVE, after, BATCH)
        links = [edge.link_id for edge in await links_to(change, ids, BATCH)] if ids else []
        # So many links go first; the next batch looks at the same versions again.
        ids, is_behind = ([], True) if len(links) == BATCH else (ids, False)
        rows = await self.store.versions.once_by_ids(change.connection, [*links, *ids])
        deletions = [row.deletion or change.next_revision] * len(rows)
        await remove_versions(change, rows, deletions, at_ms=row.deleted_at_ms, leaving=row.id)
        if is_purge:
            await purge_versions(change, rows)
        if is_behind:
            return after
        if len(ids) == BATCH:
            return max(one.number for one in rows if one.collection_id == row.id)
        if is_purge and await self._purge_deleted(change, row):
            return after
        await set_state(change, row, CollectionState.DELETED)
        if is_purge:
            await forget_deletion(change, row._replace(state=CollectionState.DELETED))
        return None

    async def _purge_deleted(self, change: Change, row: CollectionRow) -> bool:
        """Purge versions that were deleted before; return whether there may be more."""
        ids = await version_ids(change, row.id, VersionState.DELETED, _START, BATCH)
        await purge_versions(change, await self.store.versions.once_by_ids(change.connection, ids))
        return len(ids) == BATCH

    async def _undelete(self, change: Change, row: CollectionRow, after: int) -> int | None:
        ids = await version_ids(change, row.id, VersionState.DELETED, after, BATCH, row.deletion)
        rows = await self.store.versions.once_by_ids(change.connection, ids)
        sources = await live_sources(change, rows)
        await show_versions(change, [one for one in rows if one.source_id is None or one.source_id in sources])
        await settle_latest(change, row.key)
        if len(ids) == BATCH:
            return max(one.number for one in rows)
        await end_undeletion(change, row.id)
        return None
