"""Packs in memory, for tests: a durable image and a volatile one, and a crash that keeps the first."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from uuid import UUID

from lading_server.common.errors import StorageFailed
from lading_server.ingest.packs.storage import Buffer, PackExists, PackFile, PackNotFound, ShortRead


class MemoryPackFile:
    """One growing byte array. See PackFile."""

    def __init__(self, durable: bytes | None) -> None:
        self.data = bytearray(durable or b"")
        # None: not even the name is durable.
        self.durable = durable
        self._closed = False

    @property
    def length_bytes(self) -> int:
        """How many bytes were appended, synced or not."""
        return len(self.data)

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Append the buffers in order. Raises StorageFailed when the pack is closed."""
        self._check()
        for buffer in buffers:
            self.data += buffer

    def sync(self) -> None:
        """Make everything appended durable. Raises StorageFailed when the pack is closed."""
        self._check()
        self.durable = bytes(self.data)

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise StorageFailed("the pack is closed")


class MemoryPackStorage:
    """Packs in a dictionary. See PackStorage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[UUID, MemoryPackFile] = {}
        self._deleted: set[UUID] = set()

    def create(self, pack: UUID) -> PackFile:
        """Make an empty pack. Raises PackExists."""
        with self._lock:
            if pack in self._files or pack in self._deleted:
                raise PackExists(f"pack {pack} was made before")
            self._files[pack] = MemoryPackFile(None)
            return self._files[pack]

    def recover(self, pack: UUID, durable_bytes: int) -> PackFile:
        """Cut the pack back and open it. Raises PackNotFound, ShortRead."""
        old = self._file(pack)
        if old.length_bytes < durable_bytes:
            raise ShortRead(f"pack {pack} has {old.length_bytes} bytes, and {durable_bytes} were durable")
        with self._lock:
            self._files[pack] = MemoryPackFile(bytes(old.data[:durable_bytes]))
            return self._files[pack]

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes. Raises PackNotFound, ShortRead."""
        data = bytes(self._file(pack).data[offset : offset + length])
        if len(data) < length:
            raise ShortRead(f"pack {pack} ends before {offset + length}")
        return data

    def size(self, pack: UUID) -> int:
        """Return the pack's length. Raises PackNotFound."""
        return self._file(pack).length_bytes

    def delete(self, pack: UUID) -> None:
        """Remove the pack, and keep its id from being used again."""
        with self._lock:
            if self._files.pop(pack, None) is not None:
                self._deleted.add(pack)

    def packs(self) -> Iterator[UUID]:
        """Yield the ids of all packs."""
        yield from list(self._files)

    def free_bytes(self) -> int | None:
        """Return None: memory has no such number."""
        return None

    def close(self) -> None:
        """Do nothing: a test looks at the packs afterwards."""

    def crash(self) -> None:
        """Lose everything that was not synced. Whoever still holds an open pack can do nothing with it."""
        with self._lock:
            before, self._files = self._files, {}
            for pack, file in before.items():
                file.close()
                if file.durable is not None:
                    self._files[pack] = MemoryPackFile(file.durable)

    def corrupt(self, pack: UUID, offset: int) -> None:
        """Flip a bit, as a disk would."""
        self._file(pack).data[offset] ^= 1

    def _file(self, pack: UUID) -> MemoryPackFile:
        try:
            return self._files[pack]
        except KeyError as error:
            raise PackNotFound(f"there is no pack {pack}") from error
