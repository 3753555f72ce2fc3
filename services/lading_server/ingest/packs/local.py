"""Packs as files of a directory: appended with writev, made durable with fdatasync, read with pread."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from lading_server.common.errors import DiskLow, StorageFailed
from lading_server.ingest.packs.descriptors import ReadDescriptors
from lading_server.ingest.packs.disk import Disk
from lading_server.ingest.packs.storage import Buffer, PackExists, PackFile, PackNotFound, ShortRead

# Linux takes at most this many buffers in one writev.
_IOV_MAX = os.sysconf("SC_IOV_MAX")
# Read descriptors kept open: far below the usual limit of 1,024 a process, and 32 GiB of packs.
READ_DESCRIPTORS = 128
# Written back early when so much was appended since the last sync: as much as a group commit waits for at most, so that
# a sync finds little to do where appends are faster than syncs.
_WRITEBACK_BYTES = 8 << 20
_SUFFIX = ".pack"
# An empty file that outlives its pack. A pack has 256 MiB, so these cost next to nothing.
_DELETED_SUFFIX = ".deleted"
# No space, or no more of a quota: the only errors of a write that pass by themselves.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StoreLocked(Exception):
    """Another server has the directory."""


def _failed(what: str, error: OSError) -> StorageFailed:
    name = errno.errorcode.get(error.errno or 0, "error")
    return StorageFailed(f"{what}: {error.strerror} ({name}); look at the disk and start the server again")


def _refused(what: str, error: OSError) -> StorageFailed | DiskLow:
    """Return what a write failed with; one that found no space can be made again when there is some."""
    if error.errno not in _FULL:
        return _failed(what, error)
    return DiskLow(
        f"{what}: {error.strerror}; nothing acknowledged is affected; free some space or ask the operator, then retry"
    )


class LocalPackFile:
    """One growing file. See PackFile."""

    def __init__(self, path: Path, descriptor: int, length_bytes: int, disk: Disk) -> None:
        self._disk = disk
        self._path = path
        self._descriptor = descriptor
        self._length_bytes = length_bytes
        # Everything before it was written back, or is being.
        self._writeback_bytes = length_bytes
        self._name_is_durable = False
        self._failure: StorageFailed | None = None
        # What an append found no space for.
        self._full: DiskLow | None = None
        self._closed = False

    @property
    def length_bytes(self) -> int:
        """How many bytes were appended, synced or not."""
        return self._length_bytes

    def append(self, buffers: Sequence[Buffer]) -> None:
        """Append the buffers in order. Raises DiskLow, StorageFailed."""
        self._check()
        if self._full is not None:
            raise self._full
        try:
            for first in range(0, len(buffers), _IOV_MAX):
                self._write(buffers[first : first + _IOV_MAX])
        except OSError as error:
            refused = _refused(f"could not write to pack file {self._path}", error)
            if isinstance(refused, DiskLow):
                self._full = refused
            else:
                self._failure = refused
            raise refused from error
        self._begin_writeback()

    def sync(self) -> None:
        """Make everything appended before the call durable. Raises StorageFailed."""
        self._check()
        # The sync writes it back. Advising it as well would drop pages that are clean by then and soon read again.
        self._writeback_bytes = self._length_bytes
        try:
            self._disk.sync(self._descriptor)
            if not self._name_is_durable:
                self._disk.sync_directory(self._path.parent)
                # Whoever made the parent may not have come to sync it.
                self._disk.sync_directory(self._path.parent.parent)
                self._name_is_durable = True
        except OSError as error:
            self._failure = _failed(f"could not sync pack file {self._path}", error)
            raise self._failure from error

    def close(self) -> None:
        """Close the file."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    def _write(self, buffers: Sequence[Buffer]) -> None:
        left = list(buffers)
        while left:
            written = self._disk.append(self._descriptor, left)
            self._length_bytes += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left and written:
                left[0] = memoryview(left[0])[written:]

    def _begin_writeback(self) -> None:
        begin, end = self._writeback_bytes, self._length_bytes
        if end - begin >= _WRITEBACK_BYTES:
            self._writeback_bytes = end
            # Linux starts to write dirty pages back and returns; they stay in the cache. It is advice: what fails here
            # fails in the sync too.
            with suppress(OSError):
                os.posix_fadvise(self._descriptor, begin, end - begin, os.POSIX_FADV_DONTNEED)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise StorageFailed(f"pack file {self._path.name} is closed")


class LocalPackStorage:
    """Packs below `root/packs`, behind a lock on `root/lock`. See PackStorage.

    Guarantee: while this object is open, no other LocalPackStorage, in any process, is open on the same root.
    """

    def __init__(self, root: Path, *, read_descriptors: int = READ_DESCRIPTORS, disk: Disk | None = None) -> None:
        """Open or make the directory.

        `disk` is what changes it; a test may give one that crashes.

        Raises:
            StoreLocked: Another server has it.
            OSError: It cannot be made or opened, or its file system has no locks.
        """
        self._disk = disk or Disk()
        self._packs = root / "packs"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(root / "lock")
        try:
            self._disk.make_directory(self._packs)
            self._disk.sync_directory(root)
        except OSError:
            os.close(self._lock)
            raise
        self._descriptors = ReadDescriptors(read_descriptors)
        self._closed = False

    def create(self, pack: UUID) -> PackFile:
        """Make an empty pack. Raises PackExists when the id was used before; DiskLow, StorageFailed."""
        path = self._path(pack)
        try:
            if path.with_suffix(_DELETED_SUFFIX).exists():
                raise PackExists(f"pack {pack} was made before, and deleted")
            self._disk.make_directory(path.parent)
            descriptor = self._disk.create(path)
        except FileExistsError as error:
            raise PackExists(f"pack {pack} was made before") from error
        except OSError as error:
            raise _refused(f"could not make pack file {path}", error) from error
        return LocalPackFile(path, descriptor, 0, self._disk)

    def recover(self, pack: UUID, durable_bytes: int) -> PackFile:
        """Cut the pack back and open it. Raises PackNotFound, ShortRead, StorageFailed."""
        path = self._path(pack)
        size_bytes = self.size(pack)
        if size_bytes < durable_bytes:
            raise ShortRead(f"pack {pack} has {size_bytes} bytes, and {durable_bytes} were durable")
        try:
            descriptor = self._disk.open(path)
            try:
                self._disk.truncate(descriptor, durable_bytes)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            raise _failed(f"could not cut pack file {path} back", error) from error
        return LocalPackFile(path, descriptor, durable_bytes, self._disk)

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes. Raises PackNotFound, ShortRead, StorageFailed."""
        try:
            with self._descriptors.borrow(pack, self._path(pack)) as descriptor:
                data = os.pread(descriptor, length, offset)
                while len(data) < length:
                    more = os.pread(descriptor, length - len(data), offset + len(data))
                    if not more:
                        raise ShortRead(f"pack {pack} ends at {offset + len(data)}, before {offset + length}")
                    data += more
        except FileNotFoundError as error:
            raise PackNotFound(f"there is no pack {pack}") from error
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
        """Remove the pack durably, and keep its id from being used again. Raises StorageFailed."""
        path = self._path(pack)
        try:
            if path.exists():
                _bury(self._disk, path)
            if path.parent.exists():
                self._disk.sync_directory(path.parent)
        except OSError as error:
            raise _failed(f"could not delete pack file {path}", error) from error
        finally:
            self._descriptors.forget(pack)

    def packs(self) -> Iterator[UUID]:
        """Yield the ids of all packs."""
        for path in self._packs.glob(f"*/*{_SUFFIX}"):
            with suppress(ValueError):
                pack = UUID(hex=path.stem)
                # UUID takes dashes and braces too. What has another name is not ours and is left alone.
                if path == self._path(pack):
                    yield pack

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


def _bury(disk: Disk, path: Path) -> None:
    """Remove a pack file and leave its tombstone, also where there is no space for one."""
    tombstone = path.with_suffix(_DELETED_SUFFIX)
    try:
        # Durable before the pack goes: a crash between the two leaves both and never neither.
        disk.touch(tombstone)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        # The pack becomes its own tombstone. Whoever reads it right now finds it short, which is why this comes second.
        disk.rename(path, tombstone)
        disk.sync_directory(path.parent)
        disk.empty(tombstone)
        return
    disk.sync_directory(path.parent)
    disk.remove(path)


def _lock(path: Path) -> int:
    """Take the directory's lock, and write into it who has it. Raises StoreLocked, OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _flock(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "another process"
        raise StoreLocked(
            f"{path.parent} is in use by the server with process id {holder}; stop that one, or give another --data"
        ) from error
    except OSError as error:
        # A network file system without locks, for example. With the name of the file, so that the operator can look.
        raise OSError(error.errno, error.strerror, str(path)) from error
