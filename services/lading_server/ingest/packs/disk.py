"""The system calls that change a directory of packs, in one place, so that a test can stand between them and the disk.

Blocking. What only reads needs none of this. Every method raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lading_server.ingest.packs.storage import Buffer

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class Disk:
    """The real calls. tests/support/crashfs.py has one that also writes down what it is asked for."""

    def make_directory(self, path: Path) -> None:
        """Make a directory; one that is there stays. Its name is durable after `sync_directory` of its parent."""
        path.mkdir(mode=0o700, exist_ok=True)

    def create(self, path: Path) -> int:
        """Make a file and return a descriptor that appends to it. Raises FileExistsError."""
        return os.open(path, _CREATE, 0o600)

    def touch(self, path: Path) -> None:
        """Make an empty file; one that is there stays."""
        path.touch(mode=0o600)

    def open(self, path: Path) -> int:
        """Return a descriptor that appends to a file."""
        return os.open(path, _APPEND)

    def append(self, descriptor: int, buffers: Sequence[Buffer]) -> int:
        """Write at the file's end and return how many bytes that were: perhaps not all."""
        return os.writev(descriptor, buffers)

    def truncate(self, descriptor: int, length_bytes: int) -> None:
        """Cut a file back."""
        os.ftruncate(descriptor, length_bytes)

    def sync(self, descriptor: int) -> None:
        """Return when what was written to the file is durable, and its length. Its name need not be."""
        os.fdatasync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is not an error."""
        path.unlink(missing_ok=True)

    def rename(self, path: Path, new: Path) -> None:
        """Give a file another name; what had that name goes."""
        path.replace(new)

    def empty(self, path: Path) -> None:
        """Cut a file back to nothing."""
        os.truncate(path, 0)
