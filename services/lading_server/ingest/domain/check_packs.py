"""Whether packs are what the index says of them: levels 2 to 4 of a check."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from lading_format.digest import blake3_digest, format_digest
from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.common.ids import uuid7
from lading_server.ingest.domain.check_findings import HEAL, Finding, FindingKind, Level, Step
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.checks import PackCheck, PackedRecord
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import HEADER_BYTES, RecordType
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackClass, PackNotFound, PackStorage, ShortRead
from lading_server.ingest.packs.verify import Fault, RecordWalk, Structure, next_packs, read_structure
from lading_server.ingest.packs.writer import Location

_PACKS_AT_ONCE = 100
_FILES_AT_ONCE = 1000
# Records of one pack that are verified once more and marked together.
_LOST_AT_ONCE = 30_000
# A pack's file is there a moment before its row. One whose id is younger than this may be just that.
_NEW_SECONDS = 60.0
# Findings of one pack that are told one by one; what else is wrong with it is marked all the same.
_TOLD_OF_A_PACK = 1000

_REST = "what it holds is read all the same, but an index could not be made from it; keep a backup of the database"


@dataclass(frozen=True)
class PackChecks:
    """The phases that read packs. `clock` tells seconds since 1970."""

    index: ContentIndex
    storage: PackStorage
    workers: Workers
    losses: Losses
    clock: Callable[[], float] = time.time

    async def packs(self, level: Level, only: str, after: bytes) -> AsyncGenerator[Step, None]:
        """Check the packs after one, of all entities or of one. A step is a pack.

        Those that are made meanwhile are left to the next check: this one would never come to the end of them.
        """
        last = uuid7()
        while rows := await self.index.checks.packs(after, only, _PACKS_AT_ONCE):
            for row in rows:
                if row.pack.version == last.version and row.pack > last:
                    return
                # Rows that were written later than a pack's own row was read would seem to lie behind its end.
                records = {record.offset: record for record in await self.index.checks.records(row.pack)}
                pack = await self.index.checks.pack(row.pack)
                step = Step([row.pack.hex])
                if pack is not None:
                    await self._check(pack, records, level, step)
                step.items = 1 + len(records)
                yield step
            after = rows[-1].pack.bytes

    async def files(self) -> AsyncGenerator[Step, None]:
        """Look for packs that the index does not know."""
        ids = self.storage.packs()
        while some := await self.workers.run(next_packs, ids, _FILES_AT_ONCE):
            known = await self.index.checks.known_packs(some)
            strangers = [pack for pack in some if pack not in known and not self._is_new(pack)]
            known = await self.index.checks.known_packs(strangers) if strangers else set()
            step = Step([], len(some))
            for pack in strangers:
                if pack not in known and await self._is_there(pack):
                    message = (
                        f"pack {pack} is there and the index does not know it, so nothing acknowledged is in it; "
                        "move its file away, and delete it when nothing misses it"
                    )
                    step.findings.append(Finding(FindingKind.FILE_UNKNOWN, "", message, pack=pack))
            yield step

    async def _check(self, pack: PackCheck, records: Mapping[int, PackedRecord], level: Level, step: Step) -> None:
        if pack.durable_bytes == 0 and not records:
            # It is being made, or could not be: nothing of it was acknowledged, and the next start takes it away.
            return
        try:
            structure = await self._structure(pack)
            faults, suspects = await self._records(pack, records, structure, level, step)
        except PackNotFound:
            await self._missing(pack, step)
            return
        except (StorageFailed, ShortRead) as error:
            message = f"pack {pack.pack} cannot be read: {error}; look at the disk, then check again"
            step.findings.append(Finding(FindingKind.PACK_DAMAGED, pack.entity, message, pack=pack.pack))
            return
        lost = await self._mark(pack, suspects, step)
        if level < Level.CHECKSUMS and await self._are_right(pack, suspects, lost):
            structure.faults.append(Fault(structure.end, "its index does not have all of its records"))
        for fault in [fault for fault in faults if fault.offset not in suspects][:_TOLD_OF_A_PACK]:
            finding = await self._other(pack, fault, structure)
            if finding is not None:
                step.findings.append(finding)
        if structure.faults:
            step.findings += await self._frame(pack, structure.faults)

    async def _records(
        self,
        pack: PackCheck,
        records: Mapping[int, PackedRecord],
        structure: Structure,
        level: Level,
        step: Step,
    ) -> tuple[list[Fault], dict[int, PackedRecord]]:
        """Return what is wrong with the pack's records, and which that have rows may be damaged, by their offsets."""
        entries = {entry.offset: entry for entry in structure.entries or ()}
        if level < Level.CHECKSUMS:
            step.bytes_read += HEADER_BYTES + max(0, pack.durable_bytes - structure.end)
            listed = {entry.offset: (entry.digest, entry.type) for entry in entries.values()}
            if structure.entries is None:
                # Without its index, only what lies behind the end is known to be wrong.
                return [], {at: record for at, record in records.items() if _end(record) > structure.end}
            return [], {at: record for at, record in records.items() if listed.get(at) != (record.digest, record.kind)}
        walk = RecordWalk(
            self.storage,
            pack.pack,
            structure.end,
            [*records, *entries],
            reads_digests=level >= Level.DIGESTS,
        )
        left, seen = dict(records), 0
        while not walk.is_done:
            before = walk.offset
            for at, header in await self.workers.run(walk.step):
                seen += 1
                record = left.get(at)
                if record is not None and (record.digest, record.kind) == (header.digest, header.type):
                    del left[at]
            step.bytes_read += walk.offset - before
        if not walk.faults and structure.trailer is not None and not structure.faults:
            upto = pack.durable_bytes - HEADER_BYTES
            if not await self.workers.run(walk.whole_is, structure.trailer.xxh3_128, upto):
                structure.faults.append(Fault(0, "the pack does not have the checksum of its trailer"))
            elif seen != len(entries):
                structure.faults.append(Fault(structure.end, "its index is not that of its records"))
        return walk.faults, left

    async def _mark(self, pack: PackCheck, suspects: Mapping[int, PackedRecord], step: Step) -> set[bytes]:
        """Verify records once more; tell which are lost, and return these."""
        lost: set[bytes] = set()
        wanted = list(suspects.values())
        for first in range(0, len(wanted), _LOST_AT_ONCE):
            places = {record.digest: _place(pack.pack, record) for record in wanted[first : first + _LOST_AT_ONCE]}
            loss = await self.losses.mark_all_lost(pack.entity, places)
            lost |= loss.chunks
            for digest in sorted(loss.chunks)[:_TOLD_OF_A_PACK]:
                message = f"{format_digest(digest)} is lost; {HEAL}"
                step.findings.append(
                    Finding(
                        FindingKind.CHUNK_LOST,
                        pack.entity,
                        message,
                        digest,
                        pack.pack,
                        places[digest].offset,
                        is_loss=True,
                    )
                )

        return lost

    async def _are_right(self, pack: PackCheck, suspects: Mapping[int, PackedRecord], lost: set[bytes]) -> bool:
        """Tell whether any of the records is neither lost nor elsewhere by now: then it is right."""
        left = {record for record in suspects.values() if record.digest not in lost}
        return bool(left) and not left.isdisjoint(await self.index.checks.records(pack.pack))

    async def _other(self, pack: PackCheck, fault: Fault, structure: Structure) -> Finding | None:
        """Tell of a damaged record that has no row: one that a new index would be made from.

        A chunk or page without a row is dead weight: another copy counts, or it was lost and healed. It is not told.
        """
        entry = next((entry for entry in structure.entries or () if entry.offset == fault.offset), None)
        known = fault.header or entry
        if known is None:
            is_needed = pack.pack_class == PackClass.META or fault.offset == HEADER_BYTES
        else:
            is_needed = known.type not in (RecordType.CHUNK, RecordType.TREE_PAGE)
        if not is_needed or await self.index.checks.pack(pack.pack) is None:
            return None
        if fault.header is not None and not await self.workers.run(_is_damaged, self.storage, pack.pack, fault):
            return None
        what = f"{known.type.name.lower()} record {format_digest(known.digest)}" if known is not None else "a record"
        message = f"{what} of pack {pack.pack} at {fault.offset} is damaged: {fault.reason}; {_REST}"
        digest = known.digest if known is not None else None
        return Finding(FindingKind.RECORD_DAMAGED, pack.entity, message, digest, pack.pack, fault.offset)

    async def _frame(self, pack: PackCheck, faults: Sequence[Fault]) -> list[Finding]:
        """Tell what is wrong with what frames the records, when the pack still counts and is as it was."""
        now = await self.index.checks.pack(pack.pack)
        if now is None or now.is_sealed != pack.is_sealed:
            return []
        return [
            Finding(
                FindingKind.PACK_DAMAGED,
                pack.entity,
                f"pack {pack.pack} is damaged at {fault.offset}: {fault.reason}; {_REST}",
                pack=pack.pack,
                offset=fault.offset,
            )
            for fault in faults
        ]

    async def _missing(self, pack: PackCheck, step: Step) -> None:
        """Tell of a pack that is not there, unless it was collected meanwhile. Nothing in it counts from then on."""
        if await self.index.checks.pack(pack.pack) is None or await self._is_there(pack.pack):
            return
        await self.index.packs.mark_damaged(pack.pack)
        loss = await self.losses.mark_pack_lost(pack.entity, pack.pack)
        message = (
            f"pack {pack.pack} is not there: {len(loss.chunks)} chunks and pages of {len(loss.blobs)} blobs and "
            f"{len(loss.trees)} trees are lost; {HEAL}"
        )
        step.findings.append(
            Finding(FindingKind.PACK_MISSING, pack.entity, message, pack=pack.pack, is_loss=bool(loss.chunks))
        )

    async def _structure(self, pack: PackCheck) -> Structure:
        return await self.workers.run(
            read_structure,
            self.storage,
            pack.pack,
            pack_class=pack.pack_class,
            is_sealed=pack.is_sealed,
            durable_bytes=pack.durable_bytes,
        )

    async def _is_there(self, pack: UUID) -> bool:
        try:
            await self.workers.run(self.storage.size, pack)
        except PackNotFound:
            return False
        return True

    def _is_new(self, pack: UUID) -> bool:
        milliseconds = pack.int >> 80
        return pack.version == 7 and milliseconds / 1000 > self.clock() - _NEW_SECONDS


def _place(pack: UUID, record: PackedRecord) -> Location:
    return Location(pack, record.offset, record.stored_bytes, record.raw_bytes)


def _end(record: PackedRecord) -> int:
    return record.offset + HEADER_BYTES + record.stored_bytes


def _is_damaged(storage: PackStorage, pack: UUID, fault: Fault) -> bool:
    header = fault.header
    if header is None:
        return True
    place = Location(pack, fault.offset, header.stored_bytes, header.raw_bytes)
    try:
        (payload,) = read_payloads(storage, [place], [header.digest])
    except (CorruptRecord, StorageFailed):
        return True
    return blake3_digest(payload) != header.digest
