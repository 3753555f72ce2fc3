"""What keeps an upload's tasks in step: a bound of what is on its way, and queues between tasks. Knows no files."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Budget:
    """Bounds the bytes of file data in memory, from reading to acknowledgement. First come, first served."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._free_bytes = size_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size_bytes: int) -> None:
        """Wait until so many more bytes may be in memory. More than the whole budget waits for all of it."""
        wanted_bytes = min(size_bytes, self._size_bytes)
        if not self._waiting and self._free_bytes >= wanted_bytes:
            self._free_bytes -= size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        await turn

    def release(self, size_bytes: int) -> None:
        """Say that so many bytes are no longer in memory."""
        self._free_bytes += size_bytes
        while self._waiting:
            wanted_bytes, turn = self._waiting[0]
            if not turn.done():
                if self._free_bytes < min(wanted_bytes, self._size_bytes):
                    return
                self._free_bytes -= wanted_bytes
                turn.set_result(None)
            self._waiting.popleft()


class Inbox(Generic[T]):
    """A queue that its readers look into, so that they can take as much as fits into one message."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        self._closed = False
        self._resting = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Iterable[T]) -> None:
        """Add items at the end."""
        self._items.extend(items)
        self._wake()

    def close(self) -> None:
        """Say that no more will come. Readers see what is still there, then the end."""
        self._closed = True
        self._wake()

    def rest(self) -> None:
        """Say that no more are expected, though some may come: who would wait for a while does not any more."""
        self._resting = True
        self._wake()

    async def ready(self, idle_seconds: float | None = None) -> bool:
        """Wait for an item; return False at the end, or when none came in `idle_seconds` or is expected in them."""
        is_patient = idle_seconds is None
        try:
            async with asyncio.timeout(None if self._items else idle_seconds):
                while not self._items and not self._closed and (is_patient or not self._resting):
                    turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(turn)
                    await turn
        except TimeoutError:
            return False
        return bool(self._items)

    @property
    def ended(self) -> bool:
        """Whether it is closed and empty."""
        return self._closed and not self._items

    def first(self) -> T:
        """Return the next item and leave it there. Only when there is one."""
        return self._items[0]

    def take(self) -> T:
        """Return the next item. Only when there is one."""
        return self._items.popleft()

    def take_many(self, count: int) -> list[T]:
        """Return the next items, up to `count` of them."""
        return [self._items.popleft() for _ in range(min(count, len(self._items)))]

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)
