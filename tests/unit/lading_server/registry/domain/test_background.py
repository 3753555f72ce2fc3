"""Work in the background: repeated, tried again, and ended when it suits."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lading_server.common.errors import Draining
from lading_server.common.registry_errors import IngestUnavailable
from lading_server.registry.domain.background import Repeated
from lading_server.registry.domain.closing import Closing

# Never reached: what is waited for comes before.
_LONG = 3600.0


class Work:
    """Counts its runs; each ends as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.runs = 0
        self._failures = list(failures)
        self._ran = asyncio.Condition()

    async def run(self) -> None:
        async with self._ran:
            self.runs += 1
            self._ran.notify_all()
        if self._failures:
            raise self._failures.pop(0)

    async def until(self, runs: int) -> None:
        async with asyncio.timeout(30), self._ran:
            await self._ran.wait_for(lambda: self.runs >= runs)


async def test_work_runs_at_once_and_again_when_it_is_woken() -> None:
    work, closing = Work(), Closing()
    repeated = Repeated("work", work.run, closing, period_seconds=_LONG)
    await work.until(1)
    repeated.wake()
    await work.until(2)
    closing.begin()
    await repeated.close()
    assert work.runs == 2


async def test_work_that_failed_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    work, closing = Work(IngestUnavailable("gone"), RuntimeError("a mistake")), Closing()
    with caplog.at_level(logging.WARNING):
        repeated = Repeated("work", work.run, closing, period_seconds=_LONG, first_retry_seconds=0.0)
        await work.until(3)
    closing.begin()
    await repeated.close()
    expected, unexpected = caplog.records
    assert (expected.exc_info, "gone" in expected.message) == (None, True)
    assert unexpected.exc_info is not None


async def test_work_that_waits_before_it_is_tried_again_ends_at_once() -> None:
    work, closing = Work(IngestUnavailable("gone")), Closing()
    repeated = Repeated("work", work.run, closing, period_seconds=_LONG, first_retry_seconds=_LONG)
    await work.until(1)
    closing.begin()
    async with asyncio.timeout(30):
        await repeated.close()


async def test_what_is_done_before_closing_begins_has_its_result() -> None:
    async def answer() -> int:
        return 7

    async def fail() -> int:
        raise RuntimeError("a mistake")

    closing = Closing()
    assert await closing.unless(answer()) == 7
    with pytest.raises(RuntimeError):
        await closing.unless(fail())


async def test_what_hangs_is_cancelled_when_closing_begins() -> None:
    hanging, cancelled = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    closing = Closing()
    waiting = asyncio.create_task(closing.unless(hang()))
    await hanging.wait()
    closing.begin()
    with pytest.raises(Draining):
        await waiting
    assert cancelled.is_set()
