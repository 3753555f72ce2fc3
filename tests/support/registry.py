"""A registry to test with, on either database, over an ingest that keeps its promises in memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lading_server.common.callers import Caller
from lading_server.common.errors import TreeNotFound
from lading_server.common.pins import PinnedTree
from lading_server.common.registry_errors import PinConflict, PinReleased
from lading_server.common.settings import Settings
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.commit_request import CommitRequest
from lading_server.registry.domain.outcomes import Outcome
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Link, Unlink
from lading_server.registry.domain.registry import Registry, run_registry
from lading_server.registry.store.entities import ensure_project
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import RunState, events, runs
from lading_server.registry.store.store import RegistryStore
from tests.support.index import FakeClock, database_url

ANN = Caller("acme", "ann")
# Far more than anything takes here; what never comes is a failure of the test.
PATIENCE_SECONDS = 30.0


class PinsInMemory:
    """Promises as ingest makes them: one tree for a version, never again after its release.

    Attributes:
        pinned: The tree of each version that has a pin.
        released: The versions whose pin can never be had again.
        failure: Raised by every call while it is set, in place of an answer.
        open: While it is cleared, calls that came do nothing.
        answers: While it is cleared, calls do what they should and do not end.
    """

    def __init__(self) -> None:
        self.trees: dict[bytes, PinnedTree] = {}
        self.pinned: dict[bytes, bytes] = {}
        self.released: set[bytes] = set()
        self.failure: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.calls = 0
        self._came = asyncio.Condition()

    def new_tree(self) -> bytes:
        """Return the digest of a tree that ingest has from now on."""
        digest = os.urandom(32)
        self.trees[digest] = PinnedTree(file_count=3, reference_count=1, size_bytes=4096)
        return digest

    def of_another_process(self) -> PinsInMemory:
        """Return the same ingest, as another process has it: it is called, held and told to fail apart."""
        other = PinsInMemory()
        other.trees, other.pinned, other.released = self.trees, self.pinned, self.released
        return other

    async def until_called(self, calls: int) -> None:
        """Return when so many calls came, ended or not."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._came:
            await self._came.wait_for(lambda: self.calls >= calls)

    async def acquire(self, entity: str, version_uid: bytes, tree_digest: bytes) -> PinnedTree:
        await self._come()
        if version_uid in self.released:
            raise PinReleased("released before")
        if self.pinned.get(version_uid, tree_digest) != tree_digest:
            raise PinConflict("on another tree")
        if tree_digest not in self.trees:
            raise TreeNotFound("no such tree; upload it")
        self.pinned[version_uid] = tree_digest
        await self.answers.wait()
        return self.trees[tree_digest]

    async def release(self, entity: str, version_uid: bytes) -> None:
        await self._come()
        self.pinned.pop(version_uid, None)
        self.released.add(version_uid)

    async def _come(self) -> None:
        async with self._came:
            self.calls += 1
            self._came.notify_all()
        await self.open.wait()
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def opened_registry(
    kind: str, directory: Path, pins: PinsInMemory, clock: FakeClock | None = None, **settings: Any
) -> AsyncIterator[Registry]:
    """Give a registry over an empty database."""
    async with database_url(kind, directory) as url, registry_at(url, pins, clock, **settings) as registry:
        yield registry


@asynccontextmanager
async def registry_at(
    url: str, pins: PinsInMemory, clock: FakeClock | None = None, **settings: Any
) -> AsyncIterator[Registry]:
    """Give a registry over a database that may hold something."""
    store = await RegistryStore.open(url, clock=clock or FakeClock())
    try:
        async with run_registry(Settings(**settings), store, pins) as registry:
            yield registry
    finally:
        await store.close()


async def commit(
    registry: Registry, tree: bytes, name: str = "digits", *, caller: Caller = ANN, type_: str = "dataset", **more: Any
) -> Outcome:
    """Commit a tree to a collection of the project `vision`."""
    return await registry.commits.commit(caller, CommitRequest("vision", name, type_, tree, **more))


async def get(registry: Registry, reference: str, caller: Caller = ANN) -> VersionRow:
    """Resolve a reference."""
    return await registry.versions.get(caller, reference_of(caller, reference))


async def set_aliases(registry: Registry, reference: str, *aliases: str | AliasChange) -> VersionRow:
    """Change aliases of a version; those given as text are set."""
    changes = tuple(AliasChange(alias) if isinstance(alias, str) else alias for alias in aliases)
    (outcome,) = await registry.refs.update(ANN, [ChangeAliases(reference_of(ANN, reference), changes)])
    return outcome.version


async def link(registry: Registry, source: str, portfolio: str = "Digit Reader", *aliases: str) -> Outcome:
    """Link a version."""
    changes = tuple(AliasChange(alias) for alias in aliases)
    (outcome,) = await registry.refs.update(ANN, [Link(reference_of(ANN, source), portfolio, changes)])
    return outcome


async def unlink(registry: Registry, reference: str, *, force: bool = False) -> VersionRow:
    """Take a link away."""
    (outcome,) = await registry.refs.update(ANN, [Unlink(reference_of(ANN, reference), force)])
    return outcome.version


async def add_run(registry: Registry, name: str = "run-1", caller: Caller = ANN) -> str:
    """Make a run that runs, and return its name."""
    async with registry.store.change(caller) as change:
        project_id = await ensure_project(change, "vision")
        new = sa.insert(runs).values(
            entity_id=change.entity_id,
            project_id=project_id,
            name=name,
            display_name=name,
            job_type="train",
            state=RunState.RUNNING.value,
            config="{}",
            summary="{}",
            created_at_ms=change.now_ms,
            heartbeat_at_ms=change.now_ms,
            created_by=caller.principal,
        )
        await change.connection.execute(new)
    return name


async def rows(registry: Registry, query: sa.Select[Any]) -> list[Any]:
    """Return what is in the database."""
    async with registry.store.database.read() as connection:
        return list((await connection.execute(query)).all())


async def count(registry: Registry, table: sa.Table) -> int:
    """Return how many rows a table has."""
    return int((await rows(registry, sa.select(sa.func.count()).select_from(table)))[0][0])


async def event_kinds(registry: Registry) -> list[str]:
    """Return what happened, in order."""
    return [row.kind for row in await rows(registry, sa.select(events.c.kind).order_by(events.c.revision))]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when a question to the database is answered with yes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():
            continue
