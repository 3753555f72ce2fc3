"""The end of what runs in the background: told once, and waited for by everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from lading_server.common.errors import Draining

T = TypeVar("T")


class Closing:
    """Begun once, and never taken back. Tasks end at a moment that suits them, and not in a transaction."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    @property
    def started(self) -> bool:
        """Whether it was begun."""
        return self._begun.is_set()

    def begin(self) -> None:
        """Tell everybody."""
        self._begun.set()

    async def wait(self, seconds: float) -> None:
        """Return when it begins, or after this time."""
        try:
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        except TimeoutError:
            return

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` comes to. It is cancelled when closing begins first. Raises Draining then."""
        working = asyncio.ensure_future(work)
        begun = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait({working, begun}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return await working
        finally:
            begun.cancel()
            working.cancel()
        await asyncio.wait({working})
        raise Draining("the server is about to stop; retry with backoff")
