"""A check of the store, from its first phase to its last: how far it is, and how it goes on from there."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from lading_server.common.errors import CheckRunning
from lading_server.common.metrics import Metrics
from lading_server.ingest.domain.check_bytes import ContentVerifier
from lading_server.ingest.domain.check_findings import (
    CheckEvent,
    HurtVersion,
    Level,
    Progress,
    Step,
    Summary,
)
from lading_server.ingest.domain.check_packs import PackChecks
from lading_server.ingest.domain.check_rows import RowChecks
from lading_server.ingest.domain.check_versions import HurtVersions
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.recipes import SpanReader
from lading_server.ingest.domain.tree_reader import TreeReader
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.checks import Tenant
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.storage import PackStorage

_TENANTS_AT_ONCE = 100
# Progress is told, and the place is remembered, so often. A crash repeats at most this much and the step at hand.
_TELL_SECONDS = 0.25
_REMEMBER_SECONDS = 2.0

_OfTenant = Callable[[Tenant, bytes], AsyncGenerator[Step, None]]


class CheckRequest(NamedTuple):
    """What to check. `name` tells checks apart that go on by themselves; `max_bytes` of 0 is no limit."""

    level: Level
    restart: bool = False
    only_entity: str = ""
    max_bytes: int = 0
    name: str = ""

    @property
    def note(self) -> str:
        """What its place is remembered under."""
        return f"check:{self.name}:{int(self.level)}:{self.only_entity}"


class _Phase(NamedTuple):
    """A part of a check: its steps from a position on."""

    name: str
    steps: Callable[[list[str]], AsyncGenerator[Step, None]]


@dataclass
class _Run:
    """One check on its way: the phase and position that come next, and what came of it so far."""

    phase: int
    position: list[str]
    summary: Summary

    @classmethod
    def of(cls, note: dict[str, Any]) -> _Run:
        """Return a check as it was remembered, or a new one."""
        return cls(note.get("phase", 0), note.get("position", []), Summary(**note.get("summary", {})))

    def note(self) -> dict[str, Any]:
        """Return what to remember."""
        return {"phase": self.phase, "position": self.position, "summary": asdict(self.summary)}

    def add(self, step: Step) -> None:
        """Count a step, and go on behind it."""
        self.position = step.position
        self.summary.items_done += step.items
        self.summary.bytes_done += step.bytes_read
        self.summary.healed += step.healed
        self.summary.findings += len(step.findings)
        self.summary.losses += sum(finding.is_loss for finding in step.findings)


class Checker:
    """Runs checks. Beside uploads, reads and collections; one of each kind at a time."""

    def __init__(
        self,
        index: ContentIndex,
        storage: PackStorage,
        workers: Workers,
        losses: Losses,
        spans: SpanReader,
        trees: TreeReader,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` tells seconds since 1970."""
        verifier = ContentVerifier(index, spans, trees, workers)
        self._index = index
        self._rows = RowChecks(index, verifier)
        self._packs = PackChecks(index, storage, workers, losses, clock)
        self._bytes = verifier
        self._versions = HurtVersions(index, trees, workers)
        self._metrics = metrics
        self._clock = clock
        self._running: set[str] = set()

    async def run(
        self, request: CheckRequest, pace: Callable[[int], Awaitable[None]] | None = None
    ) -> AsyncGenerator[CheckEvent, None]:
        """Check, from where an earlier check of this kind stopped; yield what is found, and a summary at the end.

        Args:
            request: What to check.
            pace: Awaited after each step with the bytes that were read for it.

        Raises:
            CheckRunning: A check of this kind runs.
        """
        if request.note in self._running:
            raise CheckRunning("this check runs already; wait for its end, or stop that call")
        self._running.add(request.note)
        try:
            run = _Run.of({} if request.restart else await self._index.notes.read(request.note))
            if request.restart:
                await self._index.notes.write(request.note, run.note())
            async with aclosing(self._phases_of(request, run, pace)) as events:
                async for event in events:
                    yield event
        finally:
            self._running.discard(request.note)

    async def _phases_of(
        self, request: CheckRequest, run: _Run, pace: Callable[[int], Awaitable[None]] | None
    ) -> AsyncGenerator[CheckEvent, None]:
        phases = self._phases(request)
        bytes_total = await self._bytes_total(request)
        began_bytes = run.summary.bytes_done
        told = remembered = self._clock()
        while run.phase < len(phases):
            phase = phases[run.phase]
            async with aclosing(phase.steps(run.position)) as steps:
                async for step in steps:
                    self._count(run, step)
                    for finding in step.findings:
                        yield finding
                    now = self._clock()
                    is_enough = 0 < request.max_bytes <= run.summary.bytes_done - began_bytes
                    if step.findings or is_enough or not 0 <= now - remembered < _REMEMBER_SECONDS:
                        await self._index.notes.write(request.note, run.note())
                        remembered = now
                    if is_enough:
                        yield run.summary
                        return
                    if not 0 <= now - told < _TELL_SECONDS:
                        yield Progress(phase.name, run.summary.items_done, run.summary.bytes_done, bytes_total)
                        told = now
                    if pace is not None:
                        await pace(step.bytes_read)
            run.phase, run.position = run.phase + 1, []
        yield Progress("versions", run.summary.items_done, run.summary.bytes_done, bytes_total)
        async for version in self._hurt(request.only_entity):
            run.summary.hurt_versions += 1
            yield version
        run.summary.complete = True
        await self._index.notes.write(request.note, {})
        yield run.summary

    def _count(self, run: _Run, step: Step) -> None:
        run.add(step)
        self._metrics.checked(step.bytes_read)
        for finding in step.findings:
            self._metrics.check_found(finding.kind.value)

    def _phases(self, request: CheckRequest) -> list[_Phase]:
        level, only = request.level, request.only_entity
        of_tenants: list[tuple[str, _OfTenant]] = [
            ("chunks", self._rows.chunks),
            ("blobs", self._rows.blobs),
            ("trees", self._rows.trees),
            ("pins", self._rows.pins),
            ("uploads", self._rows.uploads),
            ("usage", self._rows.usage),
        ]
        phases = [_Phase(name, partial(self._of_tenants, only, steps)) for name, steps in of_tenants]
        if level >= Level.PACKS:
            phases.append(_Phase("packs", partial(self._of_packs, level, only)))
            if not only:
                phases.append(_Phase("files", self._of_files))
        if level >= Level.DIGESTS:
            phases.append(_Phase("blob bytes", partial(self._of_tenants, only, self._bytes.blobs)))
            phases.append(_Phase("tree bytes", partial(self._of_tenants, only, self._bytes.trees_of)))
        return phases

    async def _of_tenants(self, only: str, steps: _OfTenant, position: list[str]) -> AsyncGenerator[Step, None]:
        """Yield the steps of all tenants, the one after the other; a position begins with the tenant's number."""
        number = int(position[0]) if position else 0
        after = bytes.fromhex(position[1]) if len(position) > 1 else b""
        # The one that the position is in comes again.
        last = number - 1
        while tenants := await self._index.checks.tenants(last, only, _TENANTS_AT_ONCE):
            for tenant in tenants:
                async with aclosing(steps(tenant, after if tenant.id == number else b"")) as found:
                    async for step in found:
                        step.position = [str(tenant.id), *step.position]
                        yield step
            last = tenants[-1].id

    async def _of_packs(self, level: Level, only: str, position: list[str]) -> AsyncGenerator[Step, None]:
        async with aclosing(self._packs.packs(level, only, bytes.fromhex(position[0]) if position else b"")) as found:
            async for step in found:
                yield step

    async def _of_files(self, _position: list[str]) -> AsyncGenerator[Step, None]:
        async with aclosing(self._packs.files()) as found:
            async for step in found:
                yield step

    async def _hurt(self, only: str) -> AsyncIterator[HurtVersion]:
        last = 0
        while tenants := await self._index.checks.tenants(last, only, _TENANTS_AT_ONCE):
            for tenant in tenants:
                async for version in self._versions.of(tenant):
                    yield version
            last = tenants[-1].id

    async def _bytes_total(self, request: CheckRequest) -> int:
        if request.level < Level.CHECKSUMS:
            return 0
        total = await self._index.checks.bytes_in_packs(request.only_entity)
        if request.level >= Level.DIGESTS:
            total += await self._index.checks.bytes_of_recipes(request.only_entity)
        return total
