"""Bytes from file to file: cloned or linked where the file system can, else copied, and hashed. Knows no cache."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable

from lading._files import write_all
from lading_format.digest import new_hasher

# It stays in a core's own cache from the read to the hash and the write; larger ones were slower.
_BUFFER_BYTES = 256 << 10

# Python has the name from 3.12 on. On other systems than Linux the call is refused, and the file is copied.
_FICLONE: int = getattr(fcntl, "FICLONE", 0x40049409)
# What says that these two file systems will never do it, clone or link, so that nobody need ask again.
_NEVER = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


class Stopped(Exception):
    """The transfer was told to stop in the middle of a file."""


class Unreadable(Exception):
    """The file to read from cannot be read, or is shorter than it was. OSError is about the other one."""


class Blocks:
    """Moves whole files through one buffer. For one thread at a time.

    Args:
        stop: Set when the transfer ends; then what is under way raises Stopped.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._stop = stop

    def digest(self, fd: int, size_bytes: int) -> bytes:
        """Return the digest of an open file's first bytes.

        Raises:
            Unreadable: They cannot be read.
        """
        return self._move(fd, None, size_bytes)

    def copy(self, source_fd: int, target_fd: int, size_bytes: int) -> bytes:
        """Write an open file's first bytes to another, from its position on, and return the digest of what was written.

        Raises:
            Unreadable: The source cannot be read.
            OSError: The target cannot be written.
        """
        return self._move(source_fd, target_fd, size_bytes)

    def _move(self, source_fd: int, target_fd: int | None, size_bytes: int) -> bytes:
        hasher = new_hasher()
        offset = 0
        while offset < size_bytes:
            if self._stop.is_set():
                raise Stopped
            window = self._view[: min(_BUFFER_BYTES, size_bytes - offset)]
            try:
                read_bytes = os.preadv(source_fd, [window], offset)
            except OSError as error:
                raise Unreadable(str(error)) from error
            if not read_bytes:
                raise Unreadable("it is shorter than it was")
            hasher.update(window[:read_bytes])
            if target_fd is not None:
                write_all(target_fd, window[:read_bytes])
            offset += read_bytes
        return hasher.digest()


class Linking:
    """Gives files second names, until the file systems say that they never will. Safe for threads."""

    def __init__(self) -> None:
        self.possible = True

    def link(self, make: Callable[[], None]) -> bool:
        """Make a link; return whether that was done. Raises OSError where a link could be, and something else is wrong.

        Refused are links to other file systems (EXDEV), beyond a number (EMLINK), and by a file system without any or
        by the system's rules (EPERM and others). A file that went away cannot be linked either.
        """
        if not self.possible:
            return False
        try:
            make()
        except OSError as error:
            if error.errno in _NEVER:
                self.possible = False
            elif error.errno not in (errno.EMLINK, errno.ENOENT, errno.EACCES):
                raise
            return False
        return True


class Cloning:
    """Lets files share their blocks (FICLONE), until the file system says that it never will. Safe for threads."""

    def __init__(self) -> None:
        self.possible = True

    def clone(self, source_fd: int, target_fd: int) -> bool:
        """Make an empty file a clone of another; return False, with nothing done, where that cannot be.

        What was written to the source and is not on disk yet is written there first: that takes as long as it takes.
        """
        if not self.possible:
            return False
        try:
            fcntl.ioctl(target_fd, _FICLONE, source_fd)
        except OSError as error:
            if error.errno in _NEVER:
                self.possible = False
            return False
        return True
