"""Files as they were found on disk: one, and a million of them in little memory. Pure: reads nothing."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

# Modification, change, size, device, inode, executable.
_STATUS = struct.Struct("<9s9sQQQB")
# Nanoseconds since 1970: eight bytes end in 2262, and file systems do not.
_TIME_BYTES = 9
_SIZE_BYTES = 8
_UNSIGNED = (1 << 64) - 1
# Where the size is, from the end.
_SIZE_AT = 2 * _TIME_BYTES - _STATUS.size


class LocalFile(NamedTuple):
    """A regular file as it was found.

    Attributes:
        path: Its path in the tree.
        location: Where it is on this machine.
        size_bytes: Its size when it was found.
        modified_ns: Its modification time then: with the size, what tells a change.
        executable: Whether its owner may execute it.
        device: The file system that it is on.
        inode: Its number there: another file in its place has another.
        changed_ns: When its content, rights or names last changed; nobody can set this back.
    """

    path: str
    location: str
    size_bytes: int
    modified_ns: int
    executable: bool
    device: int
    inode: int
    changed_ns: int

    @classmethod
    def of(cls, path: str, location: str, status: os.stat_result) -> LocalFile:
        """Return the file with this status."""
        return cls(
            path,
            location,
            status.st_size,
            status.st_mtime_ns,
            bool(status.st_mode & stat.S_IXUSR),
            status.st_dev & _UNSIGNED,
            status.st_ino & _UNSIGNED,
            status.st_ctime_ns,
        )

    def __fspath__(self) -> str:
        return self.location

    def is_still(self, status: os.stat_result) -> bool:
        """Whether an opened file's status is as it was when the file was found."""
        return status.st_size == self.size_bytes and status.st_mtime_ns == self.modified_ns


class FilesBelow(Sequence[LocalFile]):
    """The files below one directory, sorted by path: about 110 bytes for each, where a LocalFile takes 450.

    Each is one string of bytes, path, NUL and status: no path has a NUL, and no byte of one is smaller, so the strings
    sort as the paths do. A LocalFile is made when it is asked for.
    """

    def __init__(self, root: str, packed: Iterable[bytes]) -> None:
        """`packed`: what `pack` made, in any order. `root`: the directory that their paths are below."""
        self._prefix = os.path.join(root, "")
        self._packed = sorted(packed)

    @staticmethod
    def pack(path: str, status: os.stat_result) -> bytes:
        """Return what is kept of a file. Raises UnicodeEncodeError where its path is not UTF-8."""
        # Not through LocalFile.of: this is done for every file before the first is read.
        return b"%b\0%b" % (
            path.encode(),
            _STATUS.pack(
                status.st_mtime_ns.to_bytes(_TIME_BYTES, "little", signed=True),
                status.st_ctime_ns.to_bytes(_TIME_BYTES, "little", signed=True),
                status.st_size,
                status.st_dev & _UNSIGNED,
                status.st_ino & _UNSIGNED,
                status.st_mode & stat.S_IXUSR != 0,
            ),
        )

    def paths(self) -> Iterator[str]:
        """Yield the paths of all, in order."""
        for packed in self._packed:
            yield packed[: -_STATUS.size - 1].decode()

    @property
    def size_bytes(self) -> int:
        """The sizes of all, together."""
        # Not a list of them: there may be a million.
        return sum(int.from_bytes(packed[_SIZE_AT : _SIZE_AT + _SIZE_BYTES], "little") for packed in self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> LocalFile: ...
    @overload
    def __getitem__(self, index: slice) -> list[LocalFile]: ...
    def __getitem__(self, index: int | slice) -> LocalFile | list[LocalFile]:
        if isinstance(index, slice):
            return [self._unpacked(packed) for packed in self._packed[index]]
        return self._unpacked(self._packed[index])

    def _unpacked(self, packed: bytes) -> LocalFile:
        path = packed[: -_STATUS.size - 1].decode()
        modified, changed, size_bytes, device, inode, executable = _STATUS.unpack_from(
            packed, len(packed) - _STATUS.size
        )
        modified_ns = int.from_bytes(modified, "little", signed=True)
        changed_ns = int.from_bytes(changed, "little", signed=True)
        location = self._prefix + path
        return LocalFile(path, location, size_bytes, modified_ns, bool(executable), device, inode, changed_ns)
