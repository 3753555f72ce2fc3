"""The check that a server makes by itself keeps to its budget, goes on where it was, and rests for the day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from lading_server.ingest.domain.check import CheckRequest
from lading_server.ingest.domain.check_daily import DailyCheck
from lading_server.ingest.domain.check_findings import CheckEvent, Level, Summary
from tests.support.index import FakeClock, opened_index

DAY = 86_400


class Runs:
    """A checker that notes what it is asked for, and reads `steps` bytes."""

    def __init__(self, steps: list[int]) -> None:
        self.requests: list[CheckRequest] = []
        self.paced: list[int] = []
        self.ended = asyncio.Event()
        self._steps = steps

    async def run(
        self, request: CheckRequest, pace: Callable[[int], Awaitable[None]]
    ) -> AsyncGenerator[CheckEvent, None]:
        self.requests.append(request)
        for step in self._steps:
            await pace(step)
            self.paced.append(step)
        yield Summary(complete=True)
        self.ended.set()


async def test_a_check_that_is_through_begins_anew_a_day_after_it_began(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened_index("sqlite", tmp_path, clock) as index:
        runs = Runs([100, 100])
        daily = DailyCheck(runs, index.notes, 1 << 60, clock)  # type: ignore[arg-type]
        await asyncio.wait_for(runs.ended.wait(), 30)
        while not (note := await index.notes.read("check-daily")).get("ended"):
            pass
        await daily.close()
        assert runs.requests == [CheckRequest(Level.DIGESTS, name="daily")]
        assert note["began"] == clock.seconds
        # Started again on the same day it has nothing to do, and on the next day it has.
        clock.seconds += DAY - 1
        resting = DailyCheck(Runs([]), index.notes, 1 << 60, clock)  # type: ignore[arg-type]
        assert 0 < await resting._due_in() <= 1
        await resting.close()
        clock.seconds += 1
        again = Runs([100])
        daily = DailyCheck(again, index.notes, 1 << 60, clock)  # type: ignore[arg-type]
        await asyncio.wait_for(again.ended.wait(), 30)
        await daily.close()


async def test_bytes_are_spread_over_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    async with opened_index("sqlite", tmp_path, clock) as index:
        waited: list[float] = []

        async def wait(self: DailyCheck, seconds: float) -> None:
            waited.append(seconds)

        monkeypatch.setattr(DailyCheck, "_wait", wait)
        runs = Runs([1000, 500, 0])
        # A thousand bytes an hour.
        daily = DailyCheck(runs, index.notes, 24_000, clock)  # type: ignore[arg-type]
        await asyncio.wait_for(runs.ended.wait(), 30)
        await daily.close()
        assert waited[:4] == [0.0, 3600.0, 1800.0, 0.05]


async def test_closing_does_not_wait_for_the_day_to_pass(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened_index("sqlite", tmp_path, clock) as index:
        runs = Runs([1 << 40])
        daily = DailyCheck(runs, index.notes, 1, clock)  # type: ignore[arg-type]
        while not runs.requests:
            await index.notes.read("check-daily")
        await asyncio.wait_for(daily.close(), 30)
        assert not runs.ended.is_set()
