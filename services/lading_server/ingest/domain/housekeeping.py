"""Forgets what lapsed: sessions and uploads that nobody continues."""

from __future__ import annotations

import asyncio
import logging

from lading_server.ingest.index.store import ContentIndex

_log = logging.getLogger(__name__)

# Rows removed in one transaction, so that a sweep never holds the writer for long.
_SWEEP_ROWS = 1000


class Housekeeping:
    """Sweeps once a period, until closed. A sweep that fails is logged and tried again."""

    def __init__(self, index: ContentIndex, *, period_seconds: float, upload_idle_seconds: float) -> None:
        self._index = index
        self._period_seconds = period_seconds
        self._upload_idle_seconds = upload_idle_seconds
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="housekeeping")

    async def sweep(self) -> int:
        """Remove what lapsed, and return how many rows that were."""
        removed = 0
        while (count := await self._index.sessions.sweep(_SWEEP_ROWS)) > 0:
            removed += count
        while (count := await self._index.uploads.sweep(self._upload_idle_seconds, _SWEEP_ROWS)) > 0:
            removed += count
        return removed

    async def close(self) -> None:
        """Stop after the sweep at hand."""
        self._closing.set()
        await self._task

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                await self.sweep()
            except Exception:  # noqa: BLE001 - logged with its traceback, and tried again
                _log.exception("a sweep of lapsed sessions and uploads failed; trying again later")
            try:
                async with asyncio.timeout(self._period_seconds):
                    await self._closing.wait()
            except TimeoutError:
                continue
