"""A few threads of one transfer, which end with it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Hashing and disk release the GIL, but each thread also holds some megabytes; more than four gained nothing.
_THREADS_AT_MOST = 4


class Threads:
    """Runs functions in threads. A context manager: on leaving, what runs is told to stop and waited for.

    Attributes:
        stop: Set on leaving. Functions that take long look at it.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.count = max(2, min(_THREADS_AT_MOST, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="lading")

    def __enter__(self) -> Threads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread and return what it returns.

        A cancellation waits for a function that runs: whoever cancels may close what the function works on.
        """
        job = self._pool.submit(function, *args, **kwargs)
        ended = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not job.cancel():
                self.stop.set()
                await _wait_for(ended)
            raise


async def _wait_for(ended: asyncio.Future[T]) -> None:
    """Wait for a future, whatever it brings and however often the task is cancelled meanwhile."""
    while not ended.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ended])
    if not ended.cancelled():
        ended.exception()
