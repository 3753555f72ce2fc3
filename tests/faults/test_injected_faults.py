"""Disks and databases that fail: whoever needs what failed is told so, others go on, and nothing acknowledged is lost.

Also: nothing that could not be made durable is acknowledged, and a start recovers all that was. A disk that is full has
tests of its own (test_disk_full.py), and so has a power cut (test_crash_points.py).
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

import lading
from lading_format.digest import blake3_digest
from lading_server.common import database
from lading_server.common.settings import Settings
from lading_server.ingest.index.schema import PackState, chunks, packs, pins
from lading_server.ingest.packs.format import HEADER_BYTES
from lading_server.ingest.packs.storage import PackClass, ShortRead
from tests.support.crashfs import Recorder
from tests.support.disks import FaultyDisk, FaultyPacks
from tests.support.faulty_sqlite import FaultySqlite
from tests.support.index import FakeClock, count
from tests.support.pair import Running, running_pair
from tests.support.registry import until

SEED = 20261125
DAY = 86400.0
SETTINGS = Settings(
    auth="none",
    min_free_bytes=0,
    pack_target_bytes=64 << 10,
    threads=2,
    gc_period_seconds=0,
    retention_period_seconds=0,
    trash_seconds=DAY,
)
# Tried again soon, and not for long.
RETRY = 5.0


class Bench:
    """A store whose disk and packs fail when they are told to, through all of its runs."""

    def __init__(self, root: Path) -> None:
        self.data = root / "data"
        self.root = root
        self.clock = FakeClock()
        self.disk = FaultyDisk()
        self.packs: FaultyPacks
        # What cannot be read from the next start on.
        self.bad: tuple[UUID, int, int] | None = None
        self.rng = random.Random(SEED)
        self._made = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Run the pair."""

        def wrap(storage: object) -> FaultyPacks:
            self.packs = FaultyPacks(storage)  # type: ignore[arg-type]
            self.packs.bad = self.bad
            return self.packs

        async with running_pair(self.data, SETTINGS, self.clock, disk=self.disk, wrap=wrap, retry_seconds=RETRY) as run:
            yield run

    def files(self, count: int, size_bytes: int = 9_000) -> dict[str, bytes]:
        """Return new contents."""
        return {f"f{number}": self.rng.randbytes(size_bytes) for number in range(count)}

    def written(self, files: Mapping[str, bytes]) -> dict[str, Path]:
        """Return what `put` takes."""
        source = {}
        for name, content in files.items():
            self._made += 1
            source[name] = self.root / f"source-{self._made}"
            source[name].write_bytes(content)
        return source

    async def put(self, run: Running, name: str, files: Mapping[str, bytes]) -> None:
        """Log a version."""
        await run.client.put(self.written(files), name, type="dataset")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    print(f"seed {SEED}")
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    return Bench(tmp_path)


async def read(run: Running, name: str) -> dict[str, bytes]:
    """Read all of a version that can be read."""
    version = await run.client.version(name)
    read: dict[str, bytes] = {}
    async for entry in version.files():
        try:
            read[entry.path] = await version.read_bytes(entry.path)
        except lading.IntegrityError:
            continue
    return read


async def findings(run: Running) -> list[str]:
    """Check everything; return what was found."""
    return [
        event.message async for event in run.client.check(4, restart=True) if isinstance(event, lading.CheckFinding)
    ]


async def place_of(run: Running, content: bytes) -> tuple[UUID, int, int]:
    """Return where the payload of a chunk is: pack, first byte, byte after the last."""
    digest = blake3_digest(content)
    place = (await run.ingest.index.chunks.locate("acme", [digest]))[digest]
    begin = place.offset + HEADER_BYTES
    return place.pack, begin, begin + place.stored_bytes


async def collected(run: Running) -> lading.EntityCollection:
    """Collect garbage."""
    (told,) = [one async for one in run.client.collect_garbage() if isinstance(one, lading.EntityCollection)]
    return told


async def pack_states(run: Running) -> list[str]:
    async with run.ingest.index.database.read() as connection:
        return sorted((await connection.scalars(sa.select(packs.c.state))).all())


# --- reads ---


async def test_a_place_that_cannot_be_read_costs_its_file_alone_until_it_is_stored_again(bench: Bench) -> None:
    files = bench.files(4)
    async with bench.running() as run:
        await bench.put(run, "a", files)
        rows = await count(run.ingest.index, chunks)
        bench.packs.bad = await place_of(run, files["f1"])
        assert await read(run, "a") == {name: data for name, data in files.items() if name != "f1"}

        async def is_missing() -> bool:
            return not await run.ingest.index.chunks.locate("acme", [blake3_digest(files["f1"])])

        await until(is_missing)
        # Of all that lay beside it, nothing else is taken for lost.
        assert await count(run.ingest.index, chunks) == rows - 1
        await bench.put(run, "a", files)
        assert await read(run, "a") == files


@pytest.mark.parametrize("error", [None, ShortRead("the pack ends before them")])
async def test_what_can_be_read_the_second_time_is_read_and_nothing_is_lost(
    bench: Bench, error: Exception | None
) -> None:
    files = bench.files(3)
    async with bench.running() as run:
        await bench.put(run, "a", files)
        rows = await count(run.ingest.index, chunks)
        bench.packs.bad = await place_of(run, files["f1"])
        bench.packs.error, bench.packs.times = error or bench.packs.error, 1
        assert await read(run, "a") == files
        assert bench.packs.times == 0
        assert await findings(run) == []
        assert await count(run.ingest.index, chunks) == rows


async def test_a_disk_that_is_away_loses_nothing(bench: Bench) -> None:
    files = bench.files(3)
    async with bench.running() as run:
        await bench.put(run, "a", files)
        rows = await count(run.ingest.index, chunks)
        pack, _, _ = await place_of(run, files["f1"])
        bench.packs.bad = pack, 0, 1 << 40
        assert await read(run, "a") == {}
        assert await count(run.ingest.index, chunks) == rows
        bench.packs.bad = None
        assert await read(run, "a") == files
        assert await findings(run) == []


async def test_a_pack_that_was_cut_short_loses_what_was_behind_and_nothing_before(bench: Bench) -> None:
    files = bench.files(4)
    async with bench.running() as run:
        await bench.put(run, "a", files)
    async with bench.running() as run:
        places = {name: await place_of(run, data) for name, data in files.items()}
        last = max(places, key=lambda name: places[name][1])
        pack, begin, _ = places[last]
        os.truncate(bench.data / "packs" / pack.hex[-2:] / f"{pack.hex}.pack", begin + 10)
        assert await read(run, "a") == {name: data for name, data in files.items() if name != last}
        assert await findings(run) != []
        await bench.put(run, "a", files)
        assert await read(run, "a") == files


async def test_a_system_that_reads_a_little_at_a_time_is_asked_for_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = bench.files(2, 200_000)
    pread = os.pread
    async with bench.running() as run:
        await bench.put(run, "a", files)
        with monkeypatch.context() as slow:
            slow.setattr(os, "pread", lambda descriptor, length, offset: pread(descriptor, min(length, 4096), offset))
            assert await read(run, "a") == files
        assert await findings(run) == []


async def test_a_disk_that_is_slow_holds_up_nobody_who_does_not_need_it(bench: Bench) -> None:
    files = bench.files(1)
    async with bench.running() as run:
        await bench.put(run, "a", files)
        bench.packs.gate.clear()
        slow = asyncio.create_task(read(run, "a"))
        await asyncio.to_thread(bench.packs.waiting.wait, 60)
        assert bench.packs.waiting.is_set()
        # Names are answered meanwhile, and so are questions to the index.
        assert (await run.client.version("a")).number == 0
        assert (await run.client.usage()).used_bytes > 0
        assert not slow.done()
        bench.packs.gate.set()
        assert await slow == files


# --- syncs ---


@pytest.mark.parametrize("pack_class", list(PackClass))
async def test_after_a_sync_that_failed_nothing_is_acknowledged_and_a_start_recovers_all_that_was(
    bench: Bench, pack_class: PackClass
) -> None:
    first, second, third = bench.files(3), bench.files(3), bench.files(2)
    async with bench.running() as run:
        await bench.put(run, "a", first)
        bench.disk.fail("sync of a file", pack_class=pack_class)
        with pytest.raises(lading.IntegrityError, match="EIO"):
            await bench.put(run, "b", second)
        assert bench.disk.refused == 1
        # The disk is well again, and is not believed.
        with pytest.raises(lading.IntegrityError, match="start the server again"):
            await bench.put(run, "c", third)
        assert await read(run, "a") == first
        for name in ("b", "c"):
            with pytest.raises(lading.NotFound):
                await run.client.version(name)
    async with bench.running() as run:
        assert await findings(run) == []
        assert await read(run, "a") == first
        await bench.put(run, "b", second)
        assert await read(run, "b") == second
        assert PackState.DAMAGED.value not in await pack_states(run)


async def test_a_start_that_cannot_read_a_place_of_an_open_pack_loses_what_is_there_and_nothing_else(
    bench: Bench,
) -> None:
    files = bench.files(4)
    async with bench.running() as run:
        await bench.put(run, "a", files)
        bench.bad = await place_of(run, files["f1"])
        # Whatever is open stays so.
        bench.disk.fail("sync of a file")
        with pytest.raises(lading.IntegrityError, match="EIO"):
            await bench.put(run, "b", bench.files(1))
        assert PackState.OPEN.value in await pack_states(run)
    async with bench.running() as run:
        assert set(await pack_states(run)) == {PackState.SEALED.value}
        assert not await run.ingest.index.chunks.locate("acme", [blake3_digest(files["f1"])])
        assert await read(run, "a") == {name: data for name, data in files.items() if name != "f1"}
        await bench.put(run, "a", files)
        assert await read(run, "a") == files


async def test_a_start_that_can_read_nothing_of_an_open_pack_loses_it_and_nothing_else(bench: Bench) -> None:
    first, second = bench.files(2), bench.files(2, 500)
    async with bench.running() as run:
        await bench.put(run, "a", first)
    async with bench.running() as run:
        await bench.put(run, "b", second)
        pack, _, _ = await place_of(run, second["f0"])
        bench.bad = pack, 0, 1 << 40
        # Whatever is open stays so.
        bench.disk.fail("sync of a file")
        with pytest.raises(lading.IntegrityError, match="EIO"):
            await bench.put(run, "c", bench.files(1))
        assert PackState.OPEN.value in await pack_states(run)
    async with bench.running() as run:
        assert set(await pack_states(run)) == {PackState.SEALED.value, PackState.DAMAGED.value}
        assert await read(run, "a") == first
        assert await read(run, "b") == {}
        await bench.put(run, "b", second)
        assert await read(run, "b") == second


# --- collections ---


async def half_dead(bench: Bench, run: Running) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Make a pack of which a half is needed by no version any more, and let everything pass; return both halves."""
    kept, gone = bench.files(2), {f"gone {name}": data for name, data in bench.files(2).items()}
    await bench.put(run, "a", kept | gone)
    await bench.put(run, "a", kept)
    await run.client.delete("a:v0", purge=True)
    await run.settle()
    return kept, gone


@pytest.mark.parametrize("what", ["append to a file", "sync of a file", "sync of a directory"])
async def test_a_compaction_whose_copy_cannot_be_written_changes_nothing(bench: Bench, what: str) -> None:
    async with bench.running() as run:
        kept, _ = await half_dead(bench, run)
    bench.clock.seconds += 2 * 3600
    async with bench.running() as run:
        bench.disk.fail(what)
        told = await collected(run)
        assert "it failed" in told.refused
        assert bench.disk.refused == 1
        assert await read(run, "a") == kept
        assert await findings(run) == []
    # And so it is after a start; then it is done.
    async with bench.running() as run:
        assert await findings(run) == []
        told = await collected(run)
        assert told.report is not None
        assert told.report.packs_compacted >= 1
        assert await read(run, "a") == kept
        assert await findings(run) == []


async def test_a_compaction_that_cannot_read_leaves_the_pack_alone_and_says_so(bench: Bench) -> None:
    async with bench.running() as run:
        kept, _ = await half_dead(bench, run)
    bench.clock.seconds += 2 * 3600
    async with bench.running() as run:
        pack, _, _ = bench.packs.bad = await place_of(run, kept["f0"])
        told = await collected(run)
        assert told.report is not None
        assert str(pack) in told.report.unreadable_packs
        bench.packs.bad = None
        assert await read(run, "a") == kept
        assert await findings(run) == []
        told = await collected(run)
        assert told.report is not None
        assert told.report.unreadable_packs == ()
        assert await read(run, "a") == kept


@pytest.mark.parametrize("what", ["touch", "sync of a directory", "remove"])
@pytest.mark.parametrize("is_started_again", [False, True])
async def test_a_deletion_that_the_disk_refuses_is_beyond_return_and_finished_later(
    bench: Bench, what: str, is_started_again: bool
) -> None:
    files = bench.files(3)
    async with bench.running() as run:
        await bench.put(run, "a", files)
        await run.client.delete("a:v0", purge=True)
        await run.settle()
    bench.clock.seconds += 2 * 3600
    async with bench.running() as run:
        assert (await collected(run)).refused == ""
        bench.clock.seconds += DAY + 1
        bench.disk.fail(what)
        assert "it failed" in (await collected(run)).refused
        assert bench.disk.refused == 1
        assert PackState.DELETING.value in await pack_states(run)
        if not is_started_again:
            assert (await collected(run)).refused == ""
            assert await pack_states(run) == []
    async with bench.running() as run:
        assert (await collected(run)).refused == ""
        assert await pack_states(run) == []
        assert list(bench.data.glob("packs/*/*.pack")) == []
        await bench.put(run, "a", files)
        assert await read(run, "a") == files


# --- the databases ---


@pytest.fixture(scope="module")
def sqlite() -> FaultySqlite:
    """The layer under SQLite; it stays for as long as any connection may."""
    return FaultySqlite()


# A transaction has a sync, and many writes.
STRIDES = {"write": 11, "sync": 1}


@pytest.mark.parametrize("calls", ["write", "sync"])
@pytest.mark.parametrize("database", ["ingest.db", "registry.db"])
async def test_a_database_that_fails_at_any_moment_of_a_commit_loses_nothing(
    bench: Bench, sqlite: FaultySqlite, calls: str, database: str
) -> None:
    """The first call of the file fails, then in another upload a later one, and so on to the last: group commits of
    chunks, blobs and tree, the intent, the pin, and the commit that follows."""
    Path(bench.data).mkdir()
    put: dict[str, dict[str, bytes]] = {}
    with sqlite.recording(Recorder(bench.data, syncs=True)):
        async with bench.running() as run:
            await bench.put(run, "first", bench.files(1))
            for after in range(0, 1000, STRIDES[calls]):
                files = bench.files(2, 500)
                sqlite.fail(calls, database, after=after)
                try:
                    await bench.put(run, f"c{after}", files)
                    put[f"c{after}"] = files
                except lading.LadingError as error:
                    assert isinstance(error, (lading.IntegrityError, lading.Unavailable)), repr(error)
                if not sqlite.failed:
                    break
                sqlite.well()
                # What failed once is done when it is asked for again, without a start.
                await bench.put(run, f"c{after}", files)
                put[f"c{after}"] = files
                await run.settle()
            assert after >= 2, "not many calls were made"
            await check_all(run, put)
        async with bench.running() as run:
            await check_all(run, put)


def other_process(path: Path) -> sqlite3.Connection:
    """Return a connection as another process would have one, for any thread."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


@pytest.mark.parametrize("name", ["ingest.db", "registry.db"])
async def test_a_database_that_another_process_has_for_a_while_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(database, "_BUSY_MILLISECONDS", 10)
    files = bench.files(2)
    async with bench.running() as run:
        with closing(other_process(bench.data / name)) as other:
            # In a thread: the server may be in a transaction, which ends when this loop goes on.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            putting = asyncio.create_task(bench.put(run, "a", files))

            async def is_refused() -> bool:
                await asyncio.sleep(0)
                return any("in use by another" in one.getMessage() for one in caplog.records) or putting.done()

            await until(is_refused)
            assert not putting.done(), putting
            other.execute("ROLLBACK")
            await putting
        await check_all(run, {"a": files}, others=0)
        with closing(other_process(bench.data / name)) as other:
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            with pytest.raises(lading.Unavailable) as told:
                await bench.put(run, "b", bench.files(1))
            assert told.value.reason == "DATABASE_UNAVAILABLE"
            assert str(bench.data) not in str(told.value)


async def check_all(run: Running, put: Mapping[str, Mapping[str, bytes]], *, others: int = 1) -> None:
    """Every version is there, once and whole, and each has its pin; nothing else but so many others has one."""
    assert await findings(run) == []
    for name, files in put.items():
        assert await read(run, name) == files
        assert [version.number async for version in run.client.versions(name)] == [0], name
    async with run.ingest.index.database.read() as connection:
        held = await connection.scalar(sa.select(sa.func.count()).select_from(pins).where(pins.c.state == "held"))
    assert held == len(put) + others


@pytest.mark.parametrize("calls", ["write", "sync"])
async def test_a_database_that_fails_at_any_moment_of_a_collection_loses_nothing(
    bench: Bench, sqlite: FaultySqlite, calls: str
) -> None:
    Path(bench.data).mkdir()
    with sqlite.recording(Recorder(bench.data, syncs=True)):
        async with bench.running() as run:
            kept, gone = await half_dead(bench, run)
        bench.clock.seconds += 2 * 3600
        failures = 0
        async with bench.running() as run:
            for after in range(0, 1000, STRIDES[calls]):
                sqlite.fail(calls, "ingest.db", after=after)
                try:
                    told = await collected(run)
                    refused = told.refused
                except lading.LadingError as error:
                    refused = repr(error)
                failed, failures = sqlite.failed, failures + sqlite.failed
                sqlite.well()
                assert bool(refused) <= bool(failed), refused
                assert await read(run, "a") == kept
                assert await findings(run) == []
                # Another thing to condemn, and time for what is in the trash to go.
                bench.clock.seconds += DAY + 1
                if not failed:
                    break
                await bench.put(run, "b", gone)
                await run.client.delete("b", purge=True)
                await run.settle()
            assert failures >= 3
            for _ in range(2):
                bench.clock.seconds += DAY + 1
                assert (await collected(run)).refused == ""
            assert await findings(run) == []
            assert await read(run, "a") == kept
