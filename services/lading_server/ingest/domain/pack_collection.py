"""Packs: those of which nothing is needed are condemned, and those of which little is are compacted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from lading_server.common.errors import DiskLow
from lading_server.ingest.domain.collection_report import CollectionReport
from lading_server.ingest.domain.compaction import READ_ERRORS, Compactor, PackUnreadable
from lading_server.ingest.domain.meta_records import MetaRecords
from lading_server.ingest.domain.pack_pool import PackPool
from lading_server.ingest.domain.reachability import PackContent, Reachability
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.condemn import Condemner
from lading_server.ingest.index.marks import MarkedChunk, MarkedPack, MarkIndex
from lading_server.ingest.index.schema import PackState
from lading_server.ingest.packs.format import record_span, sealed_bytes
from lading_server.ingest.packs.storage import PackClass, PackStorage

# A pack is compacted when so much of it is dead.
_DEAD_PART = 0.25
# Packs that are condemned in one transaction: each has up to a few thousand rows to sum up.
_PACKS = 32
# Rows of the packs that are compacted together: the recipes are read once for them.
_ROWS = 200_000


class _Judged(NamedTuple):
    """A pack, what of it is needed, and how much of it is dead."""

    pack: MarkedPack
    content: PackContent
    dead_part: float


class PackCollection:
    """Condemns and compacts packs of one entity, by the report's name and a number."""

    def __init__(
        self,
        marks: MarkIndex,
        condemner: Condemner,
        reachability: Reachability,
        storage: PackStorage,
        workers: Workers,
        pool: PackPool,
    ) -> None:
        self._marks = marks
        self._condemner = condemner
        self._reachability = reachability
        self._pool = pool
        self._meta = MetaRecords(marks, storage, workers)
        self._compactor = Compactor(marks, condemner, storage, workers, pool)

    async def condemn(self, report: CollectionReport, entity_id: int, now_ms: int, *, rehearse: bool) -> None:
        """Condemn and compact, and count what became of it. A rehearsal only counts what would."""
        # Generations first, then what is needed, then the change.
        packs = await self._marks.packs(entity_id)
        held = await self._marks.held_packs(entity_id, now_ms)
        content = await self._reachability.content_of_packs(entity_id)
        dead: list[_Judged] = []
        sparse: list[_Judged] = []
        for pack in packs:
            if pack.pack in held:
                continue
            judged = await self._judge(report, entity_id, pack, content.get(pack.pack) or PackContent())
            if judged is None:
                continue
            if not judged.content.needed_count:
                dead.append(judged)
            elif judged.dead_part >= _DEAD_PART:
                sparse.append(judged)
        await self._condemn_dead(report, dead, now_ms, rehearse=rehearse)
        if rehearse:
            self._foretell_compaction(report, sparse)
        else:
            await self._compact(report, entity_id, sparse, now_ms)

    async def _judge(
        self, report: CollectionReport, entity_id: int, pack: MarkedPack, content: PackContent
    ) -> _Judged | None:
        """Return what of a pack is needed; None where it is left alone."""
        if pack.state == PackState.DAMAGED.value:
            return None if content.rows else _Judged(pack, content, 1.0)
        if pack.pack_class == PackClass.META:
            try:
                async for batch in self._meta.needed(entity_id, UUID(bytes=pack.pack)):
                    for record in batch:
                        content.need(record.location.stored_bytes)
            except READ_ERRORS as error:
                report.unreadable_packs.append(str(UUID(bytes=pack.pack)))
                report.skipped.append(f"pack {UUID(bytes=pack.pack)} cannot be read and was left alone: {error}")
                return None
        owner_bytes = record_span(len(report.entity.encode()))
        needed_bytes = sealed_bytes(owner_bytes + content.needed_bytes, 1 + content.needed_count)
        return _Judged(pack, content, max(0.0, 1 - needed_bytes / max(1, pack.durable_bytes)))

    async def _condemn_dead(
        self, report: CollectionReport, dead: Sequence[_Judged], now_ms: int, *, rehearse: bool
    ) -> None:
        for first in range(0, len(dead), _PACKS):
            some = dead[first : first + _PACKS]
            condemned = {one.pack.pack for one in some}
            if not rehearse:
                condemned = await self._condemner.packs({one.pack.pack: one.pack.generation for one in some}, now_ms)
            for one in some:
                if one.pack.pack in condemned:
                    is_damaged = one.pack.state == PackState.DAMAGED.value
                    why = (
                        "it is damaged, and nothing lies in it any more" if is_damaged else "nothing needs what it has"
                    )
                    report.condemned(one.pack.pack, one.pack.durable_bytes, why)

    def _foretell_compaction(self, report: CollectionReport, sparse: Sequence[_Judged]) -> None:
        for one in sparse:
            try:
                self._pool.check_space(report.bytes_compacted + one.content.needed_bytes)
            except DiskLow as error:
                report.skipped.append(_no_space(one.pack, error))
                continue
            report.packs_compacted += 1
            report.bytes_compacted += one.content.needed_bytes
            report.condemned(one.pack.pack, one.pack.durable_bytes, _why(one))

    async def _compact(self, report: CollectionReport, entity_id: int, sparse: Sequence[_Judged], now_ms: int) -> None:
        for group in _groups(sparse):
            rows = {one.pack.pack: await self._marks.chunks_in(entity_id, one.pack.pack) for one in group}
            undecided = {row.digest for some in rows.values() for row in some if not row.is_needed}
            named = await self._reachability.named_among(entity_id, undecided)
            for one in group:
                needed = [row for row in rows.pop(one.pack.pack) if row.is_needed or row.digest in named]
                await self._compact_one(report, entity_id, one, needed, now_ms)

    async def _compact_one(
        self, report: CollectionReport, entity_id: int, one: _Judged, needed: Sequence[MarkedChunk], now_ms: int
    ) -> None:
        try:
            done = await self._compactor.compact(report.entity, entity_id, one.pack, needed, now_ms)
        except PackUnreadable as error:
            report.unreadable_packs.append(str(UUID(bytes=one.pack.pack)))
            report.skipped.append(f"pack {UUID(bytes=one.pack.pack)} cannot be copied and was left alone: {error}")
            return
        except DiskLow as error:
            report.skipped.append(_no_space(one.pack, error))
            return
        report.bytes_compacted += done.copied_bytes
        if done.is_condemned:
            report.packs_compacted += 1
            report.condemned(one.pack.pack, one.pack.durable_bytes, _why(one))


def _groups(sparse: Sequence[_Judged]) -> Iterator[list[_Judged]]:
    """Yield packs that have few enough rows together; one at least."""
    group: list[_Judged] = []
    rows = 0
    for one in sparse:
        if group and rows + one.content.rows > _ROWS:
            yield group
            group, rows = [], 0
        group.append(one)
        rows += one.content.rows
    if group:
        yield group


def _why(one: _Judged) -> str:
    return f"{one.dead_part:.0%} of it is dead".replace("%", " %")


def _no_space(pack: MarkedPack, error: DiskLow) -> str:
    return f"pack {UUID(bytes=pack.pack)} was not compacted: {error.message}"
