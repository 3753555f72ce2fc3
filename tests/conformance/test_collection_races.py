"""A collection next to others: whatever happens between its steps, what is referred to stays, or is told as missing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lading_format.digest import blake3_digest
from lading_format.tree import FileEntry
from lading_server.common.errors import ContentMoved, MissingBlobs, SessionExpired, TreeNotFound
from lading_server.ingest.domain.blobs import BlobOutcome, RecipePiece
from lading_server.ingest.domain.collector import CollectionReport
from lading_server.ingest.domain.recipes import ChunkSpan
from lading_server.ingest.index.schema import blobs, trees
from tests.support.collection import SESSION_SECONDS, TRASH_SECONDS, Files, Store, before, new_store
from tests.support.content import put_tree
from tests.support.index import DATABASES

FILES: Files = {"large": (b"large " * 40, b"file " * 40), "small": (b"small",)}
# Between what a collection read and what it changes, of each kind of row.
STEPS = ("trees", "blobs", "packs")


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(request.param, tmp_path) as opened:
        yield opened


async def sent_again(store: Store, files: Files) -> bytes:
    """Do what a client does whose pin was refused: send everything again."""
    tree = await put_tree(store.ingest, files)
    await store.ingest.pins.acquire("acme", os.urandom(16), tree)
    return tree


@pytest.mark.parametrize("step", STEPS)
async def test_a_pin_that_is_acquired_between_mark_and_condemn_holds_or_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tree = await store.put(FILES)
    acquired: list[bool] = []

    async def acquire() -> None:
        try:
            await store.ingest.pins.acquire("acme", os.urandom(16), tree)
            acquired.append(True)
        except (MissingBlobs, TreeNotFound):
            acquired.append(False)

    before(monkeypatch, store.collector._condemner, step, acquire)
    report = await store.collector.collect("acme")
    # Trees come first: from then on the tree is not there to be pinned.
    assert acquired == [step == "trees"]
    assert (report.trees_condemned == 0) is acquired[0]
    if not acquired[0]:
        await sent_again(store, FILES)
    await store.lapse()
    for _ in range(2):
        store.clock.seconds += TRASH_SECONDS
        await store.collector.collect("acme")
    await store.check(tree, FILES)
    await store.check_usage()


@pytest.mark.parametrize("step", STEPS)
async def test_a_chunk_that_is_found_between_mark_and_condemn_can_be_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await store.put(FILES)
    session = await store.ingest.open_session("acme")
    digests = [blake3_digest(part) for parts in FILES.values() for part in parts]
    missing: list[int] = []

    async def find() -> None:
        missing.extend(await store.ingest.find_missing("acme", session, digests))

    before(monkeypatch, store.collector._condemner, step, find)
    await store.collector.collect("acme")
    assert missing == []
    assert len(await store.index.chunks.locate("acme", digests)) == len(digests)
    assert await store.ingest.find_missing("acme", session, digests) == []
    intake = await store.ingest.blob_intake("acme", session, 0)
    spans = [ChunkSpan(blake3_digest(part), len(part)) for part in FILES["large"]]
    whole = b"".join(FILES["large"])
    (result,) = await intake.take([RecipePiece(blake3_digest(whole), len(whole), spans, False)])
    assert result.outcome is not BlobOutcome.FAILED


@pytest.mark.parametrize("step", STEPS)
async def test_a_blob_that_is_committed_between_mark_and_condemn_is_whole_or_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await store.put(FILES)
    whole = b"".join(FILES["large"])

    async def commit() -> None:
        await put_tree(store.ingest, {"other name": FILES["large"]})

    before(monkeypatch, store.collector._condemner, step, commit)
    await store.collector.collect("acme")
    rows = await store.index.blobs.stat("acme", [blake3_digest(whole)])
    tree = await sent_again(store, {"other name": FILES["large"]})
    assert rows or step == "blobs"
    await store.lapse()
    for _ in range(2):
        store.clock.seconds += TRASH_SECONDS
        await store.collector.collect("acme")
    await store.check(tree, {"other name": FILES["large"]})
    await store.check_usage()


@pytest.mark.parametrize("step", STEPS)
async def test_a_tree_that_is_revived_between_mark_and_condemn_can_be_sent_or_pinned(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    tree = await store.put(FILES)

    async def revive() -> None:
        assert await store.collector.revive("acme", tree)
        await store.ingest.pins.acquire("acme", os.urandom(16), tree)

    before(monkeypatch, store.collector._condemner, step, revive)
    await store.collector.collect("acme")
    assert set((await store.states(trees)).values()) == set((await store.states(blobs)).values()) == {"live"}
    await store.lapse()
    store.clock.seconds += TRASH_SECONDS
    await store.collector.collect("acme")
    await store.check(tree, FILES)
    await store.check_usage()


async def test_a_session_that_opens_after_the_mark_and_stores_new_content_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(FILES)
    new: Files = {"new": (b"put during a collection",), "small": FILES["small"]}

    async def upload() -> None:
        await sent_again(store, new)

    before(monkeypatch, store.collector._condemner, "packs", upload)
    await store.collector.collect("acme")
    await store.check(await put_tree(store.ingest, new), new)


async def test_what_was_condemned_is_missing_to_an_upload_and_is_stored_anew(store: Store) -> None:
    tree = await store.put(FILES)
    await store.collector.collect("acme")
    session = await store.ingest.open_session("acme")
    digests = [blake3_digest(part) for parts in FILES.values() for part in parts]
    assert await store.ingest.find_missing("acme", session, digests) == [0, 1, 2]
    assert await sent_again(store, FILES) == tree
    store.clock.seconds += TRASH_SECONDS
    await store.collector.collect("acme")
    await store.check(tree, FILES)
    await store.check_usage()


async def test_what_is_being_revived_is_not_purged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = await store.put(FILES)
    await store.collector.collect("acme")
    store.clock.seconds += TRASH_SECONDS

    async def revive() -> None:
        assert await store.collector.revive("acme", tree)

    before(monkeypatch, store.collector._trash, "purge_trees", revive)
    report = await store.collector.collect("acme")
    assert (report.trees_deleted, report.blobs_deleted, report.packs_deleted) == (0, 0, 0)
    await store.check(tree, FILES)


async def test_a_purge_that_was_first_makes_a_revival_fail(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = await store.put(FILES)
    await store.collector.collect("acme")
    store.clock.seconds += TRASH_SECONDS

    async def purge() -> None:
        await store.collector.collect("acme")

    before(monkeypatch, store.collector._trash, "revive_packs", purge)
    assert not await store.collector.revive("acme", tree)
    assert set(await store.states(trees)) == set()
    await sent_again(store, FILES)
    await store.check(tree, FILES)


async def test_one_collection_runs_at_a_time(store: Store) -> None:
    await store.put(FILES)
    first, second = await asyncio.gather(store.collector.collect("acme"), store.collector.collect("acme"))
    assert (first.trees_condemned, second.trees_condemned) == (1, 0)


@pytest.mark.parametrize("kind", DATABASES)
async def test_collections_next_to_writers_and_readers_fail_nobody(tmp_path: Path, kind: str) -> None:
    shared = [b"shared %d " % n * 20 for n in range(12)]
    done = asyncio.Event()
    reports: list[CollectionReport] = []

    async def collect(store: Store) -> None:
        while not done.is_set() or len(reports) < 10:
            # A lease lasts for two collections, and what is in the trash for three.
            store.clock.seconds += SESSION_SECONDS / 2
            await store.ingest.pool.close()
            reports.append(await store.collector.collect("acme"))

    async def write(store: Store, worker: int) -> None:
        for turn in range(12):
            files: Files = {f"{n}": (shared[(worker + turn + n) % 12], b"%d %d" % (worker, turn)) for n in range(4)}
            version = os.urandom(16)
            for attempt in range(10):
                try:
                    tree = await put_tree(store.ingest, files)
                    await store.ingest.pins.acquire("acme", version, tree)
                    break
                except (AssertionError, MissingBlobs, TreeNotFound, ContentMoved, SessionExpired):
                    # What a client does: send again.
                    assert attempt < 9
            await store.check(tree, files)
            if turn % 2:
                await store.ingest.pins.release("acme", version)

    async with new_store(kind, tmp_path, trash_seconds=SESSION_SECONDS * 1.5) as store:

        async def write_all() -> None:
            try:
                async with asyncio.TaskGroup() as writers:
                    for worker in range(4):
                        writers.create_task(write(store, worker))
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(write_all())
            group.create_task(collect(store))
        await store.check_usage()
        held = await store.index.pins.held("acme", b"", 100)
        assert len(held) == 24
        for pin in held:
            assert pin.tree_digest is not None
            entries, _ = await store.ingest.trees.list_page(
                "acme", pin.tree_digest, prefix="", fold=False, page_size=10, page_token="", max_bytes=1 << 20
            )
            assert len(entries) == 4
        assert sum(report.blobs_condemned for report in reports) > 0
        assert all(not report.unreadable_packs and not report.skipped for report in reports)


async def test_a_tree_is_refused_whose_pages_were_collected_while_it_was_put(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session lapsed meanwhile: otherwise it would hold them."""
    await store.put(FILES)
    session = await store.ingest.open_session("acme")
    small = FileEntry("other name", blake3_digest(b"small"), 5, False)

    async def condemn() -> None:
        await store.index.sessions.close("acme", session)
        async with store.index.database.write() as connection:
            await connection.exec_driver_sql("UPDATE packs SET state = 'condemned', generation = generation + 1")

    async with store.ingest.tree_writer("acme", session, 0) as writer:
        await writer.add([small])
        before(monkeypatch, writer, "_packs_of_pages", condemn)
        with pytest.raises(ContentMoved):
            await writer.finish(None)
    assert len(await store.states(trees)) == 1
