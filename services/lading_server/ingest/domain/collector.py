"""Garbage collection: what nothing needs goes into the trash, and what was in there for long enough goes for good.

Trees are judged before blobs, and blobs before packs, because each keeps the next. Whatever is condemned had its
generation read first, then it was computed what is needed, and then it was still the same: see index/condemn.py. So a
collection runs next to uploads, commits and reads without stopping them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from lading_server.common.settings import Settings
from lading_server.ingest.domain.collection_report import CollectionReport as CollectionReport
from lading_server.ingest.domain.pack_collection import PackCollection
from lading_server.ingest.domain.pack_pool import PackPool
from lading_server.ingest.domain.reachability import PageUnreadable, Reachability
from lading_server.ingest.domain.revival import Revival
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.condemn import Condemner
from lading_server.ingest.index.marks import MarkIndex
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.index.trash import Trash, TrashedPack
from lading_server.ingest.packs.storage import PackStorage

_log = logging.getLogger(__name__)

# Rows that are judged and condemned in one transaction, so that none holds the writer for long.
_ROWS = 1000
# Digests of a pass: 64 MB while they are collected. Also what is known of as many blobs, 100 MB.
WINDOW_DIGESTS = 1_000_000


class Collector:
    """Collects one entity at a time.

    Whoever calls `collect` has made sure that every version that is kept has its pin: see the reconciler.
    """

    def __init__(
        self,
        index: ContentIndex,
        storage: PackStorage,
        workers: Workers,
        pool: PackPool,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        window_digests: int = WINDOW_DIGESTS,
    ) -> None:
        """`window_digests`: how many of them are in memory at a time. Fewer take more passes."""
        self._index = index
        self._storage = storage
        self._workers = workers
        self._settings = settings
        self._clock = clock
        self._marks = MarkIndex(index.database)
        self._condemner = Condemner(index.database)
        self._trash = Trash(index.database)
        self._reachability = Reachability(index, self._marks, storage, workers, window_digests)
        self._packs = PackCollection(self._marks, self._condemner, self._reachability, storage, workers, pool)
        self._revival = Revival(index, self._trash, storage, workers, pool)
        self._turn = asyncio.Lock()

    async def finish_deletions(self) -> int:
        """Delete the packs whose deletion a crash cut short, of all entities; return how many there were.

        Raises StorageFailed: the file system refused; to be tried again.
        """
        async with self._turn:
            return await self._finish_deletions()

    async def collect(
        self, entity: str, *, dry_run: bool = False, reconciled_at_ms: int | None = None
    ) -> CollectionReport:
        """Condemn what nothing needs, compact packs with much that is dead, delete what is past its time.

        One collection runs at a time, and others wait for it.

        Args:
            dry_run: Change nothing, and say what a run at this moment would do. What could turn out to be unreadable
                while it is copied is not known then.
            reconciled_at_ms: When the pins began to be held against the registry's versions; None for now. What was
                not past its time then stays, although it is by now: a registry that was put back since may want it.

        Raises:
            StorageFailed: The disk refused a write or a deletion. What was done stays done.
        """
        async with self._turn:
            report = CollectionReport(entity)
            entity_id = await self._index.entities.find(entity)
            if entity_id is None:
                return report
            # One moment for all: what is condemned by a run goes before what lies in the trash for longer, never after.
            now_ms = int(self._clock() * 1000)
            trash_ms = int(self._settings.trash_seconds * 1000)
            # Without a trash nothing was promised to whoever puts a database back, and all goes at once.
            until_ms = now_ms if reconciled_at_ms is None or not trash_ms else min(now_ms, reconciled_at_ms)
            until_ms -= trash_ms
            await self._condemner.forget_rehearsal()
            if not dry_run:
                await self._finish_deletions()
            try:
                await self._condemn_trees(report, entity_id, now_ms, rehearse=dry_run)
                await self._condemn_blobs(report, entity_id, now_ms, rehearse=dry_run)
                await self._packs.condemn(report, entity_id, now_ms, rehearse=dry_run)
            finally:
                await self._condemner.forget_rehearsal()
            if dry_run:
                await self._foretell_purge(report, entity_id, now_ms, until_ms)
            else:
                await self._purge(report, entity_id, until_ms)
            return report

    async def revive(self, entity: str, tree_digest: bytes) -> bool:
        """Take a tree out of the trash with its blobs and the packs that it needs; True when all of it is live.

        It may be live already. What was revived is collected again unless it is pinned soon. Does not wait for a
        collection: one that judged the content before it was revived sees that its generations have changed.

        Returns:
            False when something of the tree is gone for good or damaged.

        Raises:
            DiskLow, StorageFailed: The records that the content is found by could not be written.
        """
        entity_id = await self._index.entities.find(entity)
        return entity_id is not None and await self._revival.run(entity, entity_id, tree_digest)

    async def _condemn_trees(self, report: CollectionReport, entity_id: int, now_ms: int, *, rehearse: bool) -> None:
        # Whoever made a tree a moment ago is about to commit it: condemned, it would have to be sent again.
        young_ms = now_ms - int(self._settings.session_ttl_seconds * 1000)
        after = b""
        while rows := await self._marks.trees(entity_id, after, _ROWS):
            after = rows[-1].digest
            old = {row.digest: row.generation for row in rows if row.created_at_ms <= young_ms}
            kept = await self._marks.kept_trees(entity_id, old, now_ms)
            unneeded = {digest: generation for digest, generation in old.items() if digest not in kept}
            condemned = await self._condemner.trees(entity_id, unneeded, now_ms, rehearse=rehearse)
            report.trees_condemned += len(condemned)
            for digest, size_bytes in sorted(condemned.items()):
                report.note("tree", f"b3:{digest.hex()}", size_bytes, "no pin and no upload needs it")

    async def _condemn_blobs(self, report: CollectionReport, entity_id: int, now_ms: int, *, rehearse: bool) -> None:
        try:
            async for batch in self._reachability.unneeded_blobs(report.entity, entity_id):
                rows = list(batch.items())
                for first in range(0, len(rows), _ROWS):
                    some = dict(rows[first : first + _ROWS])
                    for digest in await self._marks.leased_blobs(entity_id, some, now_ms):
                        del some[digest]
                    condemned = await self._condemner.blobs(entity_id, some, now_ms, rehearse=rehearse)
                    report.blobs_condemned += len(condemned)
                    for digest, size_bytes in sorted(condemned.items()):
                        report.note("blob", f"b3:{digest.hex()}", size_bytes, "no tree and no upload needs it")
        except PageUnreadable as error:
            report.skipped.append(f"{error}, so no blob was condemned: store the tree again, or delete its versions")

    async def _purge(self, report: CollectionReport, entity_id: int, until_ms: int) -> None:
        """Delete what was condemned until then. Packs go last: what they hold of trees and blobs can be revived."""
        while count := await self._trash.purge_trees(entity_id, until_ms):
            report.trees_deleted += count
        while count := await self._trash.purge_blobs(entity_id, until_ms):
            report.blobs_deleted += count
        for pack in await self._trash.past(entity_id, until_ms):
            if await self._trash.begin_deletion(pack.pack):
                await self._delete(pack)
                report.deleted(pack.pack, pack.size_bytes)
        left = await self._trash.count(entity_id)
        report.packs_in_trash, report.bytes_in_trash = left.packs, left.pack_bytes

    async def _foretell_purge(self, report: CollectionReport, entity_id: int, now_ms: int, until_ms: int) -> None:
        past = await self._trash.count(entity_id, until_ms)
        in_all = await self._trash.count(entity_id)
        report.trees_deleted, report.blobs_deleted = past.trees, past.blobs
        for pack in await self._trash.past(entity_id, until_ms):
            report.deleted(pack.pack, pack.size_bytes)
        report.packs_in_trash, report.bytes_in_trash = in_all.packs - past.packs, in_all.pack_bytes - past.pack_bytes
        if until_ms < now_ms:
            report.packs_in_trash += report.packs_condemned
            report.bytes_in_trash += report.bytes_condemned
            return
        # Nothing stays in the trash for any time.
        report.trees_deleted += report.trees_condemned
        report.blobs_deleted += report.blobs_condemned
        report.packs_deleted += report.packs_condemned
        report.bytes_freed += report.bytes_condemned

    async def _finish_deletions(self) -> int:
        packs = await self._trash.deleting()
        for pack in packs:
            await self._delete(pack)
        return len(packs)

    async def _delete(self, pack: TrashedPack) -> None:
        """Delete the file of a pack that is being deleted, and then its rows."""
        await self._workers.run(self._storage.delete, pack.pack)
        await self._trash.forget(pack.pack)
        _log.info("deleted pack %s, %d bytes", pack.pack, pack.size_bytes)
