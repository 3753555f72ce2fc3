"""Recovery: whatever a crash left open is cut back to what is durable, sealed, and never appended to again."""

from __future__ import annotations

import logging

from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.recovery import seal_after_crash
from lading_server.ingest.packs.storage import PackStorage, PackStorageError

_log = logging.getLogger(__name__)

# In one line of the log. Each chunk that is lost has a line of its own.
_DAMAGES_TOLD = 5


async def recover_packs(index: ContentIndex, storage: PackStorage, workers: Workers, losses: Losses) -> int:
    """Seal every pack that an earlier run left open, or forget it if nothing was durable; return how many there were.

    What is damaged before the durable length of a pack is said so: those chunks become missing, and what needs them
    damaged, so that the next upload of the same bytes stores them again. Of a pack that is shorter than that, or has no
    whole record or header, all of them do.
    """
    recovered = 0
    for row in await index.packs.open_packs():
        recovered += 1
        try:
            sealed = await workers.run(seal_after_crash, storage, row.pack, row.durable_bytes)
        except (CorruptRecord, PackStorageError) as error:
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
