"""What a check finds, on each database: each damage at the level that has to see it, and nothing that is not so."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_server.common.errors import CheckRunning, CorruptRecord, TreeNotFound
from lading_server.ingest.domain.check import CheckRequest
from lading_server.ingest.domain.check_findings import FindingKind, Level
from lading_server.ingest.domain.content import BlobRange
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.rows import pack_refs
from lading_server.ingest.index.schema import blobs, chunks, packs, recipe_parts, tree_pages, trees, usage
from lading_server.ingest.packs.reader import read_index, read_trailer
from lading_server.ingest.packs.storage import PackClass
from tests.support.check import checked, execute, flip, forge, pack_path, packs_of_class, place_of, seal
from tests.support.content import opened_ingest, put_tree
from tests.support.index import DATABASES

_RANDOM = random.Random(5)
SMALL = _RANDOM.randbytes(19)
OTHER = _RANDOM.randbytes(4096)
# Of one length, so that they can change places and every sum still adds up.
LARGE = tuple(_RANDOM.randbytes(1000) for _ in range(3))
FILES = {"empty": (), "large.bin": LARGE, "other": (OTHER,), "small.txt": (SMALL,)}
LARGE_BLOB = blake3_digest(b"".join(LARGE))
VERSION = os.urandom(16)


class Store(NamedTuple):
    """An ingest with one pinned tree in sealed packs."""

    ingest: Ingest
    root: Path
    tree: bytes


@pytest.fixture(params=DATABASES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with opened_ingest(request.param, tmp_path) as ingest:
        tree = await put_tree(ingest, FILES)
        await ingest.pins.acquire("acme", VERSION, tree)
        await put_tree(ingest, {"theirs": (OTHER, SMALL)}, "rival")
        await seal(ingest)
        yield Store(ingest, tmp_path, tree)


async def path_of(store: Store, digest: bytes) -> Path:
    return pack_path(store.root, (await place_of(store.ingest, digest)).pack)


async def flip_payload(store: Store) -> None:
    place = await place_of(store.ingest, blake3_digest(LARGE[1]))
    flip(pack_path(store.root, place.pack), place.offset + 64 + 500)


async def flip_record_header(store: Store) -> None:
    place = await place_of(store.ingest, blake3_digest(LARGE[1]))
    flip(pack_path(store.root, place.pack), place.offset + 8)


async def forge_payload(store: Store) -> None:
    place = await place_of(store.ingest, blake3_digest(LARGE[1]))
    forge(pack_path(store.root, place.pack), place, lambda payload: payload.reverse())


async def flip_page(store: Store) -> None:
    place = await place_of(store.ingest, await page_of(store))
    flip(pack_path(store.root, place.pack), place.offset + 64 + 5)


async def page_of(store: Store) -> bytes:
    return (await store.ingest.index.trees.pages("acme", store.tree, None, 1))[0].page_digest


async def flip_pack_header(store: Store) -> None:
    flip(await path_of(store, blake3_digest(SMALL)), 20)


async def flip_trailer(store: Store) -> None:
    path = await path_of(store, blake3_digest(SMALL))
    flip(path, path.stat().st_size - 30)


async def flip_index_record(store: Store) -> None:
    place = await place_of(store.ingest, blake3_digest(SMALL))
    index_offset = read_trailer(store.ingest.storage, place.pack).index_offset
    flip(pack_path(store.root, place.pack), index_offset + 64 + 40)


async def flip_padding(store: Store) -> None:
    place = await place_of(store.ingest, blake3_digest(SMALL))
    # 19 bytes are padded to 24.
    flip(pack_path(store.root, place.pack), place.offset + 64 + 21)


async def flip_recipe(store: Store) -> None:
    place = await place_of(store.ingest, blake3_digest(LARGE[0]))
    metas = await packs_of_class(store.ingest, PackClass.META)
    assert place.pack not in metas
    for pack in metas:
        for entry in read_index(store.ingest.storage, pack):
            if entry.type.name == "RECIPE":
                flip(pack_path(store.root, pack), entry.offset + 64 + 3)
                return
    raise AssertionError("there is no recipe")


async def truncate(store: Store) -> None:
    places = [await place_of(store.ingest, blake3_digest(data)) for data in (*LARGE, SMALL, OTHER)]
    last = max(places, key=lambda place: place.offset)
    os.truncate(pack_path(store.root, last.pack), last.offset + 70)


async def delete_pack(store: Store) -> None:
    (await path_of(store, blake3_digest(SMALL))).unlink()


async def delete_meta_pack(store: Store) -> None:
    (await path_of(store, await page_of(store))).unlink()


async def add_stray_file(store: Store) -> None:
    name = "0190a5b0c0007000800000000000abcd"
    path = store.root / "packs" / "packs" / name[-2:] / f"{name}.pack"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a pack that nobody knows")


async def delete_chunk_row(store: Store) -> None:
    await execute(store.ingest, sa.delete(chunks).where(chunks.c.digest == blake3_digest(LARGE[2])))


async def delete_row_of_page(store: Store) -> None:
    await execute(store.ingest, sa.delete(chunks).where(chunks.c.digest == await page_of(store)))


async def delete_recipe_part(store: Store) -> None:
    await execute(store.ingest, sa.delete(recipe_parts).where(recipe_parts.c.blob_digest == LARGE_BLOB))


async def delete_page_row(store: Store) -> None:
    await execute(store.ingest, sa.delete(tree_pages).where(tree_pages.c.tree_digest == store.tree))


async def change_usage(store: Store) -> None:
    await execute(store.ingest, sa.update(usage).values(stored_bytes=usage.c.stored_bytes + 8))


async def change_blob_size(store: Store) -> None:
    digests = [LARGE_BLOB, blake3_digest(SMALL)]
    await execute(store.ingest, sa.update(blobs).where(blobs.c.digest.in_(digests)).values(size_bytes=7))


async def move_chunk_row(store: Store) -> None:
    """To a place where another record is."""
    place = await place_of(store.ingest, blake3_digest(LARGE[0]))
    row = chunks.c.digest == blake3_digest(LARGE[1])
    await execute(store.ingest, sa.update(chunks).where(row).values(record_offset=place.offset))


async def point_past_the_end(store: Store) -> None:
    row = chunks.c.digest == blake3_digest(LARGE[1])
    await execute(store.ingest, sa.update(chunks).where(row).values(record_offset=1 << 30))


async def delete_tree(store: Store) -> None:
    await execute(store.ingest, sa.delete(trees).where(trees.c.digest == store.tree))


async def reorder_recipe(store: Store) -> None:
    refs = pack_refs([(blake3_digest(part), len(part)) for part in reversed(LARGE)])
    row = recipe_parts.c.blob_digest == LARGE_BLOB
    await execute(store.ingest, sa.update(recipe_parts).where(row).values(refs=refs))


async def delete_blob(store: Store) -> None:
    mine = sa.and_(blobs.c.digest == blake3_digest(SMALL), blobs.c.chunk_count == 1)
    await execute(store.ingest, sa.delete(blobs).where(mine))


Damage = Callable[[Store], Awaitable[None]]
LOST = {FindingKind.CHUNK_LOST}
# The damage, the level that has to find it, and what that finds.
DAMAGES: dict[Damage, tuple[Level, set[FindingKind]]] = {
    delete_chunk_row: (Level.INDEX, {FindingKind.BLOB_DAMAGED, FindingKind.USAGE_WRONG}),
    delete_row_of_page: (Level.INDEX, {FindingKind.TREE_DAMAGED, FindingKind.USAGE_WRONG}),
    delete_recipe_part: (Level.INDEX, {FindingKind.BLOB_DAMAGED, FindingKind.USAGE_WRONG}),
    delete_page_row: (Level.INDEX, {FindingKind.TREE_DAMAGED}),
    delete_tree: (Level.INDEX, {FindingKind.CONTENT_MISSING}),
    change_usage: (Level.INDEX, {FindingKind.USAGE_WRONG}),
    change_blob_size: (Level.INDEX, {FindingKind.BLOB_DAMAGED}),
    point_past_the_end: (Level.INDEX, {FindingKind.ROW_WRONG}),
    flip_pack_header: (Level.PACKS, {FindingKind.PACK_DAMAGED}),
    flip_trailer: (Level.PACKS, {FindingKind.PACK_DAMAGED}),
    flip_index_record: (Level.PACKS, {FindingKind.PACK_DAMAGED}),
    move_chunk_row: (Level.PACKS, LOST),
    truncate: (Level.PACKS, {FindingKind.PACK_DAMAGED, FindingKind.CHUNK_LOST}),
    delete_pack: (Level.PACKS, {FindingKind.PACK_MISSING}),
    delete_meta_pack: (Level.PACKS, {FindingKind.PACK_MISSING}),
    add_stray_file: (Level.PACKS, {FindingKind.FILE_UNKNOWN}),
    flip_payload: (Level.CHECKSUMS, LOST),
    flip_record_header: (Level.CHECKSUMS, LOST),
    flip_page: (Level.CHECKSUMS, LOST),
    flip_recipe: (Level.CHECKSUMS, {FindingKind.RECORD_DAMAGED}),
    flip_padding: (Level.CHECKSUMS, {FindingKind.PACK_DAMAGED}),
    forge_payload: (Level.DIGESTS, LOST),
    reorder_recipe: (Level.DIGESTS, {FindingKind.BLOB_DAMAGED}),
    delete_blob: (Level.DIGESTS, {FindingKind.CONTENT_MISSING}),
}
# What storing the same files again does not mend: the frame of a pack, what only a new index needs, a stranger's file.
LASTING = {FindingKind.PACK_DAMAGED, FindingKind.RECORD_DAMAGED, FindingKind.FILE_UNKNOWN, FindingKind.ROW_WRONG}
IS_LOSS = {
    FindingKind.CHUNK_LOST,
    FindingKind.BLOB_DAMAGED,
    FindingKind.TREE_DAMAGED,
    FindingKind.CONTENT_MISSING,
    FindingKind.PACK_MISSING,
}


@pytest.mark.parametrize("level", Level)
async def test_a_store_that_is_right_has_no_findings(store: Store, level: Level) -> None:
    result = await checked(store.ingest, level)
    assert result.told == []
    assert result.hurt == []
    assert result.summary.complete
    assert result.summary.items_done > 10
    assert (result.summary.bytes_done > 10_000) == (level >= Level.CHECKSUMS)


async def test_packs_that_are_open_are_checked_as_far_as_they_are_durable(store: Store) -> None:
    await put_tree(store.ingest, {"new": (b"in an open pack",)})
    assert (await checked(store.ingest)).told == []
    place = await place_of(store.ingest, blake3_digest(b"in an open pack"))
    flip(pack_path(store.root, place.pack), place.offset + 70)
    assert (await checked(store.ingest)).kinds == LOST


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_damage_is_found_at_its_level_and_told_only_there(store: Store, damage: Damage) -> None:
    level, kinds = DAMAGES[damage]
    await damage(store)
    for below in Level:
        if below < level:
            assert (await checked(store.ingest, below)).told == []
    found = await checked(store.ingest, level)
    assert found.kinds == kinds, found.told
    assert {finding.is_loss for finding in found.findings if finding.kind in IS_LOSS} <= {True}
    assert not any(finding.is_loss for finding in found.findings if finding.kind not in IS_LOSS)
    assert found.summary.losses == sum(finding.is_loss for finding in found.findings)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_storing_the_same_files_again_heals_what_was_found_lost(store: Store, damage: Damage) -> None:
    await damage(store)
    await checked(store.ingest)
    tree = await put_tree(store.ingest, FILES)
    await put_tree(store.ingest, {"theirs": (OTHER, SMALL)}, "rival")
    assert tree == store.tree
    again = await checked(store.ingest)
    assert again.kinds <= LASTING, again.told
    if not DAMAGES[damage][1] & LASTING:
        assert again.told == []
    assert again.hurt == []
    assert await read(store, LARGE_BLOB) == b"".join(LARGE)
    assert await read(store, blake3_digest(SMALL)) == SMALL
    await store.ingest.pins.acquire("acme", os.urandom(16), tree)


async def read(store: Store, digest: bytes, offset: int = 0, length: int = 0) -> bytes:
    parts = []
    async for pieces in store.ingest.content.read("acme", [BlobRange(digest, offset, length)]):
        for piece in pieces:
            if piece.error is not None:
                raise piece.error
            parts.append(bytes(piece.data))
    return b"".join(parts)


async def test_what_is_not_damaged_can_be_read_and_the_rest_says_what_to_do(store: Store) -> None:
    await flip_payload(store)
    assert (await checked(store.ingest)).kinds == LOST
    assert await read(store, LARGE_BLOB, 0, 1000) == LARGE[0]
    assert await read(store, LARGE_BLOB, 2000) == LARGE[2]
    assert await read(store, blake3_digest(OTHER)) == OTHER
    with pytest.raises(CorruptRecord, match="store the same files again"):
        await read(store, LARGE_BLOB, 999, 2)
    listed, _ = await store.ingest.trees.list_page(
        "acme", store.tree, prefix="", fold=False, page_size=10, page_token="", max_bytes=1 << 20
    )
    assert [item.path for item in listed] == list(FILES)


async def test_the_versions_that_need_what_is_lost_are_listed(store: Store) -> None:
    await put_tree(store.ingest, {"unpinned": LARGE})
    whole = await put_tree(store.ingest, {"whole": (OTHER,)})
    await store.ingest.pins.acquire("acme", os.urandom(16), whole)
    await flip_payload(store)
    result = await checked(store.ingest)
    (hurt,) = result.hurt
    assert (hurt.entity, hurt.version_uid, hurt.tree_digest) == ("acme", VERSION, store.tree)
    assert (hurt.tree_damaged, hurt.damaged_paths, hurt.damaged_files) == (False, ("large.bin",), 1)
    assert result.summary.hurt_versions == 1
    # Until it is healed, every check says so.
    again = await checked(store.ingest, Level.INDEX)
    assert again.kinds == {FindingKind.BLOB_DAMAGED}
    assert again.hurt == [hurt]


async def test_a_version_whose_pages_are_lost_is_listed(store: Store) -> None:
    await flip_page(store)
    (hurt,) = (await checked(store.ingest)).hurt
    assert (hurt.version_uid, hurt.tree_damaged, hurt.damaged_files) == (VERSION, True, 0)
    with pytest.raises(TreeNotFound):
        await store.ingest.pins.acquire("acme", os.urandom(16), store.tree)


async def test_another_blob_that_shared_the_lost_chunk_is_found_whole_when_that_is_back(store: Store) -> None:
    sharing = await put_tree(store.ingest, {"sharing": (LARGE[1], b"its own")})
    await store.ingest.pins.acquire("acme", os.urandom(16), sharing)
    await flip_payload(store)
    assert len((await checked(store.ingest)).hurt) == 2
    await put_tree(store.ingest, {"large.bin": LARGE})
    result = await checked(store.ingest, Level.INDEX)
    assert (result.told, result.hurt, result.summary.healed) == ([], [], 1)


async def test_a_blob_is_not_called_whole_because_its_rows_are(store: Store) -> None:
    await reorder_recipe(store)
    assert (await checked(store.ingest)).kinds == {FindingKind.BLOB_DAMAGED}
    again = await checked(store.ingest, Level.INDEX)
    assert (again.kinds, again.summary.healed) == ({FindingKind.BLOB_DAMAGED}, 0)


async def test_a_check_of_one_entity_leaves_the_others_alone(store: Store) -> None:
    await flip_payload(store)
    await add_stray_file(store)
    assert (await checked(store.ingest, only="rival")).told == []
    assert (await checked(store.ingest, only="acme")).kinds == LOST


async def test_a_check_that_stopped_goes_on_where_it_was(store: Store) -> None:
    await flip_payload(store)
    whole_bytes = (await checked(store.ingest, Level.CHECKSUMS)).summary.bytes_done
    await put_tree(store.ingest, FILES)
    await seal(store.ingest)
    place = await place_of(store.ingest, blake3_digest(OTHER))
    flip(pack_path(store.root, place.pack), place.offset + 100)
    parts = [await checked(store.ingest, Level.CHECKSUMS, max_bytes=1)]
    while not parts[-1].summary.complete:
        parts.append(await checked(store.ingest, Level.CHECKSUMS, restart=False, max_bytes=1))
    assert len(parts) >= 4
    assert [kind for part in parts for kind in part.kinds] == [FindingKind.CHUNK_LOST]
    assert (parts[-1].summary.findings, parts[-1].summary.losses) == (1, 1)
    # Each pack once: no part read what another had.
    assert whole_bytes <= parts[-1].summary.bytes_done < 2 * whole_bytes


async def test_a_check_whose_caller_went_away_goes_on_where_it_was(store: Store) -> None:
    await flip_payload(store)
    request = CheckRequest(Level.CHECKSUMS, restart=True)
    run = store.ingest.checker.run(request)
    async for _ in run:
        # The first that is told is the finding; then the caller goes.
        break
    await run.aclose()
    rest = await checked(store.ingest, Level.CHECKSUMS, restart=False)
    # It may be told twice, for nobody knows whether the caller had it; it is lost once.
    assert rest.summary.complete
    assert len(rest.hurt) == 1


async def test_one_check_of_a_kind_runs_at_a_time(store: Store) -> None:
    await flip_payload(store)
    run = store.ingest.checker.run(CheckRequest(Level.CHECKSUMS))
    await anext(run)
    with pytest.raises(CheckRunning):
        await checked(store.ingest, Level.CHECKSUMS)
    assert (await checked(store.ingest, Level.INDEX)).summary.complete
    await run.aclose()
    assert (await checked(store.ingest, Level.CHECKSUMS)).summary.complete


async def test_a_check_beside_uploads_and_moves_finds_nothing(store: Store) -> None:
    stop = asyncio.Event()
    stored = 0

    async def upload(number: int) -> None:
        nonlocal stored
        own = random.Random(number)
        while not stop.is_set():
            parts = tuple(own.randbytes(own.randrange(1, 3000)) for _ in range(own.randrange(1, 5)))
            files = {"own": parts, "shared": LARGE, "small": (SMALL,)}
            tree = await put_tree(store.ingest, files)
            await store.ingest.pins.acquire("acme", os.urandom(16), tree)
            stored += 1
            if stored % 5 == 0:
                await seal(store.ingest)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(upload(number))
        try:
            checks = 0
            while stored < 15 or checks < 2:
                for level in Level:
                    result = await checked(store.ingest, level)
                    assert result.told == []
                    assert result.hurt == []
                checks += 1
        finally:
            stop.set()


async def test_a_pack_that_is_collected_while_it_is_checked_is_no_finding(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = type(store.ingest.index.checks).records
    place = await place_of(store.ingest, blake3_digest(SMALL))

    async def records_and_delete(self: object, pack: UUID) -> object:
        found = await records(store.ingest.index.checks, pack)
        if pack == place.pack:
            await execute(
                store.ingest,
                sa.update(packs).where(packs.c.id == pack.bytes).values(state="deleting"),
            )
            store.ingest.storage.delete(pack)
        return found

    monkeypatch.setattr(type(store.ingest.index.checks), "records", records_and_delete)
    result = await checked(store.ingest, Level.PACKS)
    assert result.told == []
