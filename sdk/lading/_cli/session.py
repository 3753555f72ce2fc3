"""The client that a command works with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import lading

T = TypeVar("T")

# Somebody waits at a terminal, and a wrong address looks like a server that restarts: as long as a restart takes.
PATIENCE_SECONDS = 5.0


@asynccontextmanager
async def connected() -> AsyncIterator[lading.Client]:
    """Give a client, as the environment and the files say. It tells soon when the server cannot be reached."""
    async with lading.Client(retry=PATIENCE_SECONDS) as client:
        yield client


@asynccontextmanager
async def connected_for_transfer() -> AsyncIterator[lading.Client]:
    """Give a client that bears a restart of the server, once that was seen to be there."""
    async with connected() as client:
        await client.whoami()
    async with lading.Client() as client:
        yield client


async def first(items: AsyncGenerator[T, None], limit: int) -> AsyncGenerator[T, None]:
    """Yield so many items at most; 0 for all."""
    count = 0
    async with aclosing(items):
        async for item in items:
            yield item
            count += 1
            if count == limit:
                return
