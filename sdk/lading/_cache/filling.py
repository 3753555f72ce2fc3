"""Puts entries into a store, as far as there is room. Never fails a transfer: what cannot be kept is not kept."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from lading._cache.blocks import Cloning, Linking
from lading._cache.eviction import evict
from lading._cache.space import allowed_bytes, kept_bytes, space_of
from lading._cache.store import Store
from lading._cache.tally import add_to_tally, read_tally
from lading._files import write_all

_log = logging.getLogger("lading")

# How much is put in before others hear of it and the limit is looked at again; of a small cache, a part of it.
_STEP_BYTES = 64 << 20
_STEP_SHARE = 16
# A disk that refuses so often in one transfer will refuse again.
_FAILURES_AT_MOST = 3
# Written a second time where a file system cannot link: a hundredth of a second, and the whole of many small versions.
COPIED_AT_MOST_BYTES = 4 << 20


class Filling:
    """One transfer's way to put entries in. Safe for many threads; `close` it in the end.

    A transfer puts in no more than a cache can hold: a data set that is larger would only push itself out.

    Args:
        store: Where to.
        limit_bytes: What the store may hold at most.
        cloning: What is known of whether files can share their blocks.
    """

    def __init__(self, store: Store, limit_bytes: int, cloning: Cloning) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._cloning = cloning
        self._linking = Linking()
        self._lock = threading.Lock()
        self._put_bytes = 0
        self._copied_bytes = 0
        self._untold_bytes = 0
        self._failures = 0

    def put(self, name: str, data: bytes | memoryview) -> bool:
        """Keep bytes whose digest was found to be right; return whether there is an entry now."""
        return self._put(name, len(data), lambda fd: _write(fd, data))

    def put_little(self, name: str, data: bytes | memoryview) -> bool:
        """Keep bytes that could not be kept without a copy, as long as they are few in this transfer."""
        with self._lock:
            self._copied_bytes += len(data)
            if self._copied_bytes > COPIED_AT_MOST_BYTES:
                self._copied_bytes -= len(data)
                return False
        return self.put(name, data)

    def put_clone(self, name: str, source_fd: int, size_bytes: int) -> bool:
        """Keep an open file whose digest was found to be right, where the file system lets two share their blocks."""
        return self._cloning.possible and self._put(name, size_bytes, lambda fd: self._cloning.clone(source_fd, fd))

    def put_borrowed(self, name: str, size_bytes: int, link: Callable[[int, str], None]) -> bool:
        """Keep a file whose digest was found to be right by giving it a second name. See Store.borrow."""
        if not self._linking.possible:
            return False
        return self._keep(name, size_bytes, 0, lambda: self._linking.link(lambda: self._store.borrow(name, link)))

    def put_adopted(self, name: str, fd: int, size_bytes: int, directory_fd: int, file_name: str) -> bool:
        """Keep a file whose digest was found to be right by taking it as it is. See Store.adopt."""
        if not self._linking.possible:
            return False
        return self._keep(
            name,
            size_bytes,
            0,
            lambda: self._linking.link(lambda: self._store.adopt(fd, directory_fd, file_name, name)),
        )

    def put_written(self, name: str, fd: int, new_name: str, size_bytes: int) -> bool:
        """Make a file of the store that was written already an entry. Raises OSError where it cannot be."""
        if self._failures >= _FAILURES_AT_MOST or not self._has_room(space_of(size_bytes), space_of(size_bytes)):
            return False
        self._store.enter(fd, new_name, name)
        self._count(space_of(size_bytes))
        return True

    def close(self) -> None:
        """Tell others what was put in, and make room if that was too much."""
        self._tell()

    def _put(self, name: str, size_bytes: int, fill: Callable[[int], bool]) -> bool:
        return self._keep(name, size_bytes, space_of(size_bytes), lambda: self._write(name, fill))

    def _keep(self, name: str, size_bytes: int, new_bytes: int, make: Callable[[], bool]) -> bool:
        """Make an entry, unless it is there; return whether it is there now. `new_bytes` have to be free."""
        if self._failures >= _FAILURES_AT_MOST:
            return False
        try:
            if self._store.has(name):
                return True
            if not self._has_room(space_of(size_bytes), new_bytes) or not make():
                return False
        except OSError as error:
            self.failed(error)
            return False
        self._count(space_of(size_bytes))
        return True

    def _write(self, name: str, fill: Callable[[int], bool]) -> bool:
        fd, new_name = self._store.create()
        try:
            if fill(fd):
                self._store.enter(fd, new_name, name)
                return True
        except BaseException:
            self._store.discard(new_name)
            raise
        finally:
            os.close(fd)
        self._store.discard(new_name)
        return False

    def _has_room(self, space_bytes: int, new_bytes: int) -> bool:
        if self._put_bytes + space_bytes > kept_bytes(self._limit_bytes):
            return False
        free_bytes, reserved_bytes = self._store.free_bytes()
        return free_bytes - new_bytes >= reserved_bytes

    def _count(self, space_bytes: int) -> None:
        with self._lock:
            self._put_bytes += space_bytes
            self._untold_bytes += space_bytes
            is_due = self._untold_bytes >= min(_STEP_BYTES, self._limit_bytes // _STEP_SHARE)
        if is_due:
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            told_bytes, self._untold_bytes = self._untold_bytes, 0
        if not told_bytes:
            return
        try:
            known_bytes = read_tally(self._store)
            if known_bytes is not None:
                add_to_tally(self._store, told_bytes)
            # Where nobody knows, a pass counts what was put in as well.
            if known_bytes is None or self._is_too_much(known_bytes + told_bytes):
                evict(self._store, self._limit_bytes)
        except OSError as error:
            self.failed(error)

    def _is_too_much(self, held_bytes: int) -> bool:
        return held_bytes > allowed_bytes(self._limit_bytes, held_bytes, *self._store.free_bytes())

    def failed(self, error: OSError) -> None:
        """Note that something could not be kept. The first time it is told."""
        if not self._failures:
            _log.warning("What was fetched is not kept in %s: %s. The transfer goes on.", self._store.path, error)
        self._failures += 1


def _write(fd: int, data: bytes | memoryview) -> bool:
    write_all(fd, data)
    return True
