"""What a collection promises, on each database: what is needed stays, and the rest goes, after a while in the trash."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lading_format.digest import blake3_digest
from lading_server.common.errors import TreeNotFound
from lading_server.ingest.domain.blobs import BlobOutcome, RecipePiece
from lading_server.ingest.domain.explain import Explainer
from lading_server.ingest.domain.recipes import ChunkSpan
from lading_server.ingest.index.schema import blobs, chunks, packs, recipe_parts, tree_pages, trees
from tests.support.collection import TRASH_SECONDS, Files, Store, new_store
from tests.support.content import put_chunks, put_tree
from tests.support.index import DATABASES, count

KEPT: Files = {"a/kept.bin": (b"kept " * 50, b"twice " * 50), "a/shared.bin": (b"shared " * 40, b"by both " * 40)}
GONE: Files = {"b/gone.bin": (b"gone " * 60, b"too " * 60), "a/shared.bin": KEPT["a/shared.bin"], "b/one": (b"one",)}


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(request.param, tmp_path) as opened:
        yield opened


async def test_a_store_where_nothing_was_ever_stored_has_nothing_to_collect(store: Store) -> None:
    report = await store.collector.collect("nobody")
    assert (report.entity, report.packs_condemned, report.examples) == ("nobody", 0, [])


async def test_what_a_pin_holds_stays_whatever_time_passes(store: Store) -> None:
    tree, _ = await store.pinned(KEPT)
    before = await store.snapshot()
    for _ in range(3):
        store.clock.seconds += TRASH_SECONDS
        report = await store.collector.collect("acme")
        assert (report.trees_condemned, report.blobs_condemned, report.packs_condemned) == (0, 0, 0)
        assert report.skipped == report.unreadable_packs == []
    assert await store.snapshot() == before
    await store.check(tree, KEPT)


async def test_what_was_released_goes_to_the_trash_and_then_for_good(store: Store) -> None:
    kept, _ = await store.pinned(KEPT)
    gone, version = await store.pinned(GONE)
    packs_before = await store.states(packs)
    await store.ingest.pins.release("acme", version)
    report = await store.collector.collect("acme")
    assert (report.trees_condemned, report.blobs_condemned) == (1, 2)
    assert report.packs_condemned == report.packs_in_trash == 2
    assert report.bytes_condemned == report.bytes_in_trash > 0
    assert report.packs_deleted == report.bytes_freed == 0
    assert {(one.kind, one.why) for one in report.examples} == {
        ("tree", "no pin and no upload needs it"),
        ("blob", "no tree and no upload needs it"),
        ("pack", "nothing needs what it has"),
    }
    await store.check_usage()
    # Invisible at once.
    with pytest.raises(TreeNotFound):
        await store.index.trees.get("acme", gone)
    one = blake3_digest(b"one")
    assert await store.index.blobs.stat("acme", [one]) == {}
    assert await store.index.chunks.locate("acme", [one]) == {}
    store.clock.seconds += TRASH_SECONDS - 1
    assert (await store.collector.collect("acme")).packs_deleted == 0
    store.clock.seconds += 1
    # Past its time by now, and not yet when the registry was asked: it may have been put back since.
    asked_at_ms = int(store.clock.seconds * 1000) - 1
    for dry_run in (True, False):
        early = await store.collector.collect("acme", dry_run=dry_run, reconciled_at_ms=asked_at_ms)
        assert (early.trees_deleted, early.blobs_deleted, early.packs_deleted) == (0, 0, 0)
    last = await store.collector.collect("acme", reconciled_at_ms=asked_at_ms + 1)
    assert (last.trees_deleted, last.blobs_deleted, last.packs_deleted) == (1, 2, 2)
    assert (last.bytes_freed, last.packs_in_trash, last.bytes_in_trash) == (report.bytes_condemned, 0, 0)
    assert set(store.storage.packs()) == {pack for pack in store.storage.packs() if pack.bytes in packs_before}
    assert len(list(store.storage.packs())) == len(packs_before) - 2
    assert await store.all_states() == [{"live"}, {"live"}, {"sealed"}]
    assert (await count(store.index, chunks), await count(store.index, recipe_parts)) == (5, 2)
    assert await count(store.index, tree_pages) == 1
    await store.check_usage()
    await store.check(kept, KEPT)


async def test_a_new_upload_takes_content_out_of_the_trash(store: Store) -> None:
    tree, version = await store.pinned(GONE)
    await store.ingest.pins.release("acme", version)
    await store.collector.collect("acme")
    assert await store.all_states() == [{"condemned"}, {"condemned"}, {"condemned"}]
    again, _ = await store.pinned(GONE)
    assert again == tree
    store.clock.seconds += TRASH_SECONDS
    await store.collector.collect("acme")
    assert await store.all_states() == [{"live"}, {"live"}, {"sealed"}]
    await store.check(tree, GONE)
    await store.check_usage()


async def test_a_revived_tree_is_whole_again_and_found_by_its_records(store: Store) -> None:
    tree, version = await store.pinned(GONE)
    stored_bytes = await store.index.usage.stored_bytes("acme")
    await store.ingest.pins.release("acme", version)
    await store.collector.collect("acme")
    with pytest.raises(TreeNotFound):
        await store.ingest.pins.acquire("acme", os.urandom(16), tree)
    assert await store.collector.revive("acme", tree)
    assert await store.index.usage.stored_bytes("acme") == stored_bytes
    await store.check_usage()
    await store.ingest.pins.acquire("acme", os.urandom(16), tree)
    # Once more: nothing is in the trash.
    assert await store.collector.revive("acme", tree)
    await store.lapse()
    for _ in range(2):
        store.clock.seconds += TRASH_SECONDS
        await store.collector.collect("acme")
    await store.check(tree, GONE)
    await store.check_usage()


async def test_what_is_gone_for_good_is_not_revived(store: Store) -> None:
    tree, version = await store.pinned(GONE)
    await store.ingest.pins.release("acme", version)
    assert not await store.collector.revive("acme", os.urandom(32))
    assert not await store.collector.revive("nobody", tree)
    await store.collector.collect("acme")
    store.clock.seconds += TRASH_SECONDS
    await store.collector.collect("acme")
    assert await store.all_states() == [set(), set(), set()]
    assert not await store.collector.revive("acme", tree)


@pytest.mark.parametrize("trash_seconds", [0, TRASH_SECONDS])
async def test_a_rehearsal_changes_nothing_and_says_what_the_run_then_does(
    tmp_path: Path, trash_seconds: int, request: pytest.FixtureRequest
) -> None:
    for kind in DATABASES:
        directory = tmp_path / kind
        directory.mkdir()
        async with new_store(kind, directory, trash_seconds=trash_seconds, window_digests=10) as store:
            _, version = await store.pinned({"old": (b"old " * 80,)})
            await store.ingest.pins.release("acme", version)
            await store.collector.collect("acme")
            store.clock.seconds += TRASH_SECONDS
            kept: dict[str, tuple[bytes, ...]] = {f"kept/{n:03}": (b"%d kept" % n * 9, b"x%d" % n) for n in range(40)}
            await put_tree(store.ingest, {f"gone/{n:03}": (b"%d gone" % n * 30, b"y%d" % n) for n in range(30)})
            tree, _ = await store.pinned(kept)
            before = await store.snapshot()
            foretold = await store.collector.collect("acme", dry_run=True)
            assert await store.snapshot() == before
            done = await store.collector.collect("acme")
            assert done == foretold
            assert (done.trees_condemned, done.blobs_condemned, done.packs_compacted) == (1, 30, 2)
            # Those that lay in the trash before; without a trash also those that this run condemned.
            assert done.packs_deleted == (done.packs_condemned if trash_seconds == 0 else 2)
            assert done.packs_in_trash == (0 if trash_seconds == 0 else done.packs_condemned)
            await store.check(tree, kept)
            await store.check_usage()


async def test_ten_digests_at_a_time_come_to_the_same_in_more_passes(tmp_path: Path) -> None:
    files: dict[str, tuple[bytes, ...]] = {f"{n:03}": (b"file %d" % n, b"rest %d" % n) for n in range(150)}
    some = dict(list(files.items())[::3])
    for kind in DATABASES:
        directory = tmp_path / kind
        directory.mkdir()
        async with new_store(kind, directory, window_digests=10) as store:
            gone = await put_tree(store.ingest, files)
            kept, _ = await store.pinned(some)
            report = await store.collector.collect("acme")
            assert (report.trees_condemned, report.blobs_condemned) == (1, 100)
            assert report.packs_compacted == 2
            assert (await store.states(trees))[gone] == "condemned"
            live = {digest for digest, state in (await store.states(blobs)).items() if state == "live"}
            assert live == {blake3_digest(b"".join(parts)) for parts in some.values()}
            store.clock.seconds += TRASH_SECONDS
            await store.collector.collect("acme")
            await store.check(kept, some)
            await store.check_usage()


async def test_entities_never_touch_each_other(store: Store) -> None:
    mine, version = await store.pinned(GONE)
    theirs, _ = await store.pinned(GONE, entity="rival")
    assert mine == theirs
    await store.ingest.pins.release("acme", version)
    await store.put({"loose": (b"nobody pins this",)}, entity="rival")
    before = (await store.states(packs)).copy()
    report = await store.collector.collect("acme")
    assert report.trees_condemned == 1
    store.clock.seconds += TRASH_SECONDS
    await store.collector.collect("acme")
    after = await store.states(packs)
    assert len(before) - len(after) == report.packs_condemned
    assert set(after.values()) == {"sealed"}
    await store.check(theirs, GONE, entity="rival")
    await store.check_usage()


# --- leases ---


async def test_what_a_session_holds_stays_until_it_lapses(store: Store) -> None:
    session = await store.ingest.open_session("acme")
    await put_chunks(store.ingest, [b"put by another session"])
    await store.ingest.pool.close()
    assert await store.ingest.find_missing("acme", session, [blake3_digest(b"put by another session")]) == []
    store.clock.seconds += 3000
    await store.ingest.renew_session("acme", session)
    assert (await store.collector.collect("acme")).packs_condemned == 0
    await store.ingest.close_session("acme", session)
    store.clock.seconds += 601
    assert (await store.collector.collect("acme")).packs_condemned == 1


async def test_a_blob_whose_chunks_a_session_holds_stays_without_a_tree(store: Store) -> None:
    parts = [b"first part", b"second part"]
    await put_chunks(store.ingest, parts)
    session = await store.ingest.open_session("acme")
    digest = blake3_digest(b"".join(parts))
    intake = await store.ingest.blob_intake("acme", session, 0)
    spans = [ChunkSpan(blake3_digest(part), len(part)) for part in parts]
    (result,) = await intake.take([RecipePiece(digest, sum(map(len, parts)), spans, False)])
    assert result.outcome is BlobOutcome.COMMITTED
    await store.ingest.pool.close()
    assert (await store.collector.collect("acme")).blobs_condemned == 0
    await store.lapse()
    assert (await store.collector.collect("acme")).blobs_condemned == 1


async def test_a_tree_that_was_just_put_is_left_alone_for_a_while(store: Store) -> None:
    await put_tree(store.ingest, GONE)
    await store.ingest.pool.close()
    async with store.index.database.write() as connection:
        await connection.exec_driver_sql("DELETE FROM sessions")
    assert (await store.collector.collect("acme")).trees_condemned == 0
    store.clock.seconds += 3600
    assert (await store.collector.collect("acme")).trees_condemned == 1


async def test_an_upload_keeps_its_chunks_while_it_is_open_and_its_blob_when_it_is_complete(store: Store) -> None:
    data = os.urandom(3 << 20)
    async with store.ingest.file_upload("acme", None, "half", 0) as upload:
        await upload.begin(0)
        await upload.take(data)
        await upload.suspend()
    await store.lapse()
    assert (await store.collector.collect("acme")).packs_condemned == 0
    durable_bytes = (await store.index.uploads.get("acme", "half")).durable_bytes
    assert durable_bytes > 0
    async with store.ingest.file_upload("acme", None, "half", 0) as upload:
        await upload.begin(durable_bytes)
        await upload.take(data[durable_bytes:])
        done = await upload.finish(None, None)
    assert done.digest == blake3_digest(data)
    await store.lapse()
    report = await store.collector.collect("acme")
    assert (report.blobs_condemned, report.packs_condemned) == (0, 0)
    async with store.index.database.write() as connection:
        await connection.exec_driver_sql("DELETE FROM uploads")
    report = await store.collector.collect("acme")
    assert report.blobs_condemned == 1
    assert report.packs_condemned == len(list(store.storage.packs()))


# --- damage ---


async def test_a_damaged_pack_goes_when_nothing_lies_in_it_any_more(store: Store) -> None:
    tree, _ = await store.pinned({"f": (b"lost and found",)})
    chunk = blake3_digest(b"lost and found")
    (place,) = (await store.index.chunks.locate("acme", [chunk])).values()
    await store.index.packs.mark_damaged(place.pack)
    assert (await store.collector.collect("acme")).packs_condemned == 0
    assert (await store.states(packs))[place.pack.bytes] == "damaged"
    await put_chunks(store.ingest, [b"lost and found"])
    await store.lapse()
    report = await store.collector.collect("acme")
    assert [one.why for one in report.examples] == ["it is damaged, and nothing lies in it any more"]
    store.clock.seconds += TRASH_SECONDS
    assert (await store.collector.collect("acme")).packs_deleted == 1
    await store.check(tree, {"f": (b"lost and found",)})
    await store.check_usage()


async def test_no_blob_is_condemned_while_a_page_of_a_tree_cannot_be_read(store: Store) -> None:
    tree, _ = await store.pinned(KEPT)
    await store.put({"loose": (b"nobody needs this",)})
    (page,) = await store.index.trees.pages("acme", tree, None, 10)
    (place,) = (await store.index.chunks.locate("acme", [page.page_digest])).values()
    store.storage.corrupt(place.pack, place.offset + 70)  # type: ignore[attr-defined]
    report = await store.collector.collect("acme")
    assert (report.trees_condemned, report.blobs_condemned) == (1, 0)
    assert "store the tree again" in report.skipped[0]
    # Nothing has to read the page to know that its pack stays: the tree's rows say it.
    assert report.unreadable_packs == []
    assert (await store.states(packs))[place.pack.bytes] == "sealed"


# --- explaining ---


async def test_an_explanation_names_what_keeps_a_chunk_a_blob_and_a_tree(store: Store) -> None:
    tree, version = await store.pinned(GONE)
    explainer = Explainer(store.index, store.storage, store.ingest.workers, store.ingest.settings, clock=store.clock)
    chunk, blob = blake3_digest(GONE["b/gone.bin"][0]), blake3_digest(b"".join(GONE["b/gone.bin"]))
    for digest in (chunk, blob, tree):
        told = await explainer.explain("acme", digest)
        assert (told.trees, told.version_uids, told.session_count, told.goes_at_ms) == ([tree], [version], 0, None)
        assert {pack.state for pack in told.packs} == {"sealed"}
    assert (await explainer.explain("acme", chunk)).blobs == [blob]
    await store.ingest.pins.release("acme", version)
    now_ms = int(store.clock.seconds * 1000)
    await store.collector.collect("acme")
    for digest in (chunk, blob, tree):
        told = await explainer.explain("acme", digest)
        assert (told.version_uids, told.goes_at_ms) == ([], now_ms + TRASH_SECONDS * 1000)
        assert {pack.state for pack in told.packs} == {"condemned"}
    unknown = await explainer.explain("acme", os.urandom(32))
    assert (unknown.tree, unknown.blob, unknown.is_chunk, unknown.packs) == (None, None, False, [])
    assert (await explainer.explain("nobody", tree)).trees == []
