"""Both services in this process, over one directory, with what a test needs to hurt them.

A clock that stands still, a disk that can be looked at, answers that get lost, and a crash at any moment.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import sqlalchemy as sa

import lading
from lading_server.common.access import Access
from lading_server.common.allowances import keyless_allowances
from lading_server.common.database import Database
from lading_server.common.drain import Drain
from lading_server.common.metrics import Metrics
from lading_server.common.serving import running
from lading_server.common.settings import Settings
from lading_server.ingest.component import IngestComponent, run_ingest
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.schema import PinState, blobs, chunks, packs, pins, trees
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.disk import Disk
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.storage import PackStorage
from lading_server.registry.component import RegistryComponent
from lading_server.registry.domain.access import run_access
from lading_server.registry.domain.background import CommitRecovery, PinReleases
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.kept import Kept
from lading_server.registry.domain.purging import Purging
from lading_server.registry.domain.registry import Registry, run_registry
from lading_server.registry.service.retention import RetentionServicer
from lading_server.registry.service.servicer import RegistryServicer
from lading_server.registry.store.store import RegistryStore
from tests.support.disks import SyncedDisk
from tests.support.index import FakeClock
from tests.support.wire_faults import FaultyComponent, Sent, WireFaults

DATABASES = ("registry.db", "ingest.db")


@dataclass
class Running:
    """One run of the two services."""

    target: str
    ingest: Ingest
    registry: Registry
    database: Database
    client: lading.Client
    releases: PinReleases
    purging: Purging
    recovery: CommitRecovery

    async def settle(self) -> None:
        """Do now what the registry does by itself within a minute: purge what is due, tell ingest of it, and so on."""
        await self.recovery.run()
        await self.purging.run()
        await self.releases.run()

    async def send_again(self, sent: Sent) -> grpc.StatusCode:
        """Send a call that was made before once more; return the status."""
        async with grpc.aio.insecure_channel(self.target) as channel:
            call: grpc.aio.UnaryUnaryCall[bytes, bytes] = channel.unary_unary(sent.method, _same, _same)(sent.request)
            return await call.code()


def _same(message: bytes) -> bytes:
    return message


@asynccontextmanager
async def running_pair(
    data: Path,
    settings: Settings,
    clock: Callable[[], float],
    *,
    disk: Disk | None = None,
    faults: WireFaults | None = None,
    wrap: Callable[[PackStorage], PackStorage] = lambda storage: storage,
    entity: str = "acme",
    retry_seconds: float = 20.0,
) -> AsyncIterator[Running]:
    """Run ingest and registry over a directory, as `lading serve` does, and a client of them.

    Args:
        settings: `data` and `auth` are not looked at.
        clock: What both go by.
        disk: What changes the directory of packs.
        faults: What happens to calls.
        wrap: Gives what is to stand in front of the packs.
    """
    drain, metrics, faults = Drain(), Metrics(), faults or WireFaults()
    async with AsyncExitStack() as stack:
        storage = LocalPackStorage(data, disk=disk)
        stack.callback(storage.close)
        index = await ContentIndex.open(f"sqlite:///{data / 'ingest.db'}", clock=clock)
        stack.push_async_callback(index.close)
        ingest = await stack.enter_async_context(run_ingest(settings, index, wrap(storage), metrics))
        content = IngestComponent(ingest, drain, metrics, serves_pins=False, clock=clock)
        store = await RegistryStore.open(f"sqlite:///{data / 'registry.db'}", clock=clock)
        stack.push_async_callback(store.close)
        rules = await stack.enter_async_context(run_access(settings, store))
        registry = await stack.enter_async_context(run_registry(settings, store, content.pins))
        kept = Kept(store)
        names = RegistryComponent(
            RegistryServicer(registry), RetentionServicer(registry.retention), rules, kept, data, serves_peer=False
        )
        await stack.enter_async_context(content.collecting(kept))
        server = await stack.enter_async_context(
            running(
                settings,
                ("127.0.0.1", 0),
                [FaultyComponent(content, faults), FaultyComponent(names, faults)],
                drain,
                metrics,
                Access(None, "", keyless=keyless_allowances(settings)),
            )
        )
        end = Closing()
        target = f"127.0.0.1:{server.port}"
        client = await stack.enter_async_context(lading.Client(target, entity=entity, retry=retry_seconds))
        yield Running(
            target=target,
            ingest=ingest,
            registry=registry,
            database=store.database,
            client=client,
            releases=PinReleases(content.pins, store.pending, end),
            purging=Purging(settings, store, end, lambda: None),
            recovery=CommitRecovery(registry.commits, store.pending),
        )


async def collect_everything(run: Running, clock: FakeClock, settings: Settings) -> list[lading.EntityCollection]:
    """Let every lease lapse and the trash pass, and collect; return what came of the entities each time."""
    told: list[lading.EntityCollection] = []
    for seconds in (settings.session_ttl_seconds, settings.trash_seconds, settings.trash_seconds):
        # Packs that wait for the next stream are sealed, as a stop would.
        await run.ingest.pool.close()
        clock.seconds += seconds + 1
        await run.settle()
        events = [event async for event in run.client.collect_garbage()]
        told += [event for event in events if isinstance(event, lading.EntityCollection)]
    return told


async def what_is_left(run: Running) -> dict[str, int]:
    """Return how many trees, blobs, chunks, packs and pins that hold there are; nothing where there are none."""
    counts: dict[str, int] = {}
    async with run.ingest.index.database.read() as connection:
        for table in (trees, blobs, chunks, packs, pins):
            query = sa.select(sa.func.count()).select_from(table)
            if table is pins:
                query = query.where(pins.c.state == PinState.HELD.value)
            counts[table.name] = int(await connection.scalar(query) or 0)
    return {name: count for name, count in counts.items() if count}


class Pair:
    """The two services through all of their runs: started, stopped, and crashed at any moment.

    A crash leaves what a process that ends there leaves: of each database what is committed, of packs what is synced
    and, as luck has it, some of the rest. The files are copied at that moment, with nothing moving, and the next run
    is over the copy. What the crashed run goes on to do is done to the old directory, and forgotten.
    """

    def __init__(self, root: Path, settings: Settings, clock: FakeClock) -> None:
        self.root = root
        self.clock = clock
        self.faults = WireFaults()
        self.disk = SyncedDisk()
        self._settings = settings
        self._runs = 0
        self._stack = AsyncExitStack()
        self._running: Running | None = None
        self.data = self._new_directory()

    @property
    def now(self) -> Running:
        """The run of now."""
        assert self._running is not None, "it does not run"
        return self._running

    @property
    def client(self) -> lading.Client:
        """A client of the run of now."""
        return self.now.client

    async def start(self) -> None:
        """Begin a run over what is there, and wait until it has done what it does at a start."""
        self._stack = AsyncExitStack()
        self._running = await self._stack.enter_async_context(
            running_pair(self.data, self._settings, self.clock, disk=self.disk, faults=self.faults)
        )
        await self._running.settle()

    async def stop(self) -> None:
        """End the run in order."""
        self._running = None
        await self._stack.aclose()

    async def crash(self, rng: random.Random) -> None:
        """End the run at once, and begin the next."""
        await self._leave(self._snapshot(rng))

    async def crash_during(self, work: Awaitable[object], moments: int, rng: random.Random) -> bool:
        """Do something and crash at that moment of it; at its end if it has fewer. Begins the next run.

        A moment is before or after each call, and before each write and each sync of a pack.

        Returns:
            Whether the work came to its end. What of it was done nobody knows otherwise.
        """
        loop, crashed = asyncio.get_running_loop(), asyncio.Event()
        main, left = threading.get_ident(), moments
        copies: list[Path] = []

        def copy() -> None:
            if not copies:
                copies.append(self._snapshot(rng))
                crashed.set()

        def moment(_what: str) -> None:
            nonlocal left
            left -= 1
            if left != 0:
                return
            if threading.get_ident() == main:
                copy()
                return
            copied = threading.Event()
            loop.call_soon_threadsafe(copy)
            loop.call_soon_threadsafe(copied.set)
            copied.wait()

        self.disk.at_change = self.faults.at_call = moment
        working, watching = asyncio.ensure_future(work), asyncio.ensure_future(crashed.wait())
        try:
            await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
            is_done = working.done() and not copies
            copy()
            working.cancel()
            results = await asyncio.gather(working, return_exceptions=True)
        finally:
            watching.cancel()
            self.disk.at_change = self.faults.at_call = lambda _what: None
        if is_done and isinstance(results[0], Exception):
            raise results[0]
        await self._leave(copies[0])
        return is_done

    async def _leave(self, copy: Path) -> None:
        old = self.data
        await self.stop()
        self.faults.clear()
        self.data = copy
        self.disk.forget()
        shutil.rmtree(old)
        await self.start()

    def _new_directory(self) -> Path:
        self._runs += 1
        return self.root / f"run-{self._runs}"

    def _snapshot(self, rng: random.Random) -> Path:
        """Copy what a process that ends now leaves. On the thread of the event loop, so that nothing new begins.

        A transaction that is being committed at this moment is in the copy or not. Everything that it needs was done
        before it began, so the packs come last: what a deletion that is under way needs is in the database by now.
        """
        copy = self._new_directory()
        copy.mkdir(mode=0o700)
        for name in DATABASES:
            with (
                closing(sqlite3.connect(f"file:{self.data / name}?mode=ro", uri=True)) as source,
                closing(sqlite3.connect(copy / name)) as target,
            ):
                source.backup(target)
        shutil.copytree(self.data / "packs", copy / "packs")
        for path in sorted((copy / "packs").glob("*/*.pack")):
            size_bytes = path.stat().st_size
            synced_bytes = self.disk.synced_bytes(self.data / path.relative_to(copy), size_bytes)
            if synced_bytes < size_bytes:
                with path.open("r+b") as file:
                    file.truncate(rng.randint(synced_bytes, size_bytes))
        return copy
