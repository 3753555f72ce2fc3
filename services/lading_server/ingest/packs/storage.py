"""The interface that keeps packs. Blocking: call it from worker threads. Knows nothing of what is in a pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Protocol
from uuid import UUID

Buffer = bytes | bytearray | memoryview


class PackClass(IntEnum):
    """What a pack is for. The numbers are on disk and in the index."""

    DATA = 1
    META = 2


class PackStorageError(Exception):
    """The base of what a storage says about packs that are not as the caller thinks."""


class PackExists(PackStorageError):
    """A pack of this id was made before, and may be deleted by now. Ids are never reused."""


class PackNotFound(PackStorageError):
    """There is no pack of this id."""


class ShortRead(PackStorageError):
    """The pack ends before the bytes that were asked for."""


class PackFile(Protocol):
    """An open pack that grows at its end. One thread appends at a time; another may sync meanwhile.

    Every implementation passes tests/conformance/test_pack_storage.py, which is the real definition.
    """

    @property
    def length_bytes(self) -> int:
        """How many bytes were appended, synced or not."""

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Append the buffers in order.

        Raises:
            DiskLow: There was no space. The pack takes nothing more, and what was appended before can still be synced.
            StorageFailed: The disk refused. The pack takes nothing more.
        """

    def sync(self) -> None:
        """Return when everything that was appended before the call is durable, and the pack's name too.

        Raises StorageFailed: then the pack takes nothing more, and its bytes since the last good sync are lost. It is
        never tried again: the operating system may have dropped the dirty pages and report success.
        """

    def close(self) -> None:
        """Let go of the pack. What was not synced may be lost. Calling it again does nothing.

        Nothing may append or sync meanwhile; afterwards both raise StorageFailed.
        """


class PackStorage(Protocol):
    """Keeps packs by id. Safe for many threads at once.

    Every implementation passes tests/conformance/test_pack_storage.py, which is the real definition. One over an
    object store follows, so nothing here is a file.
    """

    def create(self, pack: UUID) -> PackFile:
        """Make an empty pack; its name is durable after its first sync.

        Raises PackExists when there is one, or was one that is deleted; DiskLow, StorageFailed when it cannot be made.
        """

    def recover(self, pack: UUID, durable_bytes: int) -> PackFile:
        """Discard everything after `durable_bytes` and open the pack there.

        Raises PackNotFound; ShortRead when the pack is shorter; StorageFailed.
        """

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes.

        Raises PackNotFound; ShortRead when the pack ends before them; StorageFailed when the disk refuses.
        """

    def size(self, pack: UUID) -> int:
        """Return the pack's length in bytes. Raises PackNotFound."""

    def delete(self, pack: UUID) -> None:
        """Remove the pack durably, and keep its id from being used again. Raises StorageFailed.

        One that is not there is not an error. A read that has begun may still get the bytes.
        """

    def packs(self) -> Iterator[UUID]:
        """Yield the ids of all packs, in no order."""

    def free_bytes(self) -> int | None:
        """Return how much more fits, or None where there is no such number."""

    def close(self) -> None:
        """Let go of everything."""
