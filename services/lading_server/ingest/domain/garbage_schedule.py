"""Collects garbage by itself: once a period, and with backoff when that fails."""

from __future__ import annotations

import asyncio
import logging

from lading_server.common.drain import Drain
from lading_server.common.errors import CollectionRunning, Draining
from lading_server.common.registry_errors import RegistryUnavailable
from lading_server.ingest.domain.garbage import EntityOutcome, Garbage, Progress

_log = logging.getLogger(__name__)

# A registry that was just restarted is there again by then.
_FIRST_RETRY_SECONDS = 60.0


class GarbageSchedule:
    """Runs until a drain begins, or it is closed. The first run is a period after the start."""

    def __init__(self, garbage: Garbage, drain: Drain, period_seconds: float) -> None:
        self._garbage = garbage
        self._period_seconds = period_seconds
        self._ending = asyncio.Event()
        self._forget = drain.watch(self._ending.set)
        self._task = asyncio.create_task(self._run(), name="garbage")

    async def close(self) -> None:
        """End at once: a run that is at it is cut short, as a crash would."""
        self._forget()
        self._ending.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        rest_seconds = self._period_seconds
        retry_seconds = min(_FIRST_RETRY_SECONDS, self._period_seconds)
        while not await self._ends_within(rest_seconds):
            rest_seconds = self._period_seconds
            try:
                await self._garbage.run(_tell_nobody)
                retry_seconds = min(_FIRST_RETRY_SECONDS, self._period_seconds)
            except Draining:
                return
            except CollectionRunning:
                _log.info("garbage is being collected by somebody else")
            except Exception as error:  # noqa: BLE001 - logged, and tried again
                is_expected = isinstance(error, RegistryUnavailable)
                _log.warning(
                    "collecting garbage: %s; trying again in %g seconds",
                    error,
                    retry_seconds,
                    exc_info=None if is_expected else error,
                )
                rest_seconds, retry_seconds = retry_seconds, min(2 * retry_seconds, self._period_seconds)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True


async def _tell_nobody(event: Progress | EntityOutcome) -> None:
    """What a run comes to is in the log, the metrics and the note of the last run."""
