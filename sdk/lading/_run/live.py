"""A run between its creation and its end: what goes on in the background, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from lading._client import Client
from lading._errors import LadingError, NotLogged
from lading._registry.models import RunInfo
from lading._retry import RetryPolicy
from lading._run.calls import RunCalls
from lading._run.recorder import Recorder
from lading._run.uploads import Snapshot, Uploads
from lading._version import Version

_LOG = logging.getLogger("lading")

# Whoever presses Ctrl-C waits for this, and not longer.
_ABANDON_SECONDS = 10.0
_HURRY = RetryPolicy(retry_seconds=5.0)

Failures = list[tuple[str, BaseException]]


class LiveRun:
    """A run that was created. Ends once, by `finish` or by `abandon`."""

    def __init__(self, client: Client, calls: RunCalls, info: RunInfo, recorder: Recorder) -> None:
        """Take a run's parts.

        Args:
            client: What artifacts go through.
            calls: What the run itself says.
            info: The run as it was created.
            recorder: What sends measurements in the background; runs already.
        """
        self._client = client
        self.calls = calls
        self.info = info
        self.recorder = recorder
        self.uploads = Uploads(self._put)

    async def finish(self, *, failed: bool) -> None:
        """Wait for what is on its way, send what waits, and end the run.

        Raises:
            NotLogged: Something did not arrive. The run counts as failed, if the server could be told.
            CancelledError: The task was cancelled meanwhile. The run is abandoned.
        """
        try:
            await self.uploads.join()
            await self.recorder.stop()
            failures: Failures = [(f"artifact {name!r}", error) for name, error in self.uploads.unseen_errors()]
            await _try_each(
                [
                    ("config, summary and metrics", lambda: self._last_flush(failures)),
                    ("the end of the run", lambda: self.calls.finish(failed=failed or bool(failures))),
                ],
                failures,
            )
        except BaseException as error:
            await self.abandon(error)
            raise
        if failures:
            raise self._not_logged(failures) from failures[0][1]

    async def abandon(self, error: BaseException) -> None:
        """Cancel what is on its way, and mark the run as failed if that can be done in seconds.

        Args:
            error: Why. Gets a note when the server could not be told.
        """
        await self.uploads.cancel()
        await self.recorder.stop()
        failures: Failures = []
        try:
            async with asyncio.timeout(_ABANDON_SECONDS):
                await _try_each(
                    [
                        ("its last metrics", lambda: self.recorder.flush(_HURRY)),
                        ("its end", lambda: self.calls.finish(failed=True, policy=_HURRY)),
                    ],
                    failures,
                )
        except TimeoutError:
            failures.append(("its end", TimeoutError("no answer in time")))
        for what, reason in failures:
            error.add_note(f"Run {self.info.run_id} could not tell the server {what}: {reason}")

    async def _last_flush(self, failures: Failures) -> None:
        """Send what waits, and note all that was refused since the run began. Raises what `Recorder.flush` does."""
        try:
            await self.recorder.flush()
        finally:
            # Only now: the server may refuse what was set just before the end.
            failures.extend(("config, summary or metrics", error) for error in self.recorder.refused)

    async def _put(self, snapshot: Snapshot) -> Version:
        artifact = snapshot.artifact
        committed = await self._client.put(
            snapshot.entries,
            f"{self.info.entity}/{self.info.project}/{artifact.name}",
            type=artifact.type,
            aliases=snapshot.aliases,
            tags=snapshot.tags,
            ttl=snapshot.ttl,
            description=snapshot.description,
            metadata=snapshot.metadata,
            run_id=self.info.run_id,
        )
        return committed.version

    def _not_logged(self, failures: Failures) -> NotLogged:
        reasons = "\n".join(f"  {what}: {error}" for what, error in failures)
        return NotLogged(f"Run {self.info.run_id} ended, and this did not arrive:\n{reasons}", failures)


async def _try_each(steps: Sequence[tuple[str, Callable[[], Awaitable[None]]]], failures: Failures) -> None:
    """Do one after the other, and note what fails. Once the server cannot be reached there is no use in going on.

    Whatever else fails, a defect of ours too, keeps nothing from the last step: without it the run would never end.
    """
    for what, step in steps:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - noted, and raised by the caller
            failures.append((what, error))
            if isinstance(error, LadingError) and error.retryable:
                return
