"""The end of what was deleted: after its time it is purged, and its pin is released."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lading_server.common.callers import Caller
from lading_server.common.settings import Settings
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.run_sweeper import ACTOR
from lading_server.registry.store.collection_states import due_collections, forget_deletion
from lading_server.registry.store.deletions import due_versions, purge_versions
from lading_server.registry.store.schema import CollectionState, VersionState
from lading_server.registry.store.store import RegistryStore

# Versions of one change, so that the writer is never held for long.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Purging:
    """Purges what was deleted longer ago than it can be undeleted.

    Guarantee: a version is purged, and its pin is in the outbox of releases, in one change; whether it is still deleted
    is looked at in that change.
    """

    settings: Settings
    store: RegistryStore
    closing: Closing
    # Told that there are pins to release.
    on_purge: Callable[[], object]

    async def run(self) -> None:
        """Purge what is due."""
        before_ms = self.store.now_ms() - int(self.settings.undelete_seconds * 1000)
        while not self.closing.started:
            async with self.store.database.read() as connection:
                due = await due_versions(connection, before_ms, _BATCH)
            if not due:
                break
            by_entity: dict[str, list[int]] = defaultdict(list)
            for one in due:
                by_entity[one.entity].append(one.id)
            for entity, ids in by_entity.items():
                await self._purge(entity, ids, before_ms)
            self.on_purge()
        await self._forget_deletions(before_ms)

    async def _purge(self, entity: str, ids: Sequence[int], before_ms: int) -> None:
        async with self.store.change(Caller(entity, ACTOR)) as change:
            rows = await self.store.versions.once_by_ids(change.connection, ids)
            await purge_versions(change, [row for row in rows if _is_due(row.state, row.deleted_at_ms, before_ms)])

    async def _forget_deletions(self, before_ms: int) -> None:
        """Let go of collections whose versions are all purged by now."""
        while not self.closing.started:
            async with self.store.database.read() as connection:
                due = await due_collections(connection, before_ms, _BATCH)
            for one in due:
                async with self.store.change(Caller(one.entity, ACTOR)) as change:
                    row = (await self.store.collections.by_ids(change.connection, [one.id]))[one.id]
                    is_settled = row.state in (CollectionState.DELETED, CollectionState.LIVE)
                    if is_settled and row.deleted_at_ms is not None and row.deleted_at_ms <= before_ms:
                        await forget_deletion(change, row)
            if len(due) < _BATCH:
                return


def _is_due(state: VersionState, deleted_at_ms: int | None, before_ms: int) -> bool:
    return state is VersionState.DELETED and deleted_at_ms is not None and deleted_at_ms <= before_ms
