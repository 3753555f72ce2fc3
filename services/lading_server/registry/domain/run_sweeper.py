"""Finds runs that stopped beating."""

from __future__ import annotations

import asyncio
import logging

from lading_server.common.callers import Caller
from lading_server.common.settings import Settings
from lading_server.registry.store.schema import RunState
from lading_server.registry.store.store import RegistryStore

_log = logging.getLogger(__name__)

ACTOR = "server"
"""Who events say marked a run as crashed."""
# Runs marked in one change, so that a sweep never holds the writer for long.
_SWEEP_RUNS = 500
# A run is found at most this long after its time, and a short timeout is looked at as often as it lasts.
_MOST_PERIOD_SECONDS = 30.0


class RunSweeper:
    """Marks silent runs as crashed, once a period, until closed. A sweep that fails is logged and tried again.

    It first waits for as long as a run may be silent: while the server was not there no run could be heard.
    """

    def __init__(self, settings: Settings, store: RegistryStore) -> None:
        self._store = store
        self._timeout_seconds = settings.run_timeout_seconds
        self._period_seconds = min(settings.run_timeout_seconds / 3, _MOST_PERIOD_SECONDS)
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="run-sweeper")

    async def sweep(self) -> int:
        """Mark what is silent now, and return how many runs that were."""
        before_ms = self._store.now_ms() - int(self._timeout_seconds * 1000)
        async with self._store.database.read() as connection:
            entities = await self._store.runs.entities_with_silent_runs(connection, before_ms)
        marked = 0
        for entity in entities:
            while (count := await self._mark(Caller(entity, ACTOR), before_ms)) > 0:
                marked += count
        return marked

    async def close(self) -> None:
        """Stop after the sweep at hand."""
        self._closing.set()
        await self._task

    async def _mark(self, caller: Caller, before_ms: int) -> int:
        async with self._store.change(caller) as change:
            silent = await self._store.runs.mark_crashed(change, before_ms, _SWEEP_RUNS)
            for run in silent:
                change.add_event(
                    "run.crashed",
                    run.project,
                    run=run.run,
                    before={"state": RunState.RUNNING.value},
                    after={"state": RunState.CRASHED.value, "heartbeat_at_ms": run.heartbeat_at_ms},
                )
        return len(silent)

    async def _run(self) -> None:
        await self._closed_within(self._timeout_seconds)
        while not self._closing.is_set():
            try:
                await self.sweep()
            except Exception:  # noqa: BLE001 - logged with its traceback, and tried again
                _log.exception("a sweep of silent runs failed; trying again later")
            await self._closed_within(self._period_seconds)

    async def _closed_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return
