"""Adopting a pack: its chunks and pages, and the blobs of one chunk that its pages name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_format.tree import FileEntry
from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.tree_pages import decode_page
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.entities import Entities
from lading_server.ingest.index.schema import ContentState, PackState, blobs, chunks, entities, packs
from lading_server.ingest.index.statements import GroupStatements
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import RecordType, record_span
from lading_server.ingest.packs.reader import ScannedRecord
from lading_server.ingest.packs.recovery import seal_after_crash
from lading_server.ingest.packs.salvage import Salvage
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.rebuild.report import Report
from lading_server.ingest.rebuild.survey import FoundPack

# Rows of one transaction, and the bytes of the records that are read for it.
_BATCH_ROWS = 8192
_BATCH_BYTES = 64 << 20
# Of a UUIDv7, below the milliseconds.
_BITS_BELOW_TIME = 80


class OwnerUnknown(Exception):
    """The record that says whose a pack is cannot be read."""


class _Batch(NamedTuple):
    """Records of one kind of reading: rows of chunks, and the files that pages name, with their sizes."""

    rows: list[tuple[bytes, int, int, int]]
    files: dict[bytes, int]
    is_last: bool


class PackAdoption:
    """Makes rows of packs. The rows count when the pack's own is there, which comes last."""

    def __init__(
        self, index: ContentIndex, storage: PackStorage, workers: Workers, report: Report, notice: Callable[[], None]
    ) -> None:
        """`notice` is told after each batch."""
        self._index = index
        self._storage = storage
        self._workers = workers
        self._report = report
        self._notice = notice
        self._entities = Entities(index.database)
        self._statements = GroupStatements(index.database)

    async def adopt(self, found: FoundPack, state: PackState, names: Mapping[bytes, str]) -> str | None:
        """Make rows of a pack's chunks and pages, then its own; return whose it is, or None when it holds nothing.

        Args:
            state: What the pack is to be: OPEN where more of it has to be read before it is done with.
            names: Entities by the BLAKE3 of their names, for a pack whose owner's record is damaged.

        Raises:
            OwnerUnknown: The owner's record is damaged, and none of `names` fits. Nothing was written.
        """
        salvage = Salvage(self._storage, found.pack)
        records = salvage.records()
        first = await self._workers.run(lambda: next(records, None))
        if first is None:
            if salvage.damages:
                self._report.lost_packs.add(f"pack {found.pack} has no record that is whole: {salvage.damages[0].what}")
            return None
        entity = _owner(salvage, first, names)
        entity_id = await self._entities.ensure(entity)
        waiting = first if first.header.type is not RecordType.OWNER else None
        whole: set[tuple[bytes, int]] = set()
        while True:
            batch = await self._workers.run(_batch, records, waiting)
            waiting = None
            whole |= {(digest, offset) for digest, _, offset, _ in batch.rows}
            await self._write_chunks(entity_id, found.pack, batch)
            await self._write_blobs(entity, entity_id, batch.files)
            self._notice()
            if batch.is_last:
                break
        await self._forget_others(found.pack, whole)
        total_bytes = await self._workers.run(self._seal, found.pack, salvage)
        for damage in salvage.damages:
            name = f"b3:{damage.digest.hex()}" if damage.digest is not None else "a record"
            self._report.damaged_records.add(f"{name} at {damage.offset} of pack {found.pack}: {damage.what}")
        if salvage.is_refused and not salvage.is_sealed:
            self._report.damaged_records.add(f"the end of pack {found.pack} cannot be read, and was left as it is")
        await self._write_pack(entity_id, found, state, total_bytes)
        return entity

    def _seal(self, pack: UUID, salvage: Salvage) -> int:
        """Seal what a crash left open; return the pack's length."""
        # Where the disk refuses to read the end of a pack, it may be sealed, and what is there may be read another day.
        if salvage.is_sealed or salvage.is_refused:
            return self._storage.size(pack)
        return seal_after_crash(self._storage, pack, salvage.whole_bytes).total_bytes

    async def _forget_others(self, pack: UUID, whole: set[tuple[bytes, int]]) -> None:
        """Delete rows of an index that is older than the pack's damage: what they say is there is not whole any more.

        The pack is about to be live, and they would count. What needs them is judged when all packs are read.
        """
        after = b""
        while places := await self._index.losses.places_in(pack, after, _BATCH_ROWS):
            lost = [digest for digest, place in places.items() if (digest, place.offset) not in whole]
            if lost:
                row = sa.delete(chunks).where(chunks.c.pack_id == pack.bytes, chunks.c.digest == sa.bindparam("lost"))
                async with self._index.database.write() as connection:
                    await connection.execute(row, [{"lost": digest} for digest in lost])
            after = max(places)

    async def _write_chunks(self, entity_id: int, pack: UUID, batch: _Batch) -> None:
        # Of two records for one chunk the first of the pack counts, as in a group commit.
        first = {digest: (kind, offset, length) for digest, kind, offset, length in reversed(batch.rows)}
        rows: list[tuple[object, ...]] = [
            (entity_id, digest, kind, pack.bytes, offset, length, length)
            for digest, (kind, offset, length) in sorted(first.items())
        ]
        async with self._index.database.write() as connection:
            await self._statements.chunks.run(connection, rows)
        self._report.chunks += len(rows)
        self._report.read_bytes += sum(record_span(length) for *_, length in batch.rows)

    async def _write_blobs(self, entity: str, entity_id: int, files: Mapping[bytes, int]) -> None:
        """Make a blob of every file that is empty, or one chunk that is there."""
        digests = list(files)
        for at in range(0, len(digests), _BATCH_ROWS):
            some = digests[at : at + _BATCH_ROWS]
            located = await self._index.chunks.locate(entity, some)
            rows = [
                {
                    "entity_id": entity_id,
                    "digest": digest,
                    "size_bytes": files[digest],
                    "chunk_count": min(files[digest], 1),
                    "state": ContentState.LIVE.value,
                    "generation": 0,
                }
                for digest in sorted(some)
                if files[digest] == 0 or (digest in located and located[digest].raw_bytes == files[digest])
            ]
            if not rows:
                continue
            new = self._index.database.insert(blobs)
            revived = new.on_conflict_do_update(
                index_elements=["entity_id", "digest"],
                set_={
                    "chunk_count": new.excluded.chunk_count,
                    "state": ContentState.LIVE.value,
                    "generation": blobs.c.generation + 1,
                    "condemned_at_ms": None,
                },
                where=sa.or_(
                    blobs.c.state == ContentState.DAMAGED.value, blobs.c.state == ContentState.CONDEMNED.value
                ),
            )
            async with self._index.database.write() as connection:
                await connection.execute(revived, rows)
            self._report.blobs += len(rows)

    async def _write_pack(self, entity_id: int, found: FoundPack, state: PackState, total_bytes: int) -> None:
        new = self._index.database.insert(packs).values(
            id=found.pack.bytes,
            entity_id=entity_id,
            pack_class=int(found.pack_class),
            state=state.value,
            generation=0,
            writer_epoch=found.header.writer_epoch if found.header is not None else 0,
            durable_bytes=total_bytes,
            created_at_ms=created_at_ms(found.pack),
        )
        changes = {
            "state": state.value,
            "generation": packs.c.generation + 1,
            "durable_bytes": total_bytes,
            "condemned_at_ms": None,
        }
        async with self._index.database.write() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=["id"], set_=changes))
        self._report.packs_adopted += 1
        self._notice()


async def names_by_digest(index: ContentIndex) -> dict[bytes, str]:
    """Return the entities that are known by now, by the BLAKE3 of their names."""
    async with index.database.read() as connection:
        names = (await connection.scalars(sa.select(entities.c.name))).all()
    return {blake3_digest(name.encode()): name for name in names}


def created_at_ms(pack: UUID) -> int:
    """Return when a pack was made: its id says so."""
    return pack.int >> _BITS_BELOW_TIME if pack.version == 7 else int(time.time() * 1000)


def _owner(salvage: Salvage, first: ScannedRecord, names: Mapping[bytes, str]) -> str:
    if first.header.type is RecordType.OWNER:
        return bytes(first.payload).decode()
    digest = salvage.damages[0].digest if salvage.damages else None
    if digest is None or digest not in names:
        raise OwnerUnknown
    return names[digest]


def _batch(records: Iterator[ScannedRecord], waiting: ScannedRecord | None) -> _Batch:
    """Read on until there is enough for a transaction. `waiting` was read before."""
    rows: list[tuple[bytes, int, int, int]] = []
    files: dict[bytes, int] = {}
    size_bytes = 0
    for record in chain([waiting] if waiting is not None else [], records):
        header = record.header
        size_bytes += record_span(header.stored_bytes)
        if header.type in (RecordType.CHUNK, RecordType.TREE_PAGE):
            rows.append((header.digest, int(header.type), record.offset, header.stored_bytes))
        if header.type is RecordType.TREE_PAGE:
            files.update(_files(record))
        if len(rows) >= _BATCH_ROWS or len(files) >= _BATCH_ROWS or size_bytes >= _BATCH_BYTES:
            return _Batch(rows, files, False)
    return _Batch(rows, files, True)


def _files(page: ScannedRecord) -> dict[bytes, int]:
    try:
        entries = decode_page(page.payload)
    except CorruptRecord:
        # Of a newer program. The trees that have it are refused with the reason.
        return {}
    return {entry.digest: entry.size_bytes for entry in entries if isinstance(entry, FileEntry)}
