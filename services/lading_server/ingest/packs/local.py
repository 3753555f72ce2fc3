"""Packs as files of a directory: appended with writev, made durable with fdatasync, read with pread."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from lading_server.common.errors import StorageFailed
from lading_server.ingest.packs.storage import Buffer, PackExists, PackFile, PackNotFound, ShortRead

# Linux takes at most this many buffers in one writev.
_IOV_MAX = os.sysconf("SC_IOV_MAX")
# Read descriptors kept open: far below the usual limit of 1,024 a process, and 32 GiB of packs.
READ_DESCRIPTORS = 128
_SUFFIX = ".pack"


class StoreLocked(Exception):
    """Another server has the directory."""


def _failed(what: str, error: OSError) -> StorageFailed:
    name = errno.errorcode.get(error.errno or 0, "error")
    return StorageFailed(f"{what}: {error.strerror} ({name}); look at the disk and start the server again")


class LocalPackFile:
    """One growing file. See PackFile."""

    def __init__(self, path: Path, descriptor: int, length_bytes: int, *, fresh: bool) -> None:
        self._path = path
        self._descriptor = descriptor
        self._length_bytes = length_bytes
        self._name_is_durable = not fresh
        self._failure: StorageFailed | None = None
        self._closed = False

    @property
    def length_bytes(self) -> int:
        """How many bytes were appended, synced or not."""
        return self._length_bytes

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Append the buffers in order. Raises StorageFailed."""
        self._check()
        try:
            for first in range(0, len(buffers), _IOV_MAX):
                self._write(buffers[first : first + _IOV_MAX])
        except OSError as error:
            raise self._fail("could not write to", error) from error

    def sync(self) -> None:
        """Make everything appended before the call durable. Raises StorageFailed."""
        self._check()
        try:
            os.fdatasync(self._descriptor)
            if not self._name_is_durable:
                _sync_directory(self._path.parent)
                self._name_is_durable = True
        except OSError as error:
            raise self._fail("could not sync", error) from error

    def close(self) -> None:
        """Close the file."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    def _write(self, buffers: Sequence[Buffer]) -> None:
        left = list(buffers)
        while left:
            written = os.writev(self._descriptor, left)
            self._length_bytes += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left and written:
                left[0] = memoryview(left[0])[written:]

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise StorageFailed(f"pack file {self._path.name} is closed")

    def _fail(self, what: str, error: OSError) -> StorageFailed:
        self._failure = _failed(f"{what} pack file {self._path}", error)
        return self._failure


class LocalPackStorage:
    """Packs below `root/packs`, behind a lock on `root/lock`. See PackStorage.

    Guarantee: while this object is open, no other LocalPackStorage, in any process, is open on the same root.
    """

    def __init__(self, root: Path, *, read_descriptors: int = READ_DESCRIPTORS) -> None:
        """Open or make the directory.

        Raises:
            StoreLocked: Another server has it.
            OSError: It cannot be made or opened.
        """
        self._packs = root / "packs"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(root / "lock")
        try:
            self._packs.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(root)
        except OSError:
            os.close(self._lock)
            raise
        self._descriptors = _Descriptors(read_descriptors)
        self._closed = False

    def create(self, pack: UUID) -> PackFile:
        """Make an empty pack. Raises PackExists, StorageFailed."""
        path = self._path(pack)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _sync_directory(self._packs)
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise PackExists(f"pack {pack} was made before") from error
        except OSError as error:
            raise _failed(f"could not make pack file {path}", error) from error
        return LocalPackFile(path, descriptor, 0, fresh=True)

    def recover(self, pack: UUID, durable_bytes: int) -> PackFile:
        """Cut the pack back and open it. Raises PackNotFound, ShortRead, StorageFailed."""
        path = self._path(pack)
        size_bytes = self.size(pack)
        if size_bytes < durable_bytes:
            raise ShortRead(f"pack {pack} has {size_bytes} bytes, and {durable_bytes} were durable")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.ftruncate(descriptor, durable_bytes)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            raise _failed(f"could not cut pack file {path} back", error) from error
        return LocalPackFile(path, descriptor, durable_bytes, fresh=True)

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes. Raises PackNotFound, ShortRead, StorageFailed."""
        with self._descriptors.borrow(pack, self._path(pack)) as descriptor:
            try:
                data = os.pread(descriptor, length, offset)
                while len(data) < length:
                    more = os.pread(descriptor, length - len(data), offset + len(data))
                    if not more:
                        raise ShortRead(f"pack {pack} ends at {offset + len(data)}, before {offset + length}")
                    data += more
            except OSError as error:
                raise _failed(f"could not read pack {pack}", error) from error
        return data

    def size(self, pack: UUID) -> int:
        """Return the pack's length. Raises PackNotFound."""
        try:
            return self._path(pack).stat().st_size
        except FileNotFoundError as error:
            raise PackNotFound(f"there is no pack {pack}") from error

    def delete(self, pack: UUID) -> None:
        """Remove the pack durably. Raises StorageFailed."""
        self._descriptors.forget(pack)
        path = self._path(pack)
        try:
            with suppress(FileNotFoundError):
                path.unlink()
            if path.parent.exists():
                _sync_directory(path.parent)
        except OSError as error:
            raise _failed(f"could not delete pack file {path}", error) from error

    def packs(self) -> Iterator[UUID]:
        """Yield the ids of all packs."""
        for path in self._packs.glob(f"*/*{_SUFFIX}"):
            with suppress(ValueError):  # not one of ours: somebody else's file is left alone
                yield UUID(hex=path.name.removesuffix(_SUFFIX))

    def free_bytes(self) -> int:
        """Return how many bytes a process that is not root could still write."""
        status = os.statvfs(self._packs)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        """Close every file and let the directory go."""
        if not self._closed:
            self._closed = True
            self._descriptors.close()
            os.close(self._lock)

    def _path(self, pack: UUID) -> Path:
        # By the last digits: the first are the time, and all packs of a year share them.
        return self._packs / pack.hex[-2:] / f"{pack.hex}{_SUFFIX}"


class _Descriptors:
    """Open read descriptors, least recently used first. One that is in use is never closed under its reader."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: OrderedDict[UUID, list[int]] = OrderedDict()
        self._count = 0

    @contextmanager
    def borrow(self, pack: UUID, path: Path) -> Iterator[int]:
        """Give a descriptor to one reader. Raises PackNotFound, StorageFailed."""
        with self._lock:
            idle = self._idle.get(pack)
            descriptor = idle.pop() if idle else None
            if descriptor is not None:
                self._count -= 1
        if descriptor is None:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise PackNotFound(f"there is no pack {pack}") from error
            except OSError as error:
                raise _failed(f"could not open pack file {path}", error) from error
        try:
            yield descriptor
        finally:
            self._give_back(pack, descriptor)

    def forget(self, pack: UUID) -> None:
        """Close the idle descriptors of a pack."""
        with self._lock:
            closing = self._idle.pop(pack, [])
            self._count -= len(closing)
        for descriptor in closing:
            os.close(descriptor)

    def close(self) -> None:
        """Close all. Readers must have ended."""
        for pack in list(self._idle):
            self.forget(pack)

    def _give_back(self, pack: UUID, descriptor: int) -> None:
        closing: list[int] = []
        with self._lock:
            self._idle.setdefault(pack, []).append(descriptor)
            self._idle.move_to_end(pack)
            self._count += 1
            while self._count > self._limit:
                oldest = next(iter(self._idle))
                closing.append(self._idle[oldest].pop())
                self._count -= 1
                if not self._idle[oldest]:
                    del self._idle[oldest]
        for unused in closing:
            os.close(unused)


def _lock(path: Path) -> int:
    """Take the directory's lock, and write into it who has it. Raises StoreLocked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise StoreLocked(
            f"{path.parent} is in use by the server with process id {holder}; stop that one, or give another --data"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
