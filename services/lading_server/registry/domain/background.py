"""What the registry does by itself: commits resumed, pins released, old requests forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lading_server.common.errors import Draining
from lading_server.common.pins import ContentPins
from lading_server.common.registry_errors import IngestUnavailable
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.commits import Commits
from lading_server.registry.store.pending import PendingRows

_log = logging.getLogger(__name__)

# A commit of this age, which this process is not at, was left by one that ended or lost its database.
_STALE_SECONDS = 300.0
# The protocol says a day at least.
_REQUEST_SECONDS = 2 * 86_400.0
# Rows at a time, so that the writer is never held for long.
_BATCH = 500


class Repeated:
    """Runs one piece of work again and again until closing begins; where it fails, with backoff.

    Work that was woken runs at once, and once more if it was woken while it ran.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        closing: Closing,
        *,
        period_seconds: float,
        first_retry_seconds: float = 1.0,
    ) -> None:
        self._name = name
        self._work = work
        self._closing = closing
        self._period_seconds = period_seconds
        self._first_retry_seconds = first_retry_seconds
        self._woken = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=name)

    def wake(self) -> None:
        """Have the work done now, unless it failed and waits before it tries again."""
        self._woken.set()

    async def close(self) -> None:
        """Wait for the end of the work at hand. Closing must have begun."""
        await self._task

    async def _run(self) -> None:
        retry_seconds = self._first_retry_seconds
        while not self._closing.started:
            self._woken.clear()
            try:
                await self._work()
            except Draining:
                return
            except Exception as error:  # noqa: BLE001 - logged, and tried again
                is_expected = isinstance(error, IngestUnavailable)
                _log.warning("%s: %s; trying again", self._name, error, exc_info=None if is_expected else error)
                await self._closing.wait(retry_seconds)
                retry_seconds = min(2 * retry_seconds, self._period_seconds)
            else:
                retry_seconds = self._first_retry_seconds
                await self._rest()

    async def _rest(self) -> None:
        waits = [
            asyncio.ensure_future(self._woken.wait()),
            asyncio.ensure_future(self._closing.wait(self._period_seconds)),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


class CommitRecovery:
    """Resumes commits that nobody is at: at first of any age, later those that are stale."""

    def __init__(self, commits: Commits, pending: PendingRows) -> None:
        self._commits = commits
        self._pending = pending
        self._min_age_seconds = 0.0

    async def run(self) -> None:
        """Resume what there is. Raises IngestUnavailable when there is more, to be tried again."""
        failed: Exception | None = None
        for one in await self._pending.commits(self._min_age_seconds):
            if one.uid in self._commits.in_flight:
                continue
            try:
                await self._commits.resume(one)
            except Draining:
                raise
            except Exception as error:  # noqa: BLE001 - raised when the others had their turn
                failed = error
        if failed is not None:
            raise failed
        self._min_age_seconds = _STALE_SECONDS


class PinReleases:
    """Tells ingest of pins that are not needed, until it acknowledges."""

    def __init__(self, pins: ContentPins, pending: PendingRows, closing: Closing) -> None:
        self._pins = pins
        self._pending = pending
        self._closing = closing

    async def run(self) -> None:
        """Release what there is to release. Raises what came last of what went wrong, when all had their turn."""
        failed: Exception | None = None
        last = b""
        while batch := await self._pending.releases(last, _BATCH):
            last = batch[-1].uid
            for one in batch:
                try:
                    await self._closing.unless(self._pins.release(one.entity, one.uid))
                    await self._pending.released(one.uid)
                except (Draining, IngestUnavailable):
                    raise
                except Exception as error:  # noqa: BLE001 - raised when the others had their turn
                    failed = error
        if failed is not None:
            raise failed


class RequestSweep:
    """Forgets what requests came to that nobody will send again."""

    def __init__(self, pending: PendingRows) -> None:
        self._pending = pending

    async def run(self) -> None:
        """Forget what is old enough."""
        while await self._pending.sweep_requests(_REQUEST_SECONDS, _BATCH):
            continue
