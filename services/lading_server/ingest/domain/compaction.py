"""Compaction: what is needed of a pack is copied elsewhere, so that the rest can go.

Every record is verified before it is copied, XXH3 and BLAKE3. The copies are written through the pool like anything
else, and are durable before a row points to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from lading_format.digest import blake3_digest
from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.domain.meta_records import MetaRecords
from lading_server.ingest.domain.pack_pool import PackLease, PackPool
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.condemn import Condemner, Move
from lading_server.ingest.index.marks import MarkedChunk, MarkedPack, MarkIndex
from lading_server.ingest.index.rows import IndexBatch
from lading_server.ingest.packs.format import RecordType, record_span
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackClass, PackStorage, PackStorageError
from lading_server.ingest.packs.writer import Location, NewRecord

# Read, verified and appended together: bounds the memory of a copy.
_STEP_BYTES = 8 << 20
_STEP_RECORDS = 4096
# Rows that move in one transaction. A pack of ordinary chunks has far fewer, and so goes in one.
_MOVES = 4096

# What a storage says of a pack that cannot be read.
READ_ERRORS = (CorruptRecord, PackStorageError, StorageFailed)


class PackUnreadable(Exception):
    """A record that is needed cannot be read or verified; the pack stays as it is."""


class Compacted(NamedTuple):
    """What became of a pack: how much was copied, and whether it is condemned. If not, a reference to it came."""

    copied_bytes: int
    is_condemned: bool


class _Record(NamedTuple):
    """A record to copy. `continues`: it is a part of a recipe and not the first."""

    type: RecordType
    digest: bytes
    location: Location
    has_row: bool
    continues: bool = False


class Compactor:
    """Copies packs of one entity, by its name and number."""

    def __init__(
        self, marks: MarkIndex, condemner: Condemner, storage: PackStorage, workers: Workers, pool: PackPool
    ) -> None:
        self._marks = marks
        self._condemner = condemner
        self._storage = storage
        self._workers = workers
        self._pool = pool
        self._meta = MetaRecords(marks, storage, workers)

    async def compact(
        self, entity: str, entity_id: int, pack: MarkedPack, chunks: Sequence[MarkedChunk], condemn_at_ms: int
    ) -> Compacted:
        """Copy what is needed of a pack, let rows point to the copies, and condemn the pack.

        Args:
            pack: With the generation that it had before it was computed what is needed.
            chunks: What is needed of it and has rows.

        Raises:
            PackUnreadable: Something that is needed cannot be read; the copies made so far are garbage.
            DiskLow: The copies do not fit.
            StorageFailed: They could not be written; the server must be started again.
        """
        records = await self._records(entity_id, pack, chunks)
        self._pool.check_space(sum(record_span(record.location.stored_bytes) for record in records))
        moves: list[Move] = []
        copied_bytes = 0
        durable: list[asyncio.Future[None]] = []
        async with self._pool.lease(entity, PackClass(pack.pack_class)) as lease:
            try:
                for step in _steps(records):
                    places, future = await self._copy(lease, entity, step)
                    durable.append(future)
                    moves += [Move(one.digest, at) for one, at in zip(step, places, strict=True) if one.has_row]
                    copied_bytes += sum(record_span(place.stored_bytes) for place in places)
            finally:
                outcomes = await asyncio.gather(*durable, return_exceptions=True)
            for outcome in outcomes:
                if outcome is not None:
                    raise outcome
        return Compacted(copied_bytes, await self._move(entity_id, pack, sorted(moves), condemn_at_ms))

    async def _records(self, entity_id: int, pack: MarkedPack, chunks: Sequence[MarkedChunk]) -> list[_Record]:
        """Return what to copy, in the order in which it lies there."""
        source = UUID(bytes=pack.pack)
        records = [
            _Record(
                RecordType(row.kind),
                row.digest,
                Location(source, row.record_offset, row.stored_bytes, row.raw_bytes),
                has_row=True,
            )
            for row in chunks
        ]
        if pack.pack_class == PackClass.META:
            try:
                async for batch in self._meta.needed(entity_id, source):
                    records += [
                        _Record(one.type, one.digest, one.location, has_row=False, continues=one.start_bytes > 0)
                        for one in batch
                    ]
            except READ_ERRORS as error:
                raise PackUnreadable(str(error)) from error
        return sorted(records, key=_offset)

    async def _copy(
        self, lease: PackLease, entity: str, step: Sequence[_Record]
    ) -> tuple[list[Location], asyncio.Future[None]]:
        try:
            records = await self._workers.run(self._read, step)
        except READ_ERRORS as error:
            raise PackUnreadable(str(error)) from error
        pack, places = await lease.append(records)
        # No rows yet: it only makes the copies durable.
        return places, pack.submit(IndexBatch(entity), sum(place.stored_bytes for place in places))

    def _read(self, step: Sequence[_Record]) -> list[NewRecord]:
        payloads = read_payloads(self._storage, [one.location for one in step], [one.digest for one in step])
        for record, payload in zip(step, payloads, strict=True):
            if blake3_digest(payload) != record.digest:
                raise CorruptRecord(
                    f"record b3:{record.digest.hex()} does not have its digest",
                    pack=record.location.pack,
                    offset=record.location.offset,
                )
        return [NewRecord(one.type, one.digest, payload, None) for one, payload in zip(step, payloads, strict=True)]

    async def _move(self, entity_id: int, pack: MarkedPack, moves: Sequence[Move], condemn_at_ms: int) -> bool:
        generation = pack.generation
        for first in range(0, max(len(moves), 1), _MOVES):
            is_last = first + _MOVES >= len(moves)
            moved = await self._condemner.move(
                entity_id,
                pack.pack,
                generation,
                moves[first : first + _MOVES],
                condemn_at_ms=condemn_at_ms if is_last else None,
            )
            if not moved:
                return False
            generation += 1
        return True


def _steps(records: Sequence[_Record]) -> Iterator[list[_Record]]:
    """Yield what is copied together: never a part of a recipe without the others, as steps may go to different packs.

    Whoever rebuilds the index takes the parts of a recipe from one pack.
    """
    step: list[_Record] = []
    step_bytes = 0
    for record in records:
        if (step_bytes >= _STEP_BYTES or len(step) >= _STEP_RECORDS) and not record.continues:
            yield step
            step, step_bytes = [], 0
        step.append(record)
        step_bytes += record.location.stored_bytes
    if step:
        yield step


def _offset(record: _Record) -> int:
    return record.location.offset
