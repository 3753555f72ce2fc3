"""Reading one item ahead: the disk works on the next answer while this one is being sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def one_ahead(source: AsyncGenerator[T, None]) -> AsyncIterator[AsyncIterator[T]]:
    """Give what `source` yields, asking for the next item before this one is taken. Ends `source` with the block."""
    async with aclosing(_ahead(source)) as items:
        yield items


async def _ahead(source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async def fetch() -> tuple[bool, T | None]:
        try:
            return True, await anext(source)
        except StopAsyncIteration:
            return False, None

    upcoming = asyncio.create_task(fetch())
    try:
        while True:
            more, item = await upcoming
            if not more:
                return
            upcoming = asyncio.create_task(fetch())
            yield item  # type: ignore[misc]  # `more` says that there is one
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await source.aclose()
