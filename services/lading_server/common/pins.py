"""What the registry asks of ingest. Ingest is behind it in the same process or at the end of a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

VERSION_UID_BYTES = 16


@dataclass(frozen=True, slots=True)
class PinnedTree:
    """The totals of a tree that is whole and stays whole."""

    file_count: int
    reference_count: int
    size_bytes: int


class ContentPins(Protocol):
    """Keeps trees whole for versions. Both methods may be repeated any number of times."""

    async def acquire(self, entity: str, version_uid: bytes, tree_digest: bytes) -> PinnedTree:
        """Promise that a tree stays whole until the version's pin is released.

        Raises:
            TreeNotFound: The entity has no such tree.
            MissingBlobs: Content of the tree was collected.
            PinConflict: The version's pin is on another tree.
            PinReleased: The version's pin was released; that is for ever.
            IngestUnavailable: Ingest does not answer. The promise may have been made all the same.
        """
        ...

    async def release(self, entity: str, version_uid: bytes) -> None:
        """Take the promise back, for ever.

        Raises:
            IngestUnavailable: Ingest does not answer. The promise may have been taken back all the same.
        """
        ...
