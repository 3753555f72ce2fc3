"""Open files of packs that are read, kept for the next reader. Knows what is open and nothing of what is in it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID


class ReadDescriptors:
    """Open read descriptors, least recently used first.

    One that is in use is never closed under its reader. None of a deleted file is kept: it would keep the file's space.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: idle ones beyond it are closed."""
        self._limit = limit
        self._lock = threading.Lock()
        # No list is empty: the first is where the next one to close is taken from.
        self._idle: OrderedDict[UUID, list[int]] = OrderedDict()
        self._count = 0
        self._forgotten = 0

    @contextmanager
    def borrow(self, pack: UUID, path: Path) -> Iterator[int]:
        """Give a descriptor to one reader. Raises OSError when the file cannot be opened."""
        with self._lock:
            forgotten = self._forgotten
            descriptor = self._take(pack) if pack in self._idle else None
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            self._give_back(pack, descriptor, forgotten)

    def forget(self, pack: UUID) -> None:
        """Close the descriptors of a pack whose file is gone: the idle ones now, those in use when they come back."""
        with self._lock:
            # Tells those in use, of other packs too: opening one again is cheap, and packs are deleted rarely.
            self._forgotten += 1
            closing = self._idle.pop(pack, [])
            self._count -= len(closing)
        for descriptor in closing:
            os.close(descriptor)

    def close(self) -> None:
        """Close all. Readers must have ended."""
        for pack in list(self._idle):
            self.forget(pack)

    def _take(self, pack: UUID) -> int:
        descriptors = self._idle[pack]
        descriptor = descriptors.pop()
        self._count -= 1
        if not descriptors:
            del self._idle[pack]
        return descriptor

    def _give_back(self, pack: UUID, descriptor: int, forgotten: int) -> None:
        closing: list[int] = []
        with self._lock:
            if forgotten != self._forgotten:
                closing.append(descriptor)
            else:
                self._idle.setdefault(pack, []).append(descriptor)
                self._idle.move_to_end(pack)
                self._count += 1
            while self._count > self._limit:
                closing.append(self._take(next(iter(self._idle))))
        for unused in closing:
            os.close(unused)
