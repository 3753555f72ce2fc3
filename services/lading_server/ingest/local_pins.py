"""ContentPins over ingest in the same process."""

from __future__ import annotations

from lading_server.common.errors import ContentMoved
from lading_server.common.pins import PinnedTree
from lading_server.common.registry_errors import IngestUnavailable
from lading_server.ingest.domain.pins import Pins


class LocalPins:
    """See ContentPins. Nothing of it goes over a wire."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    async def acquire(self, entity: str, version_uid: bytes, tree_digest: bytes) -> PinnedTree:
        """See ContentPins.acquire."""
        try:
            totals = await self._pins.acquire(entity, version_uid, tree_digest)
        except ContentMoved as error:
            raise IngestUnavailable("the tree's content is being moved at this moment; retry with backoff") from error
        return PinnedTree(totals.file_count, totals.reference_count, totals.size_bytes)

    async def release(self, entity: str, version_uid: bytes) -> None:
        """See ContentPins.release."""
        await self._pins.release(entity, version_uid)
