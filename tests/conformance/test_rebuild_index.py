"""rebuild-index: what is made from the packs alone is what was there, and what is damaged costs no more than itself."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_server.common.database import DatabaseUnavailable
from lading_server.common.unfinished import read_unfinished, refuse_unfinished, write_unfinished
from lading_server.ingest.index.schema import ContentState, PackState, blobs, chunks, packs, store, trees
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import HEADER_BYTES, RecordType
from lading_server.ingest.packs.local import LocalPackStorage, StoreLocked
from lading_server.ingest.packs.reader import read_index, read_trailer, verify_pack
from lading_server.ingest.rebuild.report import Report
from lading_server.maintenance.halves import MaintenanceRefused, Places
from lading_server.maintenance.rebuild import bring_up_to_packs, rebuild_index
from tests.support.disks import FaultyPacks
from tests.support.index import DATABASES, database_url
from tests.support.stores import check_content, fill, rows_of

SEED = 20261125


@pytest.fixture(params=DATABASES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with database_url(request.param, tmp_path) as empty:
        yield empty


@pytest.fixture
async def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "other").mkdir()
    async with database_url("sqlite", tmp_path / "other") as empty:
        yield empty


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def pack_files(data: Path) -> list[Path]:
    return sorted((data / "packs").glob("*/*.pack"), key=lambda path: path.name)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


async def chunk_places(url: str, kind: RecordType = RecordType.CHUNK) -> list[tuple[bytes, UUID, int]]:
    index = await ContentIndex.open(url)
    try:
        async with index.database.read() as connection:
            query = sa.select(chunks.c.digest, chunks.c.pack_id, chunks.c.record_offset).where(chunks.c.kind == kind)
            rows = await connection.execute(query.order_by(chunks.c.entity_id, chunks.c.digest))
            return [(digest, UUID(bytes=pack), offset) for digest, pack, offset in rows]
    finally:
        await index.close()


async def states(url: str, table: sa.Table) -> dict[bytes, str]:
    index = await ContentIndex.open(url)
    try:
        key = table.c.id if table is packs else table.c.digest
        async with index.database.read() as connection:
            return {row[0]: row.state for row in await connection.execute(sa.select(key, table.c.state))}
    finally:
        await index.close()


def offsets_of(places: list[tuple[bytes, UUID, int]]) -> dict[UUID, list[int]]:
    """Return where the chunks of each pack are, in order."""
    by_pack: dict[UUID, list[int]] = {}
    for _, pack, offset in sorted(places, key=lambda place: place[1:]):
        by_pack.setdefault(pack, []).append(offset)
    return by_pack


def path_of(data: Path, pack: UUID) -> Path:
    (path,) = (data / "packs").glob(f"*/{pack.hex}.pack")
    return path


async def test_an_index_made_from_packs_is_the_one_that_was_there(url: str, other_url: str, data: Path) -> None:
    content = await fill(data, url, seed=SEED)
    report = await rebuild_index(Places(data, other_url))
    assert report.is_whole
    assert await rows_of(other_url) == await rows_of(url)
    await check_content(data, other_url, content)


async def test_both_databases_are_made_alike_and_trusted_recipes_make_the_same(
    url: str, other_url: str, data: Path
) -> None:
    await fill(data, other_url, seed=SEED)
    report = await rebuild_index(Places(data, url), trusts_recipes=True)
    assert report.is_whole
    assert await rows_of(url) == await rows_of(other_url)


async def test_what_is_there_is_not_overwritten_and_force_keeps_it(url: str, data: Path) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    before = await rows_of(url)
    with pytest.raises(MaintenanceRefused, match="--catch-up"):
        await rebuild_index(Places(data, url))
    assert await rows_of(url) == before
    await rebuild_index(Places(data, url), force=True)
    assert await rows_of(url) == before
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        (kept,) = [one for one in path.parent.glob("index.db.kept-*") if one.name.endswith("Z")]
        assert await rows_of(f"sqlite:///{kept}") == before


async def test_a_server_that_runs_keeps_its_directory(url: str, data: Path) -> None:
    storage = LocalPackStorage(data)
    with pytest.raises(StoreLocked):
        await rebuild_index(Places(data, url))
    storage.close()


async def test_a_pack_that_a_crash_left_open_is_read_to_its_last_whole_record_and_sealed(
    url: str, other_url: str, data: Path
) -> None:
    rng = random.Random(SEED)
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    last: dict[UUID, int] = {}
    for _, pack, offset in places:
        last[pack] = max(offset, last.get(pack, 0))
    pack, offset = min(last.items())
    path = path_of(data, pack)
    # Somewhere within its last record.
    torn = offset + rng.randrange(1, HEADER_BYTES)
    path.write_bytes(path.read_bytes()[:torn])
    report = await rebuild_index(Places(data, other_url))
    lost = {digest for digest, where, at in places if (where, at) == (pack, offset)}
    assert {digest for digest, *_ in places} - {digest for digest, *_ in await chunk_places(other_url)} == lost
    assert report.damaged_records.count == 0
    storage = LocalPackStorage(data)
    verify_pack(storage, pack)
    storage.close()
    assert (await states(other_url, packs))[pack.bytes] == PackState.SEALED


@pytest.mark.parametrize("part", ["pack header", "header", "payload"])
async def test_a_pack_that_a_crash_left_open_and_that_is_damaged_is_sealed_with_what_is_whole(
    url: str, other_url: str, data: Path, part: str
) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    pack, offsets = next(item for item in offsets_of(places).items() if len(item[1]) > 2)
    path = path_of(data, pack)
    # Without index and trailer, as before it was sealed; and the one before the last record is damaged.
    storage = LocalPackStorage(data)
    end = read_trailer(storage, pack).index_offset
    storage.close()
    path.write_bytes(path.read_bytes()[:end])
    flip(path, {"pack header": 20, "header": offsets[-2] + 8, "payload": offsets[-2] + HEADER_BYTES}[part])
    report = await rebuild_index(Places(data, other_url))
    lost = set() if part == "pack header" else {(pack, offsets[-2])}
    assert {(where, at) for _, where, at in places} - {(w, a) for _, w, a in await chunk_places(other_url)} == lost
    assert report.damaged_records.count == len(lost)
    assert report.lost_packs.count == 0
    storage = LocalPackStorage(data)
    assert len(read_index(storage, pack)) == len(offsets) + 1 - (part == "header")
    storage.close()
    assert (await states(other_url, packs))[pack.bytes] == PackState.SEALED


@pytest.mark.parametrize("part", ["header", "payload"])
async def test_a_damaged_record_loses_its_chunk_and_no_other(url: str, other_url: str, data: Path, part: str) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    rng = random.Random(SEED)
    places = await chunk_places(url)
    digest, pack, offset = rng.choice(places)
    flip(path_of(data, pack), offset + (8 if part == "header" else HEADER_BYTES))
    report = await rebuild_index(Places(data, other_url))
    after = await chunk_places(other_url)
    assert set(places) - set(after) == {(digest, pack, offset)}
    assert set(after) <= set(places)
    assert report.damaged_records.count == 1
    # Whatever was made of it is damaged or not there; everything else is live.
    live = {one for one, state in (await states(other_url, blobs)).items() if state == ContentState.LIVE}
    was_live = set(await states(url, blobs))
    index = await ContentIndex.open(url)
    try:
        needing = {digest}
        for blob in was_live:
            size = (await index.blobs.stat("acme", [blob]))[blob].size_bytes
            async for ref in index.blobs.recipe("acme", blob, 0, size):
                if ref.digest == digest:
                    needing.add(blob)
    finally:
        await index.close()
    assert was_live - live == needing & was_live
    assert set((await states(other_url, trees)).values()) == {ContentState.LIVE}


async def test_a_damaged_page_makes_its_trees_damaged(url: str, other_url: str, data: Path) -> None:
    content = await fill(data, url, seed=SEED, entity_names=["acme"])
    (_, pack, offset), *_ = await chunk_places(url, RecordType.TREE_PAGE)
    flip(path_of(data, pack), offset + HEADER_BYTES)
    report = await rebuild_index(Places(data, other_url))
    assert report.damaged_trees.count >= 1
    found = await states(other_url, trees)
    assert set(found) == {tree for _, tree in content}
    assert ContentState.DAMAGED in found.values()


async def test_a_pack_with_a_damaged_owner_or_header_is_told_from_the_others(
    url: str, other_url: str, data: Path
) -> None:
    content = await fill(data, url, seed=SEED)
    *_, first, second = pack_files(data)
    flip(first, 2 * HEADER_BYTES)
    flip(second, 20)
    report = await rebuild_index(Places(data, other_url))
    assert report.lost_packs.count == 0
    assert report.damaged_records.count == 1
    assert await rows_of(other_url) == await rows_of(url)
    await check_content(data, other_url, content)


async def rebuilt_from(places: Places, bad: tuple[UUID, int, int]) -> Report:
    """Make an index from packs, one of which has a place that cannot be read."""
    storage = LocalPackStorage(places.data)
    try:
        faulty = FaultyPacks(storage)
        faulty.bad = bad
        return await bring_up_to_packs(places, faulty)
    finally:
        storage.close()


async def test_a_pack_of_which_nothing_can_be_read_is_told_and_left_as_it_is(
    url: str, other_url: str, data: Path
) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    pack = places[0][1]
    before = path_of(data, pack).read_bytes()
    report = await rebuilt_from(Places(data, other_url), (pack, 0, 1 << 40))
    assert not report.is_whole
    assert [str(pack) in text for text in report.lost_packs.named] == [True]
    assert path_of(data, pack).read_bytes() == before
    # When the disk is back it is all there.
    report = await rebuild_index(Places(data, other_url), force=True)
    assert report.is_whole
    assert await rows_of(other_url) == await rows_of(url)


@pytest.mark.parametrize("part", ["last records", "trailer"])
async def test_a_sealed_pack_whose_end_cannot_be_read_is_told_and_not_cut(
    url: str, other_url: str, data: Path, part: str
) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    pack = places[0][1]
    path = path_of(data, pack)
    before = path.read_bytes()
    offsets = sorted(offset for _, where, offset in places if where == pack)
    begin = offsets[-2] if part == "last records" else len(before) - 1
    report = await rebuilt_from(Places(data, other_url), (pack, begin, len(before)))
    assert path.read_bytes() == before
    lost = {(pack, offset) for offset in (offsets[-2:] if part == "last records" else [])}
    assert {(where, at) for _, where, at in places} - {(w, a) for _, w, a in await chunk_places(other_url)} == lost
    assert report.lost_packs.count == 0
    # And a line for the end of the pack.
    assert report.damaged_records.count == 1 + bool(lost)
    assert (await states(other_url, packs))[pack.bytes] == PackState.SEALED


async def test_an_unsealed_pack_with_a_bad_place_before_its_last_whole_record_is_sealed(
    url: str, other_url: str, data: Path
) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    pack = places[0][1]
    path = path_of(data, pack)
    offsets = sorted(offset for _, where, offset in places if where == pack)
    # Without index and trailer, as before it was sealed.
    storage = LocalPackStorage(data)
    end = read_trailer(storage, pack).index_offset
    storage.close()
    os.truncate(path, end)
    report = await rebuilt_from(Places(data, other_url), (pack, offsets[-2] + HEADER_BYTES, offsets[-2] + 65))
    assert report.damaged_records.count == 1
    storage = LocalPackStorage(data)
    assert {entry.offset for entry in read_index(storage, pack)} >= set(offsets)
    storage.close()


async def test_catching_up_adopts_what_a_restored_index_does_not_know(url: str, other_url: str, data: Path) -> None:
    await fill(data, other_url, seed=1)
    old = Path(other_url.removeprefix("sqlite:///"))
    backup = old.with_name("backup.db")
    shutil.copy(old, backup)
    content = await fill(data, other_url, seed=2)
    now = await rows_of(other_url)
    restored = f"sqlite:///{backup}"
    # One that was open when the backup was made has grown since.
    index = await ContentIndex.open(restored)
    async with index.database.write() as connection:
        first = (await connection.scalars(sa.select(packs.c.id).order_by(packs.c.id))).first()
        await connection.execute(
            sa.update(packs).where(packs.c.id == first).values(state=PackState.OPEN.value, durable_bytes=64 + 72)
        )
    await index.close()
    report = await rebuild_index(Places(data, restored), catch_up=True)
    assert report.is_whole
    assert 0 < report.packs_known < report.packs
    assert await rows_of(restored) == now
    await check_content(data, restored, content)


async def test_catching_up_counts_what_is_gone_or_short_as_missing(url: str, data: Path) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    gone, short = sorted({pack for _, pack, _ in places})[:2]
    path_of(data, gone).unlink()
    path = path_of(data, short)
    path.write_bytes(path.read_bytes()[:-8])
    report = await rebuild_index(Places(data, url), catch_up=True)
    assert report.lost_packs.count == 2
    assert report.damaged_blobs.count > 0
    found = await states(url, packs)
    assert found[gone.bytes] == PackState.DAMAGED
    # What is left of the short one is good, and was adopted.
    assert found[short.bytes] == PackState.SEALED
    index = await ContentIndex.open(url)
    try:
        located = await index.chunks.locate("acme", [digest for digest, *_ in places])
        # Nothing is lost of the others; of the one that is gone, what has a copy in the short one is found there.
        assert set(located) >= {digest for digest, pack, _ in places if pack != gone}
        assert gone not in {location.pack for location in located.values()}
    finally:
        await index.close()


@pytest.mark.parametrize("what", ["half of it is gone", "a record is damaged, and the index has it as open"])
async def test_catching_up_forgets_what_is_not_whole_any_more_of_a_pack_that_it_knows(
    url: str, data: Path, what: str
) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    places = await chunk_places(url)
    pack, offsets = max(offsets_of(places).items(), key=lambda item: len(item[1]))
    middle = offsets[len(offsets) // 2]
    path = path_of(data, pack)
    if what.startswith("half"):
        path.write_bytes(path.read_bytes()[:middle])
        lost = {at for at in offsets if at >= middle}
    else:
        flip(path, middle + HEADER_BYTES)
        lost = {middle}
        index = await ContentIndex.open(url)
        async with index.database.write() as connection:
            await connection.execute(
                sa.update(packs).where(packs.c.id == pack.bytes).values(state=PackState.OPEN.value)
            )
        await index.close()
    report = await rebuild_index(Places(data, url), catch_up=True)
    assert not report.is_whole
    after = await chunk_places(url)
    assert {at for _, where, at in after if where == pack} == set(offsets) - lost
    assert (await states(url, packs))[pack.bytes] == PackState.SEALED
    # What needs them is damaged: the next upload of the same files sends them.
    gone = {digest for digest, where, at in places if where == pack and at in lost} - {digest for digest, *_ in after}
    assert gone
    live = {one for one, state in (await states(url, blobs)).items() if state == ContentState.LIVE}
    assert not gone & live


async def test_a_rebuild_that_ended_anywhere_is_done_again(url: str, other_url: str, data: Path) -> None:
    await fill(data, url, seed=SEED)

    class Stopped(Exception):
        pass

    steps = 0

    def stop_at(step: int) -> object:
        def notice(_report: Report) -> None:
            nonlocal steps
            steps += 1
            if steps == step:
                raise Stopped

        return notice

    step = 1
    while True:
        steps = 0
        try:
            await rebuild_index(Places(data, other_url), on_progress=stop_at(step))  # type: ignore[arg-type]
            break
        except Stopped:
            step += 3
            with pytest.raises(DatabaseUnavailable, match="lading rebuild-index"):
                refuse_unfinished(data)
    assert step > 10
    assert read_unfinished(data) == {}
    assert await rows_of(other_url) == await rows_of(url)


async def test_other_unfinished_work_comes_first(url: str, data: Path) -> None:
    data.mkdir()
    write_unfinished(data, {"command": "lading restore /backups/1", "backup": "00"})
    with pytest.raises(MaintenanceRefused, match="lading restore /backups/1"):
        await rebuild_index(Places(data, url))


async def test_the_store_goes_on_under_its_id_and_a_larger_epoch(url: str, other_url: str, data: Path) -> None:
    await fill(data, url, seed=SEED, entity_names=["acme"])
    before = await ContentIndex.open(url)
    async with before.database.read() as connection:
        was = (await connection.execute(sa.select(store))).one()
    await before.close()
    await rebuild_index(Places(data, other_url))
    index = await ContentIndex.open(other_url)
    try:
        epoch = await index.begin_epoch()
        assert epoch.store_id.bytes == was.store_id
        assert epoch.number > was.writer_epoch
    finally:
        await index.close()
