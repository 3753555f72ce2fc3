"""The threads that blocking work runs in: hashing and pack files, all of which release the GIL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A bounded pool of threads. Work that was begun is always finished, even if nobody waits for it any more."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="lading-worker")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in a thread and return what it returns, or raise what it raises.

        A cancelled caller stops waiting only when the function has ended: a pack that is half-way through an append
        must not be handed to another stream.
        """
        future = self._executor.submit(function, *args, **kwargs)
        wrapped = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(wrapped)
        except asyncio.CancelledError:
            await asyncio.wait([wrapped])
            if not wrapped.cancelled():
                wrapped.exception()  # marks it as seen: the caller is gone
            raise

    def close(self) -> None:
        """Wait for the work at hand and end the threads."""
        self._executor.shutdown(wait=True)
