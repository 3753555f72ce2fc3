"""Says in the background that a run lives, and sends what it measured and what it set."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from lading._errors import InvalidArgument, LadingError
from lading._retry import RetryPolicy
from lading._run.calls import RunCalls
from lading._run.fields import Fields
from lading._run.metrics import MetricBuffer

_LOG = logging.getLogger("lading")

# A person who watches a curve sees it grow; a loop that logs a thousand points a second makes one call of them.
_FLUSH_SECONDS = 1.0
FLUSH_POINTS = 1000
"""How many points are sent at once, and at how many the next second is not waited for."""


class Recorder:
    """The background half of a run. Started and stopped once, on one event loop.

    Attributes:
        refused: What was refused for good, in the order in which it was, and what ended a task in the background that
            should have gone on. The rest is tried again.
    """

    def __init__(
        self, calls: RunCalls, metrics: MetricBuffer, config: Fields, summary: Fields, heartbeat_seconds: float
    ) -> None:
        self._calls = calls
        self._metrics = metrics
        self._config = config
        self._summary = summary
        self._heartbeat_seconds = heartbeat_seconds
        self._full = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self.refused: list[LadingError] = []
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._flush_again_and_again())]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    def wake(self) -> None:
        """Send what waits without waiting for the next second. From any thread."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._full.set)

    async def stop(self) -> None:
        """End what runs in the background. What waits goes on waiting: `flush` sends it.

        Raises nothing of what ended it before: that is in `refused`, and the run still has to be ended.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def flush(self, policy: RetryPolicy | None = None) -> None:
        """Send all that waits.

        Raises:
            LadingError: The server cannot be reached, or does not let us. What was not sent waits.
        """
        await self._flush_fields(policy)
        while rows := self._metrics.take(FLUSH_POINTS):
            try:
                await self._calls.log_metrics(rows, policy)
            except InvalidArgument as error:
                self._refuse(error)
            except BaseException:
                self._metrics.put_back(rows)
                raise

    async def _flush_fields(self, policy: RetryPolicy | None) -> None:
        config, summary = self._config.take_changes(), self._summary.take_changes()
        if not config and not summary:
            return
        try:
            await self._calls.update(config, summary, policy)
        except InvalidArgument as error:
            self._refuse(error)
        except BaseException:
            self._config.put_back(config)
            self._summary.put_back(summary)
            raise

    def _refuse(self, error: LadingError) -> None:
        _LOG.warning("what the run said was refused: %s", error)
        self.refused.append(error)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Note what ended a task, if it was not `stop`. Both of them foresee every LadingError."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        _LOG.error("a task in the background of a run ended by a defect", exc_info=error)
        noted = LadingError(
            f"A task in the background ended by a defect of this SDK: {error!r}. What it would have sent is sent at "
            "the end of the run. Please report it."
        )
        noted.__cause__ = error
        self.refused.append(noted)

    async def _flush_again_and_again(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._full.wait()
            self._woken = False
            self._full.clear()
            try:
                await self.flush()
            except LadingError as error:
                _LOG.warning("measurements wait for the server: %s", error)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            try:
                await self._calls.heartbeat()
            except LadingError as error:
                _LOG.warning("the run could not say that it lives: %s", error)
