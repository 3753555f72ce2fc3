"""Writes one large file that an interrupted download can continue. Runs in a thread."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence

from lading._cache.transfer import Transfer
from lading._download.pieces import PieceOrder
from lading._download.plan import Wanted
from lading._download.wire import ReceivedPiece
from lading._errors import UnsafePath
from lading._files import SafeRoot, make_executable
from lading_format.digest import new_hasher

_BLOCK_BYTES = 4 << 20


class LargeFile:
    """One blob's unfinished file, `.lading-partial/<64 hex>`. For one thread at a time; `close` it in the end.

    Making one reads and writes nothing: `open` it, and `close` it even when that was cancelled.

    Invariant: between calls, the file holds `size_bytes` bytes and the hasher has seen exactly those.

    Attributes:
        size_bytes: How much is there; where to continue.
        was_continued: Whether some of it is from an earlier download.
    """

    def __init__(self, root: SafeRoot, wanted: Wanted, cache: Transfer | None) -> None:
        self._root = root
        self._wanted = wanted
        self._cache = cache
        self._fd = -1
        self._name = ""
        self._order = PieceOrder([wanted])
        self._hasher = new_hasher()
        self.size_bytes = 0
        self.was_continued = False
        self._is_placed = False

    def open(self) -> None:
        """Open the file and lock it, or one of its own when another download has it.

        Raises:
            UnsafePath: Something other than a file of ours is in its place.
        """
        self._fd, self._name = _open_locked(self._root, self._wanted)

    def close(self, *, keep: bool) -> None:
        """Close the file, if it was opened. Remove it, unless it is to be continued or has got its name."""
        if self._fd < 0:
            return
        try:
            # By the file and not by `size_bytes`: what an earlier download left may not have been looked at yet.
            is_resumable = self._name == self._wanted.digest.hex() and os.fstat(self._fd).st_size > 0
            if not self._is_placed and not (keep and is_resumable):
                self._root.discard_opened(self._fd, self._name)
        finally:
            os.close(self._fd)
            self._fd = -1

    def hash_existing(self, stop: threading.Event) -> None:
        """Take over what an earlier download left. Does nothing to speak of when told to stop."""
        while self.size_bytes < self._wanted.size_bytes and not stop.is_set():
            block = os.pread(self._fd, min(_BLOCK_BYTES, self._wanted.size_bytes - self.size_bytes), self.size_bytes)
            if not block:
                break
            self._hasher.update(block)
            self.size_bytes += len(block)
        self.was_continued = self.size_bytes > 0

    def begin_stream(self) -> None:
        """Expect a stream that begins at `size_bytes`."""
        self._order = PieceOrder([self._wanted], self.size_bytes)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are there, right or wrong."""
        return self.size_bytes == self._wanted.size_bytes

    def take(self, pieces: Sequence[ReceivedPiece]) -> int:
        """Write a message's pieces; return how many bytes they were. Raises IntegrityError as PieceOrder does."""
        before_bytes = self.size_bytes
        for _, data, _ in self._order.check(pieces):
            view = memoryview(data)
            while view:
                written_bytes = os.pwrite(self._fd, view, self.size_bytes)
                self._hasher.update(view[:written_bytes])
                self.size_bytes += written_bytes
                view = view[written_bytes:]
        return self.size_bytes - before_bytes

    def restart(self) -> None:
        """Throw away what is there."""
        os.ftruncate(self._fd, 0)
        self._hasher = new_hasher()
        self.size_bytes = 0
        self.was_continued = False

    def finish(self) -> bool:
        """Give the file its names if it has its digest; return whether it had."""
        if self._hasher.digest() != self._wanted.digest:
            return False
        os.ftruncate(self._fd, self._wanted.size_bytes)
        if self._cache is None or not self._place_links(self._cache):
            self._place()
        self._is_placed = True
        return True

    def _place_links(self, cache: Transfer) -> bool:
        """Make the file an entry of the cache and its places links to that, if that is wanted and can be."""
        wanted = self._wanted
        if not cache.gives_links(self._root) or all(target.executable for target in wanted.targets):
            return False
        if not cache.keep_unfinished(wanted.digest, self._root, self._fd, self._name, wanted.size_bytes):
            return False
        if not cache.give(self._root, [wanted]):
            # Somebody dropped the entry in between. The file has no name any more, and its bytes are still there.
            with self._root.cursor() as cursor:
                for target in wanted.targets:
                    cursor.copy(self._fd, wanted.size_bytes, target.path, executable=target.executable)
        # Where the cache took it, another download may have begun a file of that name meanwhile.
        self._root.discard_opened(self._fd, self._name)
        return True

    def _place(self) -> None:
        """Put the file itself in its place, copies in others, and keep it in the cache where that copies nothing."""
        cache, wanted = self._cache, self._wanted
        first, *others = wanted.targets
        make_executable(self._fd, first.executable)
        with self._root.cursor() as cursor:
            for target in others:
                cursor.copy(self._fd, wanted.size_bytes, target.path, executable=target.executable)
            cursor.place(self._name, first.path)
            # Not before: who finds an unfinished file with another name refuses to write to it.
            if cache is not None and not cache.keep_clone(wanted.digest, self._fd, wanted.size_bytes):
                cache.keep_placed(wanted.digest, cursor, first.path, wanted.size_bytes)


def _open_locked(root: SafeRoot, wanted: Wanted) -> tuple[int, str]:
    """Open the blob's unfinished file, or one of our own when another download has it; return it and its name."""
    executable = wanted.targets[0].executable
    name = wanted.digest.hex()
    fd = root.open_part(name, executable)
    try:
        ours = _lock(fd, root, name)
    except BaseException:
        os.close(fd)
        raise
    if ours:
        return fd, name
    os.close(fd)
    return root.create_temporary(executable)


def _lock(fd: int, root: SafeRoot, name: str) -> bool:
    """Lock an unfinished file; return False when another download has it, or has just given it its real name.

    Where the file system has no locks nobody has it, and it is no one's to continue either: two would write to it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Opening it made it, most likely.
        if not os.fstat(fd).st_size:
            root.discard_opened(fd, name)
        return False
    try:
        opened, named = os.fstat(fd), os.stat(name, dir_fd=root.partial_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not os.path.samestat(opened, named):
        return False  # it has its name by now, and the cache may have given it a second one
    if opened.st_nlink > 1:
        raise UnsafePath(f"The unfinished file {name} is also another file's content. Remove it first.")
    return True
