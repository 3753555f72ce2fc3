"""Takes blobs out of a store, to the places of a tree. What does not have its digest is dropped and not given."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from lading._cache.blocks import Blocks, Cloning, Stopped, Unreadable
from lading._cache.owning import fill_hashed, make_own
from lading._cache.store import BORROWED_SUFFIX, ENTRY_MODE, Store, is_due
from lading._files import Cursor, SafeRoot

_log = logging.getLogger("lading")

_FILES_PER_JOB = 32
_BYTES_PER_JOB = 4 << 20


class Place(Protocol):
    """A path of a tree, and whether the file there may be executed."""

    @property
    def path(self) -> str: ...
    @property
    def executable(self) -> bool: ...


class Blob(Protocol):
    """A blob that is wanted at some places."""

    @property
    def digest(self) -> bytes: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def targets(self) -> Sequence[Place]: ...


B = TypeVar("B", bound=Blob)


class Taking:
    """One transfer's way to take blobs out. For one thread at a time.

    Args:
        store: Where from.
        cloning: What is known of whether files can share their blocks.
        stop: Set when the transfer ends: then nothing more is given.
        links: Give hard links, where that can be, instead of files of their own.
    """

    def __init__(self, store: Store, cloning: Cloning, stop: threading.Event, *, links: bool) -> None:
        self._store = store
        self._cloning = cloning
        self._stop = stop
        self._links = links
        self._blocks = Blocks(stop)

    def give(self, root: SafeRoot, cursor: Cursor, blob: Blob) -> bool:
        """Write a blob to all places where it is wanted; return False, with nothing written, where it is not here.

        Raises:
            OSError, UnsafePath, AlreadyExists: A place cannot be written, as in Cursor.
        """
        opened = self._store.open_blob(blob.digest.hex())
        if opened is None:
            return False
        fd, name = opened
        try:
            if os.fstat(fd).st_size != blob.size_bytes:
                self._store.drop(name)
                return False
            if name.endswith(BORROWED_SUFFIX):
                given = self._give_borrowed(root, cursor, blob, fd)
            else:
                given = self._give_own(root, cursor, blob, fd)
            if not given:
                self._store.drop(name)
            return given
        except Stopped:
            return False
        except Unreadable:
            self._store.drop(name)
            return False
        finally:
            os.close(fd)

    def _give_own(self, root: SafeRoot, cursor: Cursor, blob: Blob, fd: int) -> bool:
        """Give an entry that nobody can change by mistake: files of their own, or links."""
        if self._links:
            given = self._link(root, cursor, blob, fd)
        else:
            given = self._write(root, cursor, blob, blob.targets, fd, borrowed=False)
        if given:
            self._store.touch(fd, time.time_ns())
        return given

    def _give_borrowed(self, root: SafeRoot, cursor: Cursor, blob: Blob, fd: int) -> bool:
        """Give an entry that is a user's file as well, who may be writing to it now. It is never linked."""
        if self._links:
            try:
                right = make_own(self._store, self._cloning, self._blocks, blob.digest.hex(), fd, blob.size_bytes)
            except OSError as error:
                _log.debug("%s is given as a file of its own, for it cannot be copied: %s.", blob.digest.hex(), error)
            else:
                return right and self.give(root, cursor, blob)
        if not self._write(root, cursor, blob, blob.targets, fd, borrowed=True):
            return False
        self._note_use(cursor, blob, fd)
        return True

    def _note_use(self, cursor: Cursor, blob: Blob, fd: int) -> None:
        """Note that a borrowed entry was used, without touching the times of a file that a user has.

        The file that was just written has new ones, so the entry becomes a name of that file.
        """
        now_ns = time.time_ns()
        status = os.fstat(fd)
        if status.st_nlink == 1:
            self._store.touch(fd, now_ns)
        elif is_due(status, now_ns):
            # On another file system it cannot, and goes a little earlier.
            with suppress(OSError):
                self._store.borrow(
                    blob.digest.hex(), lambda new_fd, name: cursor.link(blob.targets[0].path, new_fd, name)
                )

    def _link(self, root: SafeRoot, cursor: Cursor, blob: Blob, fd: int) -> bool:
        """Write names of the entry itself, where the tree's right to execute allows it; else files of their own."""
        if self._blocks.digest(fd, blob.size_bytes) != blob.digest:
            return False
        is_plain = os.fstat(fd).st_mode & 0o7777 == ENTRY_MODE
        name = blob.digest.hex()
        rest = [
            target
            for target in blob.targets
            if target.executable or not is_plain or not self._link_one(root, cursor, name, fd, target)
        ]
        return not rest or self._write(root, cursor, blob, rest, fd, borrowed=False)

    def _link_one(self, root: SafeRoot, cursor: Cursor, name: str, fd: int, target: Place) -> bool:
        temporary_name = root.temporary_name()
        if not self._store.link(fd, name, root.partial_fd, temporary_name):
            return False
        try:
            cursor.place(temporary_name, target.path)
        finally:
            # Where the place has the same file already, a rename does nothing and leaves both names.
            root.discard(temporary_name)
        return True

    def _write(
        self, root: SafeRoot, cursor: Cursor, blob: Blob, targets: Sequence[Place], source_fd: int, *, borrowed: bool
    ) -> bool:
        """Write files of their own."""
        fill = self._fill_from_borrowed if borrowed else self._fill
        first, *others = targets
        fd, temporary_name = root.create_temporary(first.executable)
        placed = False
        try:
            if fill(source_fd, fd, blob.size_bytes) != blob.digest:
                return False
            for target in others:
                cursor.copy(fd, blob.size_bytes, target.path, executable=target.executable)
            cursor.place(temporary_name, first.path)
            placed = True
        finally:
            os.close(fd)
            if not placed:
                root.discard(temporary_name)
        return True

    def _fill_from_borrowed(self, source_fd: int, fd: int, size_bytes: int) -> bytes:
        """Fill a file as `_fill` does, from one whose times may not tell that it is being written to."""
        return fill_hashed(self._cloning, self._blocks, source_fd, fd, size_bytes)

    def _fill(self, source_fd: int, fd: int, size_bytes: int) -> bytes:
        """Fill a file; return the digest of what it was filled with, or nothing where that cannot be told."""
        before = os.fstat(source_fd)
        if not self._cloning.clone(source_fd, fd):
            return self._blocks.copy(source_fd, fd, size_bytes)
        # What was cloned is in memory under the entry's name and not yet under its own.
        digest = self._blocks.digest(source_fd, size_bytes)
        after = os.fstat(source_fd)
        is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return digest if is_same else self._blocks.digest(fd, size_bytes)


def batches(blobs: Sequence[B]) -> Iterator[list[B]]:
    """Yield blobs that one thread takes out in one go."""
    batch: list[B] = []
    batch_bytes = 0
    for blob in blobs:
        batch.append(blob)
        batch_bytes += blob.size_bytes
        if len(batch) >= _FILES_PER_JOB or batch_bytes >= _BYTES_PER_JOB:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch
