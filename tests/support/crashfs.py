"""A directory under a power cut: what is done to it is written down, and every image a crash may leave made from that.

A scenario runs once, over real files. Each change, each sync and each acknowledgement gets a place in one log. Then,
for a crash after any entry of the log, an image of the directory is put together from what was durable there and, by
the kind of crash, from some of what was not. This is how ALICE and SQLite's own crash tests go about it; the difference
from a process that is killed is that the system's cache is lost too.

What a file system may do here: forget whatever was not synced, write it in any order, tear a write at any 512 bytes,
lengthen a file and not write what is in it, keep or forget each name that was made or removed since its directory was
synced. What it may not do: forget what was synced, or touch bytes that nobody wrote to.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from lading_server.ingest.packs.disk import Disk
from lading_server.ingest.packs.storage import Buffer

SECTOR_BYTES = 512

# A file's content by its path below the root; None is a directory.
Image = dict[str, bytes | None]


class MakeDirectory(NamedTuple):
    """A directory was made."""

    path: str


class Create(NamedTuple):
    """An empty file was made."""

    path: str


class Remove(NamedTuple):
    """A file was removed."""

    path: str


class Write(NamedTuple):
    """Bytes were written."""

    path: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """A file was given a length."""

    path: str
    length_bytes: int


class Sync(NamedTuple):
    """A file's content was synced, as far as it was written before entry `covers` of the log."""

    path: str
    covers: int


class SyncDirectory(NamedTuple):
    """A directory's names were synced, as far as they were made or removed before entry `covers` of the log."""

    path: str
    covers: int


class Acknowledged(NamedTuple):
    """Somebody was told that this is safe."""

    what: object


Entry = MakeDirectory | Create | Remove | Write | Truncate | Sync | SyncDirectory | Acknowledged


class Crash(Enum):
    """What becomes of what was not synced."""

    LOST = "nothing that was not synced is there"
    KEPT = "all that was not synced is there"
    PREFIX = "what came first is there, the last write torn"
    SCATTERED = "each write and each name is there or not, each sector by itself"
    GARBAGE = "names and lengths are there, and sectors that were not synced hold anything"


class Recorder:
    """The log of one directory. Safe for many threads. `syncs`: whether syncs are really made."""

    def __init__(self, root: Path, *, syncs: bool = False) -> None:
        self.root = root.resolve()
        self.syncs = syncs
        self.entries: list[Entry] = []
        self._lock = threading.Lock()

    def relative(self, path: str | os.PathLike[str]) -> str | None:
        """Return the path below the root, or None where it is not below it."""
        whole = os.path.abspath(path)
        below = os.path.relpath(whole, self.root)
        return None if below.startswith("..") else below

    def add(self, entry: Entry) -> None:
        """Write down what was done. Never before it was: a sync that began meanwhile must not seem to cover it."""
        with self._lock:
            self.entries.append(entry)

    def acknowledge(self, what: object) -> None:
        """Write down that somebody was told that this is safe."""
        self.add(Acknowledged(what))

    @property
    def position(self) -> int:
        """How many entries there are: what a sync that begins now covers."""
        with self._lock:
            return len(self.entries)


class RecordingDisk(Disk):
    """The real calls, and a log of them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._paths: dict[int, str] = {}

    def make_directory(self, path: Path) -> None:
        """See Disk."""
        if not path.exists():
            super().make_directory(path)
            self._recorder.add(MakeDirectory(self._name(path)))

    def create(self, path: Path) -> int:
        """See Disk."""
        descriptor = super().create(path)
        self._recorder.add(Create(self._name(path)))
        self._paths[descriptor] = self._name(path)
        return descriptor

    def rename(self, path: Path, new: Path) -> None:
        """Only a full disk comes to this, and no scenario has one."""
        raise AssertionError("the log has no entry for a new name")

    def empty(self, path: Path) -> None:
        """The same."""
        raise AssertionError("the log has no entry for this")

    def touch(self, path: Path) -> None:
        """See Disk."""
        if not path.exists():
            super().touch(path)
            self._recorder.add(Create(self._name(path)))

    def open(self, path: Path) -> int:
        """See Disk."""
        descriptor = super().open(path)
        self._paths[descriptor] = self._name(path)
        return descriptor

    def append(self, descriptor: int, buffers: Sequence[Buffer]) -> int:
        """See Disk. One thread appends to a file at a time, so its length is where the bytes go."""
        offset = os.fstat(descriptor).st_size
        written = super().append(descriptor, buffers)
        data = b"".join(buffers)[:written]
        self._recorder.add(Write(self._paths[descriptor], offset, data))
        return written

    def truncate(self, descriptor: int, length_bytes: int) -> None:
        """See Disk."""
        super().truncate(descriptor, length_bytes)
        self._recorder.add(Truncate(self._paths[descriptor], length_bytes))

    def sync(self, descriptor: int) -> None:
        """See Disk."""
        covers = self._recorder.position
        if self._recorder.syncs:
            super().sync(descriptor)
        self._recorder.add(Sync(self._paths[descriptor], covers))

    def sync_directory(self, path: Path) -> None:
        """See Disk."""
        covers = self._recorder.position
        if self._recorder.syncs:
            super().sync_directory(path)
        self._recorder.add(SyncDirectory(self._name(path), covers))

    def remove(self, path: Path) -> None:
        """See Disk."""
        if path.exists():
            super().remove(path)
            self._recorder.add(Remove(self._name(path)))

    def _name(self, path: Path) -> str:
        name = self._recorder.relative(path)
        if name is None:
            raise AssertionError(f"{path} is not below {self._recorder.root}")
        return name


@dataclass
class _File:
    """A file, whatever its name: its durable bytes, and by their places in the log the changes since."""

    durable: bytes = b""
    pending: list[tuple[int, Write | Truncate]] = field(default_factory=list)


class _Naming(NamedTuple):
    """A name that was made or, with nothing, removed. A directory is its own name."""

    position: int
    path: str
    target: _File | str | None


class CrashFS:
    """A directory at one place of a log: a durable image, and everything since that may be there or not."""

    def __init__(self, base: Image) -> None:
        """`base`: what is there, durable, before the first entry."""
        self._durable: dict[str, _File | str] = {
            path: path if data is None else _File(data) for path, data in base.items()
        }
        self._current = dict(self._durable)
        self._namings: list[_Naming] = []
        self._position = 0

    def apply(self, entry: Entry) -> None:
        """Go one entry on."""
        match entry:
            case MakeDirectory(path):
                self._name(path, path)
            case Create(path):
                self._name(path, _File())
            case Remove(path):
                self._name(path, None)
            case Write(path) | Truncate(path):
                self._file(path).pending.append((self._position, entry))
            case Sync(path, covers):
                self._sync(self._file(path), covers)
            case SyncDirectory(path, covers):
                self._sync_names(path, covers)
            case Acknowledged():
                pass
        self._position += 1

    def image(self, crash: Crash, rng: random.Random) -> Image:
        """Return what a crash of this kind leaves."""
        upto = rng.randrange(self._position + 1) if crash is Crash.PREFIX else self._position
        names = dict(self._durable)
        for naming in self._namings:
            if self._has_name(crash, naming, upto, rng):
                _rename(names, naming)
        image: Image = {}
        for path in sorted(names):
            parent = os.path.dirname(path)
            # A name in a directory that has none is nowhere.
            if not parent or parent in image:
                target = names[path]
                image[path] = self._content(target, crash, upto, rng) if isinstance(target, _File) else None
        return image

    def _content(self, file: _File, crash: Crash, upto: int, rng: random.Random) -> bytes:
        data = bytearray(file.durable)
        for position, change in file.pending if crash is not Crash.LOST else ():
            if position > upto or (crash is Crash.SCATTERED and rng.random() < 0.5):
                continue
            is_torn = crash is Crash.SCATTERED or (crash is Crash.PREFIX and position == upto)
            if isinstance(change, Truncate):
                _resize(data, change.length_bytes)
                continue
            end = change.offset + len(change.data)
            _resize(data, max(len(data), end))
            for begin, stop in _sectors(change.offset, end):
                if is_torn and rng.random() < 0.5:
                    continue
                new = change.data[begin - change.offset : stop - change.offset]
                is_garbage = crash is Crash.GARBAGE and rng.random() < 0.5
                data[begin:stop] = rng.randbytes(stop - begin) if is_garbage else new
        return bytes(data)

    def _has_name(self, crash: Crash, naming: _Naming, upto: int, rng: random.Random) -> bool:
        if crash is Crash.LOST:
            return False
        return naming.position <= upto and (crash is not Crash.SCATTERED or rng.random() < 0.5)

    def _name(self, path: str, target: _File | str | None) -> None:
        naming = _Naming(self._position, path, target)
        self._namings.append(naming)
        _rename(self._current, naming)

    def _file(self, path: str) -> _File:
        file = self._current[path]
        assert isinstance(file, _File), path
        return file

    def _sync(self, file: _File, covers: int) -> None:
        data = bytearray(file.durable)
        for position, change in file.pending:
            if position < covers:
                _resize(data, change.length_bytes if isinstance(change, Truncate) else len(data))
                if isinstance(change, Write):
                    _resize(data, max(len(data), change.offset))
                    data[change.offset : change.offset + len(change.data)] = change.data
        file.durable = bytes(data)
        file.pending = [(position, change) for position, change in file.pending if position >= covers]

    def _sync_names(self, directory: str, covers: int) -> None:
        directory = "" if directory == "." else directory
        left = []
        for naming in self._namings:
            if naming.position < covers and os.path.dirname(naming.path) == directory:
                _rename(self._durable, naming)
            else:
                left.append(naming)
        self._namings = left


def write_image(image: Image, directory: Path) -> None:
    """Make a directory what the image says."""
    directory.mkdir()
    for path in sorted(image):
        data = image[path]
        if data is None:
            (directory / path).mkdir(mode=0o700)
        else:
            (directory / path).write_bytes(data)


def read_image(directory: Path) -> Image:
    """Return what is in a directory, all of it taken for durable."""
    return {
        str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes() for path in directory.rglob("*")
    }


def _rename(names: dict[str, _File | str], naming: _Naming) -> None:
    if naming.target is None:
        names.pop(naming.path, None)
    else:
        names[naming.path] = naming.target


def _resize(data: bytearray, length_bytes: int) -> None:
    del data[length_bytes:]
    data.extend(bytes(length_bytes - len(data)))


def _sectors(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range between borders of sectors."""
    while begin < end:
        stop = min(end, begin - begin % SECTOR_BYTES + SECTOR_BYTES)
        yield begin, stop
        begin = stop
