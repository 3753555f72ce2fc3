"""Deadlines for progress: a stream may last for days, but not stand still. Knows grpc's contexts, and no rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from lading_server.common.errors import StreamIdle

T = TypeVar("T")


class Writable(Protocol):
    """The part of a servicer context that sends."""

    async def write(self, message: Any) -> None:
        """Send one message; waits for flow control."""


async def progress(messages: AsyncIterator[T], idle_seconds: float) -> AsyncIterator[T]:
    """Yield a client's messages; raise StreamIdle when none comes for `idle_seconds`."""
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                message = await anext(messages, None)
        except TimeoutError as error:
            raise _idle("sent", idle_seconds) from error
        if message is None:
            return
        yield message


async def write_with_deadline(context: Writable, message: object, idle_seconds: float) -> None:
    """Send a message; raise StreamIdle when the client does not take it for `idle_seconds`."""
    try:
        async with asyncio.timeout(idle_seconds):
            await context.write(message)
    except TimeoutError as error:
        raise _idle("taken", idle_seconds) from error


def _idle(what: str, idle_seconds: float) -> StreamIdle:
    return StreamIdle(
        f"nothing was {what} for {idle_seconds:g} seconds; continue on another stream", idle_seconds=idle_seconds
    )
