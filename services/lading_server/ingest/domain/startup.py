"""Recovery: whatever a crash left open is cut back to what is durable, sealed, and never appended to again."""

from __future__ import annotations

import logging
from itertools import islice
from uuid import UUID

from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import HEADER_BYTES
from lading_server.ingest.packs.recovery import PackUnreadable, seal_after_crash
from lading_server.ingest.packs.storage import PackStorage, PackStorageError

_log = logging.getLogger(__name__)

# In one line of the log. Each chunk that is lost has a line of its own.
_DAMAGES_TOLD = 5
# Other packs that are asked whether the disk answers at all. Few: one that is away may take its time to refuse each.
_PACKS_ASKED = 16


async def recover_packs(index: ContentIndex, storage: PackStorage, workers: Workers, losses: Losses) -> int:
    """Seal every pack that an earlier run left open, or forget it if nothing was durable; return how many there were.

    What is damaged before the durable length of a pack is said so: those chunks become missing, and what needs them
    damaged, so that the next upload of the same bytes stores them again. Of a pack that is shorter than that, or has no
    whole record, all of them do; also where the disk refuses to read it and answers for another pack.

    Raises:
        StorageFailed: The disk refused to write; or it answers for no pack, and may be back in a minute.
        DiskLow: There is no space to seal a pack.
    """
    recovered = 0
    for row in await index.packs.open_packs():
        recovered += 1
        try:
            sealed = await workers.run(seal_after_crash, storage, row.pack, row.durable_bytes)
        except (CorruptRecord, PackStorageError, PackUnreadable) as error:
            if isinstance(error, PackUnreadable) and not await workers.run(_answers_for_another, storage, row.pack):
                raise
            _log.critical("pack %s of entity %s is damaged: %s", row.pack, row.entity, error)
            await index.packs.mark_damaged(row.pack)
            await losses.mark_pack_lost(row.entity, row.pack)
            continue
        if sealed.total_bytes == 0:
            await index.packs.remove(row.pack)
            continue
        if sealed.damages:
            told = ", ".join(f"{damage.what} at {damage.begin}" for damage in sealed.damages[:_DAMAGES_TOLD])
            _log.critical("pack %s of entity %s is damaged: %s; what is whole stays", row.pack, row.entity, told)
            # While the pack still counts as open: a crash in between, and the next start looks again.
            await losses.mark_lost_in(row.entity, row.pack, sealed.damages)
        await index.packs.mark_sealed(row.pack, sealed.total_bytes)
    return recovered


def _answers_for_another(storage: PackStorage, refused: UUID) -> bool:
    """Tell whether the disk gives anything of another pack: then it has a bad place, and is not away."""
    for pack in islice((pack for pack in storage.packs() if pack != refused), _PACKS_ASKED):
        try:
            storage.read(pack, 0, HEADER_BYTES)
        except (StorageFailed, PackStorageError):
            continue
        return True
    return False
