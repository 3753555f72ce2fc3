"""One upload's or download's use of the cache, from its opening to its end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TypeVar

from lading._cache.blocks import Blocks, Cloning, Stopped, Unreadable
from lading._cache.filling import Filling
from lading._cache.listings import DamagedListing, ListingFile, read_listing
from lading._cache.owning import make_own
from lading._cache.store import BORROWED_SUFFIX, TREE_SUFFIX, Store
from lading._cache.taking import Blob, Taking
from lading._errors import LadingError
from lading._files import Cursor, SafeRoot
from lading._model import ListedEntry

_log = logging.getLogger("lading")

T = TypeVar("T")

# A file is hashed before its first byte is given. Of a longer one somebody may want a header only.
OPEN_AT_MOST_BYTES = 1 << 30
# A borrowed one is copied before: a tenth of a second.
OPEN_BORROWED_AT_MOST_BYTES = 64 << 20


class Transfer:
    """A store, open for one transfer. A context manager; safe for many threads. Blocks.

    Args:
        store: The store; closed on leaving.
        limit_bytes: What it may hold at most.
        links: Give hard links, where that can be, instead of files of their own.
        stop: Set when the transfer ends.
    """

    def __init__(self, store: Store, limit_bytes: int, stop: threading.Event, *, links: bool = False) -> None:
        self.links = links
        self._store = store
        self._stop = stop
        self._cloning = Cloning()
        self._filling = Filling(store, limit_bytes, self._cloning)

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell other processes what was kept, make room if that was too much, and close the store."""
        try:
            self._filling.close()
        finally:
            self._store.close()

    def give(self, root: SafeRoot, blobs: Sequence[Blob]) -> set[bytes]:
        """Write those blobs that are here to all their places; return their digests. Raises as Taking.give does."""
        taking = Taking(self._store, self._cloning, self._stop, links=self.gives_links(root))
        with root.cursor() as cursor:
            return {blob.digest for blob in blobs if not self._stop.is_set() and taking.give(root, cursor, blob)}

    def keep(self, digest: bytes, data: bytes | memoryview) -> bool:
        """Keep a file's bytes, whose digest was found to be right."""
        return self._filling.put(digest.hex(), data)

    def keep_clone(self, digest: bytes, fd: int, size_bytes: int) -> bool:
        """Keep an open file, whose digest was found to be right, where the file system lets two share their blocks."""
        return self._filling.put_clone(digest.hex(), fd, size_bytes)

    def keep_placed(self, digest: bytes, cursor: Cursor, path: str, size_bytes: int) -> bool:
        """Keep a file that has its name in the tree, and whose digest was found to be right, by a second name."""
        return self._filling.put_borrowed(
            digest.hex(), size_bytes, lambda new_fd, name: cursor.link(path, new_fd, name)
        )

    def keep_little(self, digest: bytes, data: bytes | memoryview) -> bool:
        """Keep a file's bytes by a copy, unless the transfer copied much already."""
        return self._filling.put_little(digest.hex(), data)

    def keep_unfinished(self, digest: bytes, root: SafeRoot, fd: int, file_name: str, size_bytes: int) -> bool:
        """Keep a finished file that has no name in the tree yet, by taking it out of `root.partial_fd`.

        Returns:
            Whether it is kept; then it is not there any more, unless it was in the cache already.
        """
        return self._filling.put_adopted(digest.hex(), fd, size_bytes, root.partial_fd, file_name)

    def gives_links(self, root: SafeRoot) -> bool:
        """Whether files there are to be hard links of entries, and can be."""
        return self.links and self._store.device == root.device

    @property
    def can_clone(self) -> bool:
        """Whether no file system has refused yet to let files share their blocks."""
        return self._cloning.possible

    def open_blob(self, digest: bytes) -> int | None:
        """Open a blob that was just hashed; None where it is not here, or is longer than OPEN_AT_MOST_BYTES."""
        opened = self._store.open_blob(digest.hex())
        if opened is None:
            return None
        fd, name = opened
        if not name.endswith(BORROWED_SUFFIX):
            if self._is_right(fd, digest):
                return fd
            os.close(fd)
            return None
        # Whoever reads it takes his time, and its user may write to it meanwhile.
        try:
            is_own = self._make_own(fd, digest)
        finally:
            os.close(fd)
        return self.open_blob(digest) if is_own else None

    def _make_own(self, fd: int, digest: bytes) -> bool:
        """Make a borrowed entry one of the cache's own, where that is not long; drop one that is wrong."""
        name = digest.hex()
        size_bytes = os.fstat(fd).st_size
        if size_bytes > OPEN_BORROWED_AT_MOST_BYTES:
            return False
        try:
            if make_own(self._store, self._cloning, Blocks(self._stop), name, fd, size_bytes):
                return True
        except (Stopped, OSError):
            return False
        except Unreadable:
            pass
        self._store.drop(name + BORROWED_SUFFIX)
        return False

    def _is_right(self, fd: int, digest: bytes) -> bool:
        """Hash an entry that somebody wants to read; drop one that is wrong."""
        size_bytes = os.fstat(fd).st_size
        if size_bytes > OPEN_AT_MOST_BYTES:
            return False
        try:
            right = Blocks(self._stop).digest(fd, size_bytes) == digest
        except Stopped:
            return False
        except Unreadable:
            right = False
        if right:
            self._store.touch(fd, time.time_ns())
        else:
            self._store.drop(digest.hex())
        return right

    def listing_bytes(self, tree_digest: bytes) -> int | None:
        """Return how long the file of a tree's listing is; None where it is not here."""
        fd = self._store.open(tree_digest.hex() + TREE_SUFFIX)
        if fd is None:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def read_tree(self, tree_digest: bytes, read: Callable[[Iterator[list[ListedEntry]]], T]) -> T | None:
        """Read a tree's listing; return None where it is not here, or wrong: then it is dropped.

        Args:
            tree_digest: The tree.
            read: What takes the pages, and raises a LadingError where they are not that tree's.
        """
        name = tree_digest.hex() + TREE_SUFFIX
        fd = self._store.open(name)
        if fd is None:
            return None
        try:
            with closing(self._pages(fd)) as pages:
                found = read(pages)
            self._store.touch(fd, time.time_ns())
            return found
        except Stopped:
            return None
        except (DamagedListing, LadingError) as error:
            _log.warning("The listing %s in %s is fetched again: %s.", name, self._store.path, error)
            self._store.drop(name)
            return None
        finally:
            os.close(fd)

    def _pages(self, fd: int) -> Generator[list[ListedEntry], None, None]:
        for page in read_listing(fd):
            if self._stop.is_set():
                raise Stopped
            yield page

    def new_tree(self, tree_digest: bytes) -> NewTree:
        """Return what keeps a tree's listing while it comes."""
        return NewTree(self._store, self._filling, tree_digest)


class NewTree:
    """A listing that is kept while it comes. For one thread at a time. Never fails: what cannot be kept is not kept."""

    def __init__(self, store: Store, filling: Filling, tree_digest: bytes) -> None:
        self._store = store
        self._filling = filling
        self._name = tree_digest.hex() + TREE_SUFFIX
        self._fd: int | None = None
        self._new_name = ""
        self._file: ListingFile | None = None

    def add(self, entries: Sequence[ListedEntry]) -> None:
        """Take the next page."""
        with self._given_up():
            if self._fd is None:
                self._fd, self._new_name = self._store.create()
                self._file = ListingFile(self._fd)
            if self._file is not None:
                self._file.add(entries)

    def finish(self) -> None:
        """Keep what came: it was found to be the tree's."""
        with self._given_up():
            if self._fd is not None and self._file is not None:
                self._file.finish()
                if self._filling.put_written(self._name, self._fd, self._new_name, self._file.size_bytes):
                    self._file = None
                    self._new_name = ""

    def close(self) -> None:
        """Forget what was not kept."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            if self._new_name:
                self._store.discard(self._new_name)
        self._file = None

    @contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._file = None
            self._filling.failed(error)
