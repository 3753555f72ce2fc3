"""Lost content: whoever finds that a record is damaged comes here, and nowhere else are the rows of it changed."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from lading_format.digest import blake3_digest, format_digest
from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.losses import Loss
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import HEADER_BYTES
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.recovery import DamagedSpan
from lading_server.ingest.packs.storage import PackStorage, PackStorageError
from lading_server.ingest.packs.writer import Location

_log = logging.getLogger(__name__)

# Reports of readers that wait to be verified. More are dropped: a reader that meets the damage again reports it again,
# and a check finds all of it.
_WAITING = 1000
# Rows of a lost pack that are marked together: their digests, a few megabytes, and one search through all recipes.
_ROWS_OF_A_PACK = 30_000


class _Report(NamedTuple):
    entity: str
    digest: bytes
    place: Location


class Losses:
    """Verifies reports of damage, and makes what is really lost missing, so that the next upload heals it."""

    def __init__(
        self,
        index: ContentIndex,
        storage: PackStorage,
        workers: Workers,
        on_lost: Callable[[int], None] | None = None,
    ) -> None:
        """`on_lost` is told how many chunks and pages were lost."""
        self._index = index
        self._storage = storage
        self._workers = workers
        self._on_lost = on_lost
        self._reports: asyncio.Queue[_Report | None] = asyncio.Queue(_WAITING)
        self._waiting: set[_Report] = set()
        self._task = asyncio.create_task(self._run(), name="losses")

    def report(self, entity: str, digest: bytes, place: Location) -> None:
        """Have a record verified some time soon, because it could not be read. Never waits."""
        report = _Report(entity, digest, place)
        if report in self._waiting:
            return
        try:
            self._reports.put_nowait(report)
        except asyncio.QueueFull:
            _log.warning("%s of entity %s is damaged, and too many reports wait", format_digest(digest), entity)
        else:
            self._waiting.add(report)

    async def mark_lost(self, entity: str, digest: bytes, place: Location) -> Loss:
        """Verify one chunk or page once more; see `mark_all_lost`."""
        return await self.mark_all_lost(entity, {digest: place})

    async def mark_all_lost(self, entity: str, suspects: Mapping[bytes, Location]) -> Loss:
        """Read chunks and pages once more, and make those missing that are damaged. Returns what was lost.

        One that can be read now, or that lies elsewhere by now, is no loss.
        """
        reasons = {digest: await self._reason(entity, digest, place) for digest, place in suspects.items()}
        lost = {digest: suspects[digest] for digest, reason in reasons.items() if reason}
        loss = await self._index.losses.mark(entity, lost)
        for digest in sorted(loss.chunks):
            place = lost[digest]
            _log.critical(
                "%s of entity %s is lost (pack %s, offset %d): %s; %d blobs and %d trees need what was lost; "
                "store the same files again to heal it",
                *(format_digest(digest), entity, place.pack, place.offset, reasons[digest]),
                *(len(loss.blobs), len(loss.trees)),
            )
        self._count(loss)
        return loss

    async def mark_lost_in(self, entity: str, pack: UUID, spans: Sequence[DamagedSpan]) -> Loss:
        """Verify the chunks and pages that lie in these parts of a pack, in order; see `mark_all_lost`."""
        begins = [span.begin for span in spans]
        whole, after = Loss(), b""
        while places := await self._index.losses.places_in(pack, after, _ROWS_OF_A_PACK):
            suspects = {}
            for digest, place in places.items():
                at = bisect(begins, place.offset) - 1
                if at >= 0 and place.offset < spans[at].end:
                    suspects[digest] = place
            if suspects:
                whole.add(await self.mark_all_lost(entity, suspects))
            after = max(places)
        return whole

    async def mark_pack_lost(self, entity: str, pack: UUID) -> Loss:
        """Make everything missing that lies in a pack which is not live any more, without reading it."""
        whole, after = Loss(), b""
        while places := await self._index.losses.places_in(pack, after, _ROWS_OF_A_PACK):
            whole.add(await self._index.losses.mark(entity, places))
            after = max(places)
        _log.critical(
            "all %d chunks and pages in pack %s of entity %s are lost; %d blobs and %d trees need them; "
            "store the same files again to heal them",
            *(len(whole.chunks), pack, entity, len(whole.blobs), len(whole.trees)),
        )
        self._count(whole)
        return whole

    async def close(self) -> None:
        """Stop after the report at hand. Others that wait are forgotten: the next reader or check finds them again."""
        while not self._reports.empty():
            self._reports.get_nowait()
        self._reports.put_nowait(None)
        await self._task

    def _count(self, loss: Loss) -> None:
        if self._on_lost is not None and loss.chunks:
            self._on_lost(len(loss.chunks))

    async def _run(self) -> None:
        while (report := await self._reports.get()) is not None:
            try:
                await self.mark_lost(*report)
            except Exception:  # noqa: BLE001 - logged with its traceback; a reader or a check reports it again
                _log.exception("a report that %s is damaged could not be followed", format_digest(report.digest))
            finally:
                self._waiting.discard(report)

    async def _reason(self, entity: str, digest: bytes, place: Location) -> str:
        """Return why a record is lost, or "" when it is not."""
        try:
            reason = await self._workers.run(_damage_of, self._storage, digest, place)
        except StorageFailed as error:
            _log.error("pack %s cannot be read now, so nothing in it counts as lost: %s", place.pack, error.message)
            return ""
        if not reason:
            _log.warning(
                "%s of entity %s could not be read, and now it can (pack %s, offset %d); look at the disk",
                *(format_digest(digest), entity, place.pack, place.offset),
            )
        return reason


def _damage_of(storage: PackStorage, digest: bytes, place: Location) -> str:
    """Return what is wrong with a record, or "". Raises StorageFailed when nothing of its pack can be read."""
    try:
        (payload,) = read_payloads(storage, [place], [digest])
    except CorruptRecord as error:
        return error.message
    except StorageFailed as error:
        # One bad place on a disk is a loss. A disk that answers nothing at all may be back in a minute.
        try:
            _probe(storage, place.pack)
        except PackStorageError as gone:
            return str(gone)
        return error.message
    if blake3_digest(payload) != digest:
        return "the payload has its checksum and not its digest"
    return ""


def _probe(storage: PackStorage, pack: UUID) -> None:
    """Return if anything of a pack can be read. Raises StorageFailed; PackNotFound, ShortRead."""
    try:
        storage.read(pack, 0, HEADER_BYTES)
    except StorageFailed:
        # The bad place may be the first block itself: the first records share it with the pack's header.
        try:
            size_bytes = storage.size(pack)
        except OSError as error:
            # Nor does the file system answer.
            raise StorageFailed(f"the size of pack {pack} cannot be read: {error}") from error
        storage.read(pack, max(0, size_bytes - HEADER_BYTES), HEADER_BYTES)
