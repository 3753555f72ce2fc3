"""The power goes at every write, sync, new name and removal in turn: what was acknowledged is there and right.

What was not acknowledged is whole, or cannot be seen.

LADING_CRASH_ALL=1 tries every kind of crash at every place, and crashes every recovery too; otherwise some are drawn.
LADING_TEST_SEED chooses others. A failure leaves the directory as the crash left it, and says where.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_format.errors import ReasonedError
from lading_format.tree import FileEntry
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings
from lading_server.ingest.component import run_ingest
from lading_server.ingest.domain.content import BlobRange
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.schema import ContentState, PackState, blobs, chunks, packs, trees
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.reader import read_payloads, verify_pack
from lading_server.ingest.packs.writer import Location
from tests.support.content import put_chunks, put_tree
from tests.support.crash_sqlite import RecordedSqlite
from tests.support.crashfs import (
    Acknowledged,
    Crash,
    CrashFS,
    Image,
    Recorder,
    RecordingDisk,
    Sync,
    SyncDirectory,
    Write,
    write_image,
)
from tests.support.index import set_state

SEED = int(os.environ.get("LADING_TEST_SEED", "20261125"))
TRIES_ALL = bool(os.environ.get("LADING_CRASH_ALL"))
# Packs that fill up on the way, and groups of a few units.
SETTINGS = Settings(min_free_bytes=0, pack_target_bytes=64 << 10, threads=2)
ENTITY = "acme"


class SafeFile(NamedTuple):
    """An upload of the simple path that was acknowledged."""

    content: bytes


class SafeTree(NamedTuple):
    """A tree that was acknowledged: its files."""

    digest: bytes
    files: dict[str, bytes]


class SafePin(NamedTuple):
    """A pin that was acknowledged."""

    version_uid: bytes
    tree: bytes


class SafeRelease(NamedTuple):
    """A release that was acknowledged."""

    version_uid: bytes


class GonePack(NamedTuple):
    """A pack whose deletion was acknowledged."""

    pack: UUID


@pytest.fixture(scope="module")
def sqlite() -> RecordedSqlite:
    """The layer under SQLite; it stays for as long as any connection may."""
    return RecordedSqlite()


@asynccontextmanager
async def opened(recorder: Recorder) -> AsyncIterator[Ingest]:
    """Open ingest over the recorder's directory, as the server does."""
    storage = LocalPackStorage(recorder.root, disk=RecordingDisk(recorder))
    try:
        index = await ContentIndex.open(f"sqlite:///{recorder.root / 'ingest.db'}")
        try:
            async with run_ingest(SETTINGS, index, storage, Metrics()) as ingest:
                yield ingest
        finally:
            await index.close()
    finally:
        storage.close()


# --- what is done, and what is promised on the way ---


async def upload_files(ingest: Ingest, recorder: Recorder, rng: random.Random) -> None:
    """Several uploads of the simple path at once, so that their groups are committed together."""

    async def upload(number: int) -> None:
        content = rng.randbytes(rng.choice([1, 3_000, 40_000]))
        async with ingest.file_upload(ENTITY, None, f"upload-{number}", 0) as one:
            await one.begin(0)
            await one.take(content)
            await one.finish(blake3_digest(content), len(content))
        recorder.acknowledge(SafeFile(content))

    await asyncio.gather(*(upload(number) for number in range(4)))


async def store_trees(ingest: Ingest, recorder: Recorder, rng: random.Random) -> None:
    """Chunks, blobs of one and several chunks, a tree and its pin; and once more with a part of it changed."""
    shared = [rng.randbytes(20_000), rng.randbytes(9_000)]
    for number in range(2):
        parts = {"shared.bin": shared, "one.txt": [rng.randbytes(700)], "big.bin": [shared[0], rng.randbytes(30_000)]}
        tree = await put_tree(ingest, parts, ENTITY)
        recorder.acknowledge(SafeTree(tree, {path: b"".join(some) for path, some in parts.items()}))
        uid = bytes([number]) * 16
        await ingest.pins.acquire(ENTITY, uid, tree)
        recorder.acknowledge(SafePin(uid, tree))
    await ingest.pins.release(ENTITY, bytes([0]) * 16)
    recorder.acknowledge(SafeRelease(bytes([0]) * 16))


async def delete_pack(ingest: Ingest, recorder: Recorder, rng: random.Random) -> None:
    """The end of a pack that nobody needs: `deleting` is durable, the file goes, its rows go."""
    content = rng.randbytes(90_000)
    await put_chunks(ingest, [content], ENTITY)
    await ingest.pool.close()
    (location,) = (await ingest.index.chunks.locate(ENTITY, [blake3_digest(content)])).values()
    pack = location.pack
    for state in (PackState.CONDEMNED, PackState.DELETING):
        await set_state(ingest.index, packs, pack.bytes, state)
    await ingest.workers.run(ingest.storage.delete, pack)
    recorder.acknowledge(GonePack(pack))
    async with ingest.index.database.write() as connection:
        await connection.execute(sa.delete(chunks).where(chunks.c.pack_id == pack.bytes))
        await connection.execute(sa.delete(packs).where(packs.c.id == pack.bytes))


async def record(sqlite: RecordedSqlite, root: Path, seed: int) -> Recorder:
    """Run the scenarios from an empty directory on, the first start and the last close included."""
    root.mkdir()
    recorder = Recorder(root)
    rng = random.Random(seed)
    with sqlite.recording(recorder):
        async with opened(recorder) as ingest:
            await upload_files(ingest, recorder, rng)
            await store_trees(ingest, recorder, rng)
        async with opened(recorder) as ingest:
            await delete_pack(ingest, recorder, rng)
    return recorder


# --- what is found after a crash ---


async def check(ingest: Ingest, safe: list[object]) -> None:
    """Everything that was acknowledged is there and right, and so is everything else that can be seen."""
    gone = {one.pack for one in safe if isinstance(one, GonePack)}
    released = {one.version_uid for one in safe if isinstance(one, SafeRelease)}
    for one in safe:
        match one:
            case SafeFile(content):
                assert await read(ingest, blake3_digest(content)) == content
            case SafeTree(digest, files):
                assert await read_tree(ingest, digest) == files
            case SafePin(uid, tree):
                pin = await ingest.index.pins.find(ENTITY, uid)
                assert pin is not None
                assert pin.tree_digest == tree
            case SafeRelease(uid):
                pin = await ingest.index.pins.find(ENTITY, uid)
                assert pin is not None
                assert not pin.is_held
    held = {pin.version_uid for pin in await ingest.index.pins.held(ENTITY, b"", 100)}
    assert held.isdisjoint(released)
    assert gone.isdisjoint(ingest.storage.packs())
    await check_rows(ingest)


async def check_rows(ingest: Ingest) -> None:
    """Each row tells the truth: packs are whole, chunks are where they are said to be, blobs and trees can be read."""
    async with ingest.index.database.read() as connection:
        pack_rows = (await connection.execute(sa.select(packs.c.id, packs.c.state, packs.c.durable_bytes))).all()
        chunk_rows = (await connection.execute(sa.select(chunks))).all()
        live = {table: sa.select(table.c.digest).where(table.c.state == ContentState.LIVE) for table in (blobs, trees)}
        blob_digests = (await connection.scalars(live[blobs])).all()
        tree_digests = (await connection.scalars(live[trees])).all()
    states = {UUID(bytes=pack): state for pack, state, _ in pack_rows}
    assert set(states.values()) <= {PackState.SEALED, PackState.CONDEMNED, PackState.DELETING}
    for raw, state, durable_bytes in pack_rows:
        if state == PackState.SEALED:
            verify_pack(ingest.storage, UUID(bytes=raw))
            assert ingest.storage.size(UUID(bytes=raw)) == durable_bytes
    for row in chunk_rows:
        place = Location(UUID(bytes=row.pack_id), row.record_offset, row.stored_bytes, row.raw_bytes)
        if states[place.pack] == PackState.SEALED:
            (payload,) = read_payloads(ingest.storage, [place], [row.digest])
            assert blake3_digest(payload) == row.digest
    for digest in blob_digests:
        assert blake3_digest(await read(ingest, digest)) == digest
    for digest in tree_digests:
        await read_tree(ingest, digest)


async def read(ingest: Ingest, digest: bytes) -> bytes:
    """Return a blob."""
    found = []
    async for pieces in ingest.content.read(ENTITY, [BlobRange(digest, 0, 0)]):
        for piece in pieces:
            assert piece.error is None, piece.error
            found.append(bytes(piece.data))
    return b"".join(found)


async def read_tree(ingest: Ingest, digest: bytes) -> dict[str, bytes]:
    """Return a tree's files by their paths."""
    files = {}
    for row in await ingest.trees.rows(ENTITY, digest, b"", 100):
        for entry in await ingest.trees.load(ENTITY, row.page_digest):
            assert isinstance(entry, FileEntry)
            files[entry.path] = await read(ingest, entry.digest)
    return files


# --- the tests ---


@dataclass
class Trial:
    """Crashes at places of a log, and what a recovery makes of each."""

    sqlite: RecordedSqlite
    directory: Path
    rng: random.Random
    tried: int = 0
    # Images that were tried, with what had been acknowledged: many places leave the same.
    seen: set[bytes] = field(default_factory=set)

    async def crash(self, image: Image, safe: list[object], where: str) -> Recorder | None:
        """Recover from an image and check it; return what the recovery did, or None where it was tried before."""
        name = blake3_digest(repr((sorted(image.items()), len(safe))).encode())
        if name in self.seen:
            return None
        self.seen.add(name)
        self.tried += 1
        root = self.directory / f"crash-{self.tried}"
        write_image(image, root)
        recorder = Recorder(root)
        try:
            with self.sqlite.recording(recorder):
                async with opened(recorder) as ingest:
                    # What it did up to here is the recovery.
                    recovery = list(recorder.entries)
                    await check(ingest, safe)
                    # And it goes on.
                    await put_tree(ingest, {"after.txt": [b"after the crash"]}, ENTITY)
        except BaseException as error:
            # The directory was changed by the recovery since.
            write_image(image, root.with_suffix(".image"))
            error.add_note(f"seed {SEED}; {where}; the image is in {root.with_suffix('.image')}")
            raise
        recorder.entries[:] = recovery
        shutil.rmtree(root)
        return recorder


def places(recorder: Recorder, rng: random.Random, drawn: int) -> set[int]:
    """Return after how many entries to crash: every one, or those that make something durable and some others."""
    everywhere = range(len(recorder.entries) + 1)
    if TRIES_ALL:
        return set(everywhere)
    borders = {at for at in everywhere[1:] if not isinstance(recorder.entries[at - 1], Write)}
    return set(rng.sample(sorted(borders), min(drawn, len(borders)))) | set(rng.sample(everywhere, drawn // 2))


def crashes(rng: random.Random) -> list[Crash]:
    """Return the kinds of crash to try at one place."""
    return list(Crash) if TRIES_ALL else rng.sample(list(Crash), 2)


@pytest.mark.slow
async def test_what_was_acknowledged_survives_a_crash_at_any_place(sqlite: RecordedSqlite, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    recorder = await record(sqlite, tmp_path / "recorded", SEED)
    trial = Trial(sqlite, tmp_path, rng)
    wanted = places(recorder, rng, 120)
    crashfs = CrashFS({})
    safe: list[object] = []
    for at in range(len(recorder.entries) + 1):
        for crash in crashes(rng) if at in wanted else ():
            where = f"{crash.name} after entry {at} of {len(recorder.entries)}: {last(recorder, at)}"
            await trial.crash(crashfs.image(crash, rng), safe, where)
        if at < len(recorder.entries):
            entry = recorder.entries[at]
            crashfs.apply(entry)
            if isinstance(entry, Acknowledged):
                safe.append(entry.what)
    assert {type(one) for one in safe} == {SafeFile, SafeTree, SafePin, SafeRelease, GonePack}
    print(f"seed {SEED}: {trial.tried} crashes of {len(recorder.entries)} entries")
    assert trial.tried > 100


@pytest.mark.slow
async def test_a_recovery_that_is_cut_off_at_any_place_is_done_again(sqlite: RecordedSqlite, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    recorder = await record(sqlite, tmp_path / "recorded", SEED)
    trial = Trial(sqlite, tmp_path, rng)
    crashfs = CrashFS({})
    safe: list[object] = []
    # Where packs are open and something is safe. A close leaves nothing to recover.
    chosen = places(recorder, rng, 8)
    for at, entry in enumerate(recorder.entries):
        crashfs.apply(entry)
        if isinstance(entry, Acknowledged):
            safe.append(entry.what)
        if at + 1 in chosen:
            for crash in crashes(rng):
                await crash_recovery(trial, crashfs.image(crash, rng), list(safe), f"{crash.name} after entry {at + 1}")
    print(f"seed {SEED}: {trial.tried} crashes")
    assert trial.tried > 30


@pytest.mark.parametrize("kind", [Sync, SyncDirectory])
async def test_packs_that_are_not_synced_are_seen_to_be_lost(
    sqlite: RecordedSqlite, tmp_path: Path, kind: type[Sync | SyncDirectory]
) -> None:
    """The trial can fail: with the packs' syncs left out of the log, the same crash loses what was acknowledged."""
    recorder = await record(sqlite, tmp_path / "recorded", SEED)
    crashfs = CrashFS({})
    tree = None
    for entry in recorder.entries:
        if isinstance(entry, Acknowledged) and isinstance(entry.what, SafeTree):
            tree = entry.what
            break
        # One that covers nothing.
        is_left_out = isinstance(entry, kind) and entry.path.startswith("packs")
        crashfs.apply(entry._replace(covers=0) if is_left_out and isinstance(entry, Sync | SyncDirectory) else entry)
    assert tree is not None
    trial = Trial(sqlite, tmp_path, random.Random(SEED))
    with pytest.raises((AssertionError, ReasonedError)):
        await trial.crash(crashfs.image(Crash.LOST, trial.rng), [tree], "at the first tree")


async def crash_recovery(trial: Trial, image: Image, safe: list[object], where: str) -> None:
    """Crash the recovery from an image at its places, and recover again."""
    recovery = await trial.crash(image, safe, where)
    if recovery is None:
        return
    again = CrashFS(image)
    wanted = places(recovery, trial.rng, min(6, len(recovery.entries)))
    for at, entry in enumerate(recovery.entries):
        again.apply(entry)
        if at + 1 in wanted:
            for crash in crashes(trial.rng):
                where_again = (
                    f"{where}, then {crash.name} after entry {at + 1} of the recovery: {last(recovery, at + 1)}"
                )
                await trial.crash(again.image(crash, trial.rng), safe, where_again)


def last(recorder: Recorder, at: int) -> str:
    """Say what an entry is, without its bytes."""
    return repr(recorder.entries[at - 1])[:80] if at else "nothing"
