"""When to try again and when to give up. Pure but for the clock and the sleep that it is given."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from lading._errors import LadingError, OutcomeUnknown

T = TypeVar("T")

# A server that answers INTERNAL again and again has a bug; it is told after some seconds, not after two minutes.
_UNKNOWN_OUTCOMES_IN_A_ROW = 6


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long.

    Args:
        retry_seconds: Give up when there was no progress for so long. A restart of a server takes a few seconds,
            a failing-over database up to a minute.
        first_seconds: The upper bound of the first pause; it doubles with each.
        longest_seconds: The upper bound of any pause.
        clock: Seconds that never go back.
        sleep: Pauses for so many seconds.
        jitter: A number from 0 to 1: pauses are that part of their upper bound ("full jitter"), so that many clients
            of one restarted server do not come back at the same moment.
    """

    retry_seconds: float = 120.0
    first_seconds: float = 0.1
    longest_seconds: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    def start(self) -> Attempts:
        """Return the count for something that is about to be tried."""
        return Attempts(self)

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await `attempt()` until it returns; raise its error when that is not worth repeating, or no longer."""
        attempts = self.start()
        while True:
            try:
                return await attempt()
            except LadingError as error:
                await attempts.pause(error)


class Attempts:
    """How often something failed since it last made progress."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._unknown_outcomes = 0
        self._progress_at = policy.clock()

    def progress(self) -> None:
        """Forget the failures: something new was achieved."""
        self._failures = 0
        self._unknown_outcomes = 0
        self._progress_at = self._policy.clock()

    async def pause(self, error: LadingError) -> None:
        """Sleep before the next try, or raise `error` when there should be none.

        Where the server said after how long trying again may help, at least for so long.
        """
        if not error.retryable:
            raise error
        self._unknown_outcomes += isinstance(error, OutcomeUnknown)
        waited_seconds = self._policy.clock() - self._progress_at
        if waited_seconds >= self._policy.retry_seconds or self._unknown_outcomes > _UNKNOWN_OUTCOMES_IN_A_ROW:
            raise error
        told_seconds = error.retry_seconds or 0.0
        if told_seconds and waited_seconds + told_seconds >= self._policy.retry_seconds:
            raise error
        bound_seconds = min(self._policy.longest_seconds, self._policy.first_seconds * 2.0**self._failures)
        self._failures += 1
        # Never before the server said; and not all at the moment that it said to all of them.
        await self._policy.sleep(told_seconds + bound_seconds * self._policy.jitter())
