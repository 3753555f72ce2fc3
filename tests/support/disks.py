"""Disks that are not quite one: each stands where ingest changes its packs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

from lading_server.common.errors import StorageFailed
from lading_server.ingest.packs.disk import Disk
from lading_server.ingest.packs.format import HEADER_BYTES, decode_pack_header
from lading_server.ingest.packs.storage import Buffer, PackFile, PackStorage


class SyncedDisk(Disk):
    """Knows how much of each file is synced, and tells of each change before it is made.

    Attributes:
        at_change: Called with what is about to be done: `append`, `sync`, `remove`, …
    """

    def __init__(self) -> None:
        self.at_change: Callable[[str], object] = lambda _what: None
        self._lock = threading.Lock()
        self._paths: dict[int, Path] = {}
        # Of the files that were written to, how many bytes are durable.
        self._synced: dict[Path, int] = {}

    def synced_bytes(self, path: Path, otherwise: int) -> int:
        """Return how much of a file is synced; `otherwise` for one that was not written to."""
        with self._lock:
            return self._synced.get(path, otherwise)

    def forget(self) -> None:
        """Know nothing any more: the files are others."""
        with self._lock:
            self._synced.clear()

    def path_of(self, descriptor: int) -> Path:
        """Return which file that is, of those that are open."""
        with self._lock:
            return self._paths[descriptor]

    def create(self, path: Path) -> int:
        self.at_change("create")
        descriptor = super().create(path)
        with self._lock:
            self._paths[descriptor], self._synced[path] = path, 0
        return descriptor

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        with self._lock:
            self._paths[descriptor] = path
            self._synced.setdefault(path, os.fstat(descriptor).st_size)
        return descriptor

    def append(self, descriptor: int, buffers: Sequence[Buffer]) -> int:
        self.at_change("append")
        return super().append(descriptor, buffers)

    def truncate(self, descriptor: int, length_bytes: int) -> None:
        self.at_change("truncate")
        super().truncate(descriptor, length_bytes)
        with self._lock:
            path = self._paths[descriptor]
            self._synced[path] = min(self._synced[path], length_bytes)

    def sync(self, descriptor: int) -> None:
        self.at_change("sync")
        covered_bytes = os.fstat(descriptor).st_size
        super().sync(descriptor)
        with self._lock:
            path = self._paths[descriptor]
            self._synced[path] = max(self._synced[path], covered_bytes)

    def touch(self, path: Path) -> None:
        self.at_change("touch")
        super().touch(path)

    def remove(self, path: Path) -> None:
        self.at_change("remove")
        super().remove(path)


class FaultyDisk(SyncedDisk):
    """Refuses what a test tells it to, as a bad disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.at_change = self._refuse
        self._what, self._class, self._times = "", 0, 0
        self.refused = 0

    def fail(self, what: str, *, pack_class: int = 0, times: int = 1) -> None:
        """Let so many `append`, `sync`, `remove`, … fail with EIO; of packs of a class alone, if one is given."""
        self._what, self._class, self._times, self.refused = what, pack_class, times, 0

    def sync(self, descriptor: int) -> None:
        path = self.path_of(descriptor)
        self._refuse("sync of a file", path)
        super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._refuse("sync of a directory")
        super().sync_directory(path)

    def append(self, descriptor: int, buffers: Sequence[Buffer]) -> int:
        self._refuse("append to a file", self.path_of(descriptor))
        return super().append(descriptor, buffers)

    def _refuse(self, what: str, path: Path | None = None) -> None:
        if what != self._what or self._times <= 0 or (self._class and self._class_of(path) != self._class):
            return
        self._times -= 1
        self.refused += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _class_of(self, path: Path | None) -> int:
        header = path.read_bytes()[:HEADER_BYTES] if path is not None else b""
        return decode_pack_header(header).pack_class if len(header) == HEADER_BYTES else 0


class FaultyPacks:
    """A storage whose reads fail where a test says, or wait until it lets them go.

    Attributes:
        bad: Places that cannot be read: pack, first byte, byte after the last.
        times: How many reads fail there; None for all.
        gate: Reads wait for it.
        read_packs: Which packs were asked for, in order.
    """

    def __init__(self, inner: PackStorage) -> None:
        self.bad: tuple[UUID, int, int] | None = None
        self.error: Exception = StorageFailed("could not read: Input/output error (EIO)")
        self.times: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self._inner = inner

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        if not self.gate.is_set():
            self.waiting.set()
            assert self.gate.wait(60)
        if self.bad is not None and self.times != 0:
            bad_pack, begin, end = self.bad
            if pack == bad_pack and offset < end and begin < offset + length:
                if self.times is not None:
                    self.times -= 1
                raise self.error
        return self._inner.read(pack, offset, length)

    def create(self, pack: UUID) -> PackFile:
        return self._inner.create(pack)

    def recover(self, pack: UUID, durable_bytes: int) -> PackFile:
        return self._inner.recover(pack, durable_bytes)

    def size(self, pack: UUID) -> int:
        return self._inner.size(pack)

    def delete(self, pack: UUID) -> None:
        self._inner.delete(pack)

    def packs(self) -> Iterator[UUID]:
        return self._inner.packs()

    def free_bytes(self) -> int | None:
        return self._inner.free_bytes()

    def close(self) -> None:
        self._inner.close()
