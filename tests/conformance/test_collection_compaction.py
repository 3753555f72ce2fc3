"""Compaction, on each database: what is needed is copied and verified, and nothing is dropped that cannot be read."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from lading_format.digest import blake3_digest
from lading_server.ingest.domain import compaction, pack_pool
from lading_server.ingest.domain.recipes import recipe_record_place
from lading_server.ingest.domain.tree_pages import decode_tree_record
from lading_server.ingest.index.schema import packs
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.reader import read_index, read_trailer, scan_records
from lading_server.ingest.packs.storage import PackStorage
from tests.support.collection import TRASH_SECONDS, Files, Store, before, new_store, opened_store
from tests.support.content import put_tree
from tests.support.index import DATABASES, FakeClock, database_url

KEPT: Files = {"kept/a": (b"kept a " * 40, b"kept b " * 40), "kept/one": (b"kept one " * 20,)}
GONE: Files = {"gone/a": (b"gone a " * 40, b"gone b " * 40), "gone/one": (b"gone one " * 20,)}


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(request.param, tmp_path) as opened:
        yield opened


async def half_dead(store: Store) -> tuple[bytes, set[UUID]]:
    """Put two trees into the same packs and pin one; return it, and the packs."""
    await put_tree(store.ingest, GONE)
    tree, _ = await store.pinned(KEPT)
    return tree, set(store.storage.packs())


def meta_records(storage: PackStorage, packs: Iterable[UUID] | None = None) -> Iterator[tuple[RecordType, bytes]]:
    """Yield the RECIPE and TREE records of sealed packs, or of all, and what they are of."""
    for pack in storage.packs() if packs is None else packs:
        for record in scan_records(storage, pack, read_trailer(storage, pack).index_offset):
            if record.header.type is RecordType.RECIPE:
                yield record.header.type, recipe_record_place(record.payload)[0]
            elif record.header.type is RecordType.TREE:
                yield record.header.type, decode_tree_record(record.payload)[0].digest


async def test_a_pack_that_is_half_dead_is_copied_and_goes(store: Store) -> None:
    tree, old = await half_dead(store)
    sizes = sum(map(store.storage.size, old))
    report = await store.collector.collect("acme")
    assert (report.packs_compacted, report.packs_condemned, report.bytes_condemned) == (2, 2, sizes)
    assert 0 < report.bytes_compacted < sizes
    assert {one.why for one in report.examples if one.kind == "pack"} <= {f"{n} % of it is dead" for n in range(25, 80)}
    await store.check(tree, KEPT)
    await store.check_usage()
    store.clock.seconds += TRASH_SECONDS
    last = await store.collector.collect("acme")
    assert (last.packs_deleted, last.bytes_freed, last.packs_compacted) == (2, sizes, 0)
    assert not old & set(store.storage.packs())
    await store.check(tree, KEPT)
    await store.check_usage()


async def test_a_pack_that_is_a_little_dead_is_left_alone(store: Store) -> None:
    await put_tree(store.ingest, {"gone": (b"little",)})
    await store.pinned({f"{n}": (b"%d" % n * 400,) for n in range(20)})
    before_ = await store.states(packs)
    report = await store.collector.collect("acme")
    assert (report.blobs_condemned, report.packs_compacted) == (1, 0)
    assert await store.states(packs) == before_


async def test_what_a_rebuild_needs_survives_the_compaction_of_a_meta_pack(store: Store) -> None:
    tree, _ = await half_dead(store)
    await store.collector.collect("acme")
    store.clock.seconds += TRASH_SECONDS
    await store.lapse()
    await store.collector.collect("acme")
    large = blake3_digest(b"".join(KEPT["kept/a"]))
    assert sorted(meta_records(store.storage)) == [(RecordType.RECIPE, large), (RecordType.TREE, tree)]


async def test_the_parts_of_a_recipe_stay_in_one_pack(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three parts each, and the same for what goes, so that the packs are half dead.
    await put_tree(store.ingest, {"gone": tuple(b"gone %04d" % number for number in range(2500))})
    kept = {"kept": tuple(b"kept %04d" % number for number in range(2500))}
    tree, _ = await store.pinned(kept)
    # Each step has one record, and fills its pack.
    monkeypatch.setattr(compaction, "_STEP_RECORDS", 1)
    monkeypatch.setattr(pack_pool, "MOST_RECORDS", 1)
    await store.collector.collect("acme")
    store.clock.seconds += TRASH_SECONDS
    await store.lapse()
    await store.collector.collect("acme")
    recipes = {
        pack: [kind for kind, _ in meta_records(store.storage, [pack]) if kind is RecordType.RECIPE]
        for pack in store.storage.packs()
    }
    assert [len(of_pack) for of_pack in recipes.values() if of_pack] == [3]
    await store.check(tree, kept)


async def test_a_recipe_that_was_replaced_is_not_copied(store: Store) -> None:
    whole = b"".join(KEPT["kept/a"])
    await put_tree(store.ingest, {"cut": [whole[at : at + 20] for at in range(0, len(whole), 20)]})
    digest = blake3_digest(whole)
    async with store.index.database.write() as connection:
        await connection.exec_driver_sql("UPDATE blobs SET state = 'damaged'")
    tree, _ = await store.pinned({"cut": (whole[:90], whole[90:])})
    assert [subject for kind, subject in meta_records(store.storage) if kind is RecordType.RECIPE] == [digest, digest]
    await store.collector.collect("acme")
    store.clock.seconds += TRASH_SECONDS
    await store.lapse()
    await store.collector.collect("acme")
    assert [subject for kind, subject in meta_records(store.storage) if kind is RecordType.RECIPE] == [digest]
    await store.check(tree, {"cut": (whole,)})


async def test_after_a_revival_the_records_of_the_tree_are_there_for_a_rebuild(store: Store) -> None:
    tree = await store.put(KEPT)
    await store.collector.collect("acme")
    assert await store.collector.revive("acme", tree)
    await store.ingest.pins.acquire("acme", os.urandom(16), tree)
    await store.lapse()
    for _ in range(2):
        store.clock.seconds += TRASH_SECONDS
        await store.collector.collect("acme")
        await store.lapse()
    assert {kind for kind, _ in meta_records(store.storage)} == {RecordType.RECIPE, RecordType.TREE}
    await store.check(tree, KEPT)


@pytest.mark.parametrize("needed", [b"kept a " * 40, None])
async def test_a_pack_with_a_record_that_cannot_be_read_is_left_alone(store: Store, needed: bytes | None) -> None:
    tree, old = await half_dead(store)
    if needed is None:
        (pack,) = [pack for pack in old if any(e.type is RecordType.TREE for e in read_index(store.storage, pack))]
        entry = next(e for e in read_index(store.storage, pack) if e.type is RecordType.TREE)
        offset = entry.offset
    else:
        place = (await store.index.chunks.locate("acme", [blake3_digest(needed)]))[blake3_digest(needed)]
        pack, offset = place.pack, place.offset
    store.storage.corrupt(pack, offset + 70)  # type: ignore[attr-defined]
    report = await store.collector.collect("acme")
    assert report.unreadable_packs == [str(pack)]
    assert str(pack) in report.skipped[0]
    assert report.packs_compacted == 1
    assert (await store.states(packs))[pack.bytes] == "sealed"
    if needed is None:
        await store.check(tree, KEPT)
    # The bytes come back, and so does the compaction.
    store.storage.corrupt(pack, offset + 70)  # type: ignore[attr-defined]
    await store.lapse()
    assert (await store.collector.collect("acme")).unreadable_packs == []
    await store.check(tree, KEPT)
    await store.check_usage()


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_damaged_page_that_nothing_needs_does_not_keep_its_pack(store: Store, keeps: bool) -> None:
    tree = await put_tree(store.ingest, KEPT)
    await put_tree(store.ingest, GONE)
    if keeps:
        await store.ingest.pins.acquire("acme", os.urandom(16), tree)
    await store.lapse()
    old = list(store.storage.packs())
    (pack,) = [pack for pack in old if any(e.type is RecordType.TREE for e in read_index(store.storage, pack))]
    pages = {record.digest for record in read_index(store.storage, pack) if record.type is RecordType.TREE_PAGE}
    if keeps:
        pages -= {page.page_digest for page in await store.index.trees.pages("acme", tree, None, 10)}
    for page, place in (await store.index.chunks.locate("acme", list(pages))).items():
        store.storage.corrupt(pack, place.offset + 70)  # type: ignore[attr-defined]
        assert (await store.ingest.losses.mark_lost("acme", page, place)).chunks == {page}
    report = await store.collector.collect("acme")
    assert report.unreadable_packs == []
    assert (await store.states(packs))[pack.bytes] == "condemned"
    if keeps:
        await store.check(tree, KEPT)
    await store.check_usage()


async def test_a_commit_of_what_was_dead_wins_against_its_compaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, _ = await half_dead(store)
    again: list[bytes] = []

    async def commit() -> None:
        again.append(await put_tree(store.ingest, GONE))

    before(monkeypatch, store.collector._condemner, "move", commit)
    report = await store.collector.collect("acme")
    assert report.packs_compacted < 2
    await store.ingest.pins.acquire("acme", os.urandom(16), again[0])
    await store.lapse()
    for _ in range(3):
        store.clock.seconds += TRASH_SECONDS
        await store.collector.collect("acme")
        await store.lapse()
    await store.check(tree, KEPT)
    await store.check(again[0], GONE)
    await store.check_usage()


async def test_the_copy_that_lost_is_garbage_and_goes_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, _ = await half_dead(store)

    async def find() -> None:
        session = await store.ingest.open_session("acme")
        assert await store.ingest.find_missing("acme", session, [blake3_digest(KEPT["kept/one"][0])]) == []

    before(monkeypatch, store.collector._condemner, "move", find)
    report = await store.collector.collect("acme")
    assert (report.packs_compacted, report.packs_condemned) == (1, 1)
    await store.lapse()
    report = await store.collector.collect("acme")
    assert report.packs_compacted == 1
    assert "nothing needs what it has" in {one.why for one in report.examples}
    await store.check(tree, KEPT)
    await store.check_usage()


async def test_rows_of_a_pack_of_very_many_chunks_move_in_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading_server.ingest.domain.compaction._MOVES", 3)
    monkeypatch.setattr("lading_server.ingest.domain.compaction._STEP_RECORDS", 4)
    kept: Files = {f"{n:02}": (b"kept %d " % n * 9,) for n in range(20)}
    await put_tree(store.ingest, {f"{n:02}": (b"gone %d " % n * 9,) for n in range(20)})
    tree, _ = await store.pinned(kept)
    assert (await store.collector.collect("acme")).packs_compacted == 2
    await store.check(tree, kept)
    await store.check_usage()


@pytest.mark.parametrize("kind", DATABASES)
async def test_without_free_space_nothing_is_compacted_and_the_rest_is_done(tmp_path: Path, kind: str) -> None:
    clock = FakeClock()
    storage = LocalPackStorage(tmp_path / "data")
    try:
        async with database_url(kind, tmp_path) as url:
            async with opened_store(url, storage, clock) as store:
                tree, old = await half_dead(store)
                dead = await store.put({"loose": (b"nobody needs this",)})
            async with opened_store(url, storage, clock, min_free_bytes=1 << 50) as store:
                foretold = await store.collector.collect("acme", dry_run=True)
                report = await store.collector.collect("acme")
                # What is free changes while others write to the disk.
                assert len(foretold.skipped) == len(report.skipped)
                foretold.skipped = report.skipped
                assert foretold == report
                assert (report.packs_compacted, report.packs_condemned) == (0, 2)
                assert len(report.skipped) == 2
                assert "reserve" in report.skipped[0]
                assert (await store.states(packs))[next(iter(old)).bytes] == "sealed"
                assert dead not in [row.digest for row in await store.collector._marks.trees(1, b"", 10)]
                await store.check(tree, KEPT)
    finally:
        storage.close()
