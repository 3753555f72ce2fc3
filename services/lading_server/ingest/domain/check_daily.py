"""The check that a server makes by itself: so many bytes a day, spread over the day."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing

from lading_server.ingest.domain.check import Checker, CheckRequest
from lading_server.ingest.domain.check_findings import Finding, HurtVersion, Level, Summary
from lading_server.ingest.index.notes import Notes

_log = logging.getLogger(__name__)

_DAY_SECONDS = 86_400.0
# How long to wait after something failed.
_AGAIN_SECONDS = 600.0
# Between two steps that read only rows: they cost no bytes, and have no hurry.
_ROWS_SECONDS = 0.05
_NOTE = "check-daily"


class DailyCheck:
    """Checks at level 4, at a rate, until closed. A check that is through begins anew the next day.

    Goes on where it was after a restart. A crash or a stop repeats one step at most.
    """

    def __init__(
        self,
        checker: Checker,
        notes: Notes,
        bytes_per_day: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`bytes_per_day` is more than 0. `clock` tells seconds since 1970."""
        self._checker = checker
        self._notes = notes
        self._bytes_per_second = bytes_per_day / _DAY_SECONDS
        self._clock = clock
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="daily-check")

    async def close(self) -> None:
        """Stop after the step at hand."""
        self._closing.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                await self._wait(await self._due_in())
                await self._check()
            except Exception:  # noqa: BLE001 - logged with its traceback, and tried again
                _log.exception("the daily check failed; trying again later")
                await self._wait(_AGAIN_SECONDS)

    async def _due_in(self) -> float:
        """Return how long to wait: a check that came to its end is made again a day after it began."""
        note = await self._notes.read(_NOTE)
        if note.get("ended"):
            passed = self._clock() - float(note["began"])
            # A clock that was set back must not put it off for long.
            return min(max(_DAY_SECONDS - passed, 0.0), _DAY_SECONDS)
        return 0.0

    async def _check(self) -> None:
        note = await self._notes.read(_NOTE)
        began = self._clock() if not note or note.get("ended") else float(note["began"])
        await self._notes.write(_NOTE, {"began": began, "ended": False})
        request = CheckRequest(Level.DIGESTS, name="daily")
        async with aclosing(self._checker.run(request, self._pace)) as events:
            async for event in events:
                if isinstance(event, Finding):
                    _log.error("daily check: %s", event.message)
                elif isinstance(event, HurtVersion):
                    _log.error(
                        "daily check: version %s of entity %s needs what is lost: %d files",
                        *(event.version_uid.hex(), event.entity, event.damaged_files),
                    )
                elif isinstance(event, Summary):
                    _log.info("daily check: through, with %d findings, %d losses", event.findings, event.losses)
        await self._notes.write(_NOTE, {"began": began, "ended": True})

    async def _pace(self, bytes_read: int) -> None:
        await self._wait(max(bytes_read / self._bytes_per_second, _ROWS_SECONDS))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
