"""An asynchronous generator as a plain iterator, a few items at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Generic, TypeVar

from lading.sync._loop import loop

T = TypeVar("T")

# A crossing between threads costs what some dozens of listed items do. Items are small: they come in pages anyway.
_AT_ONCE = 200


class Items(Iterator[T], Generic[T]):
    """Yields what an asynchronous generator does. Reads ahead a few hundred items at most, and never a whole listing.

    `close`, or a `with` block, ends it early; so does letting go of it. For one thread at a time.
    """

    def __init__(self, generator: AsyncGenerator[T, None], at_once: int = _AT_ONCE) -> None:
        """Take a generator that was not started."""
        self._generator = generator
        self._at_once = at_once
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_open = True
        self._loop = loop()

    def __iter__(self) -> Items[T]:
        return self

    def __next__(self) -> T:
        if not self._ready and self._is_open:
            self._loop.run(self._read())
        if self._ready:
            return self._ready.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End it. What comes after this is nothing."""
        self._ready.clear()
        self._error = None
        if self._is_open:
            self._is_open = False
            self._loop.run(self._generator.aclose())

    def __enter__(self) -> Items[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._is_open:
            self._loop.discard(self._generator)

    async def _read(self) -> None:
        """Read some items. An error is kept until the items before it were taken."""
        try:
            for _ in range(self._at_once):
                self._ready.append(await anext(self._generator))
        except StopAsyncIteration:
            self._is_open = False
        except BaseException as error:
            self._is_open = False
            if not self._ready or not isinstance(error, Exception):
                raise
            self._error = error
