"""What becomes of lost content, on each database: it is missing for whoever stores, and what is left can be read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_format.digest import blake3_digest, format_digest
from lading_server.common.errors import CorruptRecord, MissingBlobs, StorageFailed, TreeNotFound, UploadNotFound
from lading_server.ingest.domain.content import BlobRange
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.index.checks import CheckIndex
from lading_server.ingest.index.losses import Loss
from lading_server.ingest.index.schema import blobs, chunks, packs, trees
from lading_server.ingest.packs.storage import PackStorage
from tests.support.check import flip, pack_path, place_of, seal
from tests.support.content import opened_ingest, put_chunks, put_tree
from tests.support.index import DATABASES, count, set_state

SMALL = b"a file of one chunk"
LARGE = (b"a file of " * 10, b"two chunks" * 10)
FILES = {"empty": (), "large.bin": LARGE, "small.txt": (SMALL,)}
SMALL_BLOB, LARGE_BLOB = blake3_digest(SMALL), blake3_digest(b"".join(LARGE))
ACME = 1


@pytest.fixture(params=DATABASES)
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with opened_ingest(request.param, tmp_path) as opened:
        yield opened


async def damage(ingest: Ingest, root: Path, digest: bytes, entity: str = "acme") -> None:
    """Flip a byte of a chunk or page."""
    place = await place_of(ingest, digest, entity)
    flip(pack_path(root, place.pack), place.offset + 64 + 4)


async def lose(ingest: Ingest, root: Path, digest: bytes) -> Loss:
    """Damage a chunk or page, and have that noticed."""
    place = await place_of(ingest, digest)
    await damage(ingest, root, digest)
    return await ingest.losses.mark_lost("acme", digest, place)


async def state_of(ingest: Ingest, table: sa.Table, digest: bytes) -> tuple[str, int]:
    async with ingest.index.database.read() as connection:
        query = sa.select(table.c.state, table.c.generation).where(table.c.digest == digest)
        state, generation = (await connection.execute(query)).one()
        return state, generation


async def page_of(ingest: Ingest, tree: bytes) -> bytes:
    return (await ingest.index.trees.pages("acme", tree, None, 1))[0].page_digest


async def assert_usage_is_right(ingest: Ingest) -> None:
    counted, actual = await CheckIndex(ingest.index.database).usage(ACME)
    assert counted == actual > 0


async def missing(ingest: Ingest, *digests: bytes) -> list[bytes]:
    session = await ingest.open_session("acme")
    return [digests[at] for at in await ingest.find_missing("acme", session, digests)]


async def test_a_lost_chunk_is_missing_and_what_needs_it_is_damaged(ingest: Ingest, tmp_path: Path) -> None:
    tree = await put_tree(ingest, FILES)
    before = await state_of(ingest, blobs, LARGE_BLOB)
    loss = await lose(ingest, tmp_path, blake3_digest(LARGE[1]))
    assert loss == Loss({blake3_digest(LARGE[1])}, {LARGE_BLOB}, set())
    assert await state_of(ingest, blobs, LARGE_BLOB) == ("damaged", before[1] + 1)
    assert (await state_of(ingest, blobs, SMALL_BLOB))[0] == "live"
    assert (await state_of(ingest, trees, tree))[0] == "live"
    assert await missing(ingest, *map(blake3_digest, (*LARGE, SMALL))) == [blake3_digest(LARGE[1])]
    assert set(await ingest.index.blobs.stat("acme", [LARGE_BLOB, SMALL_BLOB])) == {SMALL_BLOB}
    assert set(await ingest.index.blobs.readable("acme", [LARGE_BLOB, SMALL_BLOB])) == {LARGE_BLOB, SMALL_BLOB}
    await assert_usage_is_right(ingest)


async def test_a_blob_of_one_chunk_is_damaged_with_it(ingest: Ingest, tmp_path: Path) -> None:
    await put_tree(ingest, FILES)
    assert (await lose(ingest, tmp_path, SMALL_BLOB)).blobs == {SMALL_BLOB}
    assert (await state_of(ingest, blobs, SMALL_BLOB))[0] == "damaged"
    assert (await state_of(ingest, blobs, LARGE_BLOB))[0] == "live"


async def test_a_chunk_that_is_a_blob_and_a_part_of_another_damages_both(ingest: Ingest, tmp_path: Path) -> None:
    await put_tree(ingest, {"alone": (SMALL,), "within": (b"before ", SMALL)})
    within = blake3_digest(b"before " + SMALL)
    assert (await lose(ingest, tmp_path, SMALL_BLOB)).blobs == {SMALL_BLOB, within}


async def test_a_lost_page_damages_every_tree_that_has_it(ingest: Ingest, tmp_path: Path) -> None:
    files: dict[str, tuple[bytes, ...]] = {f"{number:06}": (SMALL,) for number in range(5000)}
    first = await put_tree(ingest, files)
    second = await put_tree(ingest, files | {"zzz": (b"the last of them",)})
    other = await put_tree(ingest, {"other": (SMALL,)})
    loss = await lose(ingest, tmp_path, await page_of(ingest, first))
    assert (loss.blobs, loss.trees) == (set(), {first, second})
    assert (await state_of(ingest, trees, other))[0] == "live"
    assert not await ingest.index.trees.has_every_page("acme", first)
    with pytest.raises(TreeNotFound):
        await ingest.index.trees.get("acme", first)
    assert (await ingest.index.trees.readable("acme", first)).file_count == 5000
    with pytest.raises(CorruptRecord, match="store the same files again"):
        await ingest.trees.find("acme", first, "000000")
    assert (await ingest.trees.find("acme", first, "004999")).path == "004999"
    await assert_usage_is_right(ingest)


async def test_another_entitys_copy_is_not_lost(ingest: Ingest, tmp_path: Path) -> None:
    await put_tree(ingest, FILES)
    await put_tree(ingest, FILES, "rival")
    await lose(ingest, tmp_path, SMALL_BLOB)
    assert set(await ingest.index.blobs.stat("rival", [SMALL_BLOB])) == {SMALL_BLOB}
    assert await ingest.index.chunks.locate("rival", [SMALL_BLOB])


async def test_a_record_that_can_be_read_again_is_no_loss(ingest: Ingest) -> None:
    await put_tree(ingest, FILES)
    place = await place_of(ingest, SMALL_BLOB)
    assert await ingest.losses.mark_lost("acme", SMALL_BLOB, place) == Loss()
    assert (await state_of(ingest, blobs, SMALL_BLOB))[0] == "live"


async def test_a_chunk_that_lies_elsewhere_by_now_is_not_lost(ingest: Ingest, tmp_path: Path) -> None:
    await put_tree(ingest, FILES)
    old = await place_of(ingest, SMALL_BLOB)
    await damage(ingest, tmp_path, SMALL_BLOB)
    await ingest.losses.mark_lost("acme", SMALL_BLOB, old)
    await put_tree(ingest, FILES)
    usage = await ingest.index.usage.stored_bytes("acme")
    assert (await place_of(ingest, SMALL_BLOB)) != old
    assert await ingest.losses.mark_lost("acme", SMALL_BLOB, old) == Loss()
    assert (await state_of(ingest, blobs, SMALL_BLOB))[0] == "live"
    assert await ingest.index.usage.stored_bytes("acme") == usage


async def test_usage_is_not_taken_twice_from_a_pack_that_does_not_count(ingest: Ingest, tmp_path: Path) -> None:
    await put_tree(ingest, FILES)
    place = await place_of(ingest, SMALL_BLOB)
    await damage(ingest, tmp_path, SMALL_BLOB)
    await ingest.index.packs.mark_damaged(place.pack)
    await ingest.losses.mark_lost("acme", SMALL_BLOB, place)
    counted, actual = await CheckIndex(ingest.index.database).usage(ACME)
    assert counted == actual


async def test_a_whole_pack_is_lost_at_once(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    place = await place_of(ingest, SMALL_BLOB)
    await ingest.index.packs.mark_damaged(place.pack)
    loss = await ingest.losses.mark_pack_lost("acme", place.pack)
    assert loss.chunks == {blake3_digest(data) for data in (SMALL, *LARGE)}
    assert loss.blobs == {SMALL_BLOB, LARGE_BLOB}
    await seal(ingest)
    assert await put_tree(ingest, FILES) == tree
    await ingest.pins.acquire("acme", os.urandom(16), tree)
    counted, actual = await CheckIndex(ingest.index.database).usage(ACME)
    assert counted == actual


async def test_storing_it_again_makes_everything_live(ingest: Ingest, tmp_path: Path) -> None:
    tree = await put_tree(ingest, FILES)
    for digest in (SMALL_BLOB, blake3_digest(LARGE[0]), await page_of(ingest, tree)):
        await lose(ingest, tmp_path, digest)
    assert await put_tree(ingest, FILES) == tree
    for table, digest in ((blobs, SMALL_BLOB), (blobs, LARGE_BLOB), (trees, tree)):
        assert (await state_of(ingest, table, digest))[0] == "live"
    await ingest.pins.acquire("acme", os.urandom(16), tree)
    await assert_usage_is_right(ingest)


async def test_a_tree_whose_pages_are_lost_is_not_there_already(ingest: Ingest) -> None:
    """Nobody marked it: its pack is not live any more, and that is enough."""
    tree = await put_tree(ingest, FILES)
    page = await page_of(ingest, tree)
    await set_state(ingest.index, packs, (await place_of(ingest, page)).pack.bytes, "damaged")
    await seal(ingest)
    assert await put_tree(ingest, FILES) == tree
    assert (await ingest.trees.find("acme", tree, "small.txt")).path == "small.txt"


async def test_a_pin_names_the_blobs_that_are_lost(ingest: Ingest, tmp_path: Path) -> None:
    tree = await put_tree(ingest, FILES)
    await lose(ingest, tmp_path, SMALL_BLOB)
    await lose(ingest, tmp_path, blake3_digest(LARGE[0]))
    with pytest.raises(MissingBlobs) as caught:
        await ingest.pins.acquire("acme", os.urandom(16), tree)
    assert set(caught.value.metadata["digests"].split(",")) == {format_digest(SMALL_BLOB), format_digest(LARGE_BLOB)}


async def test_a_pin_that_is_held_is_told_although_its_tree_is_damaged(ingest: Ingest, tmp_path: Path) -> None:
    tree, version = await put_tree(ingest, FILES), os.urandom(16)
    totals = await ingest.pins.acquire("acme", version, tree)
    await lose(ingest, tmp_path, await page_of(ingest, tree))
    assert await ingest.pins.acquire("acme", version, tree) == totals


async def test_a_tree_says_whether_all_of_it_is_there(ingest: Ingest, tmp_path: Path) -> None:
    tree, other = await put_tree(ingest, FILES), await put_tree(ingest, {"other": (b"another's",)})
    assert await ingest.trees.is_whole("acme", tree)
    await lose(ingest, tmp_path, SMALL_BLOB)
    assert not await ingest.trees.is_whole("acme", tree)
    assert await ingest.trees.is_whole("acme", other)
    await put_tree(ingest, FILES)
    assert await ingest.trees.is_whole("acme", tree)
    await lose(ingest, tmp_path, await page_of(ingest, tree))
    assert not await ingest.trees.is_whole("acme", tree)


async def read(ingest: Ingest, digest: bytes) -> bytes:
    parts = []
    async for pieces in ingest.content.read("acme", [BlobRange(digest, 0, 0)]):
        for piece in pieces:
            if piece.error is not None:
                raise piece.error
            parts.append(bytes(piece.data))
    return b"".join(parts)


async def until_missing(ingest: Ingest, digest: bytes) -> None:
    """Wait until the background has followed a report."""
    async with asyncio.timeout(30):
        while await ingest.index.chunks.locate("acme", [digest]):
            pass


async def test_a_read_that_meets_damage_has_it_marked(ingest: Ingest, tmp_path: Path) -> None:
    tree = await put_tree(ingest, FILES)
    await damage(ingest, tmp_path, blake3_digest(LARGE[1]))
    with pytest.raises(CorruptRecord):
        await read(ingest, LARGE_BLOB)
    await until_missing(ingest, blake3_digest(LARGE[1]))
    await damage(ingest, tmp_path, await page_of(ingest, tree))
    with pytest.raises(CorruptRecord):
        await ingest.trees.find("acme", tree, "small.txt")
    await until_missing(ingest, await page_of(ingest, tree))
    assert await put_tree(ingest, FILES) == tree
    assert await read(ingest, LARGE_BLOB) == b"".join(LARGE)


async def test_a_commit_that_meets_damage_has_it_marked(ingest: Ingest, tmp_path: Path) -> None:
    await put_chunks(ingest, LARGE)
    await damage(ingest, tmp_path, blake3_digest(LARGE[0]))
    with pytest.raises(AssertionError, match="damaged"):
        await put_tree(ingest, {"large.bin": LARGE})
    await until_missing(ingest, blake3_digest(LARGE[0]))
    await put_tree(ingest, {"large.bin": LARGE})
    assert await read(ingest, LARGE_BLOB) == b"".join(LARGE)


async def test_more_reports_than_wait_are_dropped_and_followed_later(
    ingest: Ingest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await put_tree(ingest, FILES)
    place = await place_of(ingest, SMALL_BLOB)
    for number in range(2000):
        ingest.losses.report("acme", number.to_bytes(32, "big"), place)
    assert "too many reports wait" in caplog.text
    await damage(ingest, tmp_path, SMALL_BLOB)
    async with asyncio.timeout(60):
        while await ingest.index.chunks.locate("acme", [SMALL_BLOB]):
            ingest.losses.report("acme", SMALL_BLOB, place)


async def test_an_upload_whose_durable_part_is_lost_begins_anew(ingest: Ingest, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    async with ingest.file_upload("acme", None, "upload", 0) as upload:
        await upload.begin(0)
        await upload.take(data)
        await upload.suspend()
    durable = (await ingest.index.uploads.get("acme", "upload")).durable_bytes
    assert durable > 0
    first, *_ = [ref async for ref in ingest.index.uploads.refs("acme", "upload")]
    await damage(ingest, tmp_path, first.digest)
    async with ingest.file_upload("acme", None, "upload", 0) as upload:
        with pytest.raises(UploadNotFound, match="lost"):
            await upload.begin(durable)
    with pytest.raises(UploadNotFound):
        await ingest.index.uploads.get("acme", "upload")
    await until_missing(ingest, first.digest)
    async with ingest.file_upload("acme", None, "upload", 0) as upload:
        await upload.begin(0)
        await upload.take(data)
        assert (await upload.finish(blake3_digest(data), len(data))).digest == blake3_digest(data)
    assert await read(ingest, blake3_digest(data)) == data


class BadDisk:
    """A storage whose reads fail where they touch any of these places: first byte, byte after the last."""

    def __init__(self, storage: PackStorage, *places: tuple[int, int]) -> None:
        self._storage = storage
        self._places = places

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        if any(offset < end and begin < offset + length for begin, end in self._places):
            raise StorageFailed("EIO")
        return self._storage.read(pack, offset, length)

    def size(self, pack: UUID) -> int:
        return self._storage.size(pack)


@pytest.mark.parametrize(("from_offset", "is_lost"), [(64, True), (0, False)])
async def test_a_bad_place_on_a_disk_is_a_loss_and_a_disk_that_is_away_is_none(
    ingest: Ingest, from_offset: int, is_lost: bool
) -> None:
    await put_tree(ingest, FILES)
    place = await place_of(ingest, SMALL_BLOB)
    disk: object = BadDisk(ingest.storage, (from_offset, 1 << 62))
    losses = Losses(ingest.index, disk, ingest.workers)  # type: ignore[arg-type]
    try:
        loss = await losses.mark_lost("acme", SMALL_BLOB, place)
    finally:
        await losses.close()
    assert bool(loss.chunks) == is_lost
    assert bool(await ingest.index.chunks.locate("acme", [SMALL_BLOB])) != is_lost


@pytest.mark.parametrize("is_end_refused", [False, True])
async def test_a_bad_first_block_of_a_pack_loses_what_is_in_it_when_its_end_can_be_read(
    ingest: Ingest, *, is_end_refused: bool
) -> None:
    await put_tree(ingest, FILES)
    # More than a block behind it, so that the end of the pack is in another one.
    await put_chunks(ingest, [os.urandom(10_000)])
    digests = [SMALL_BLOB, *map(blake3_digest, LARGE)]
    places = {digest: await place_of(ingest, digest) for digest in digests}
    first = min(digests, key=lambda digest: places[digest].offset)
    place = places[first]
    assert place.offset < 4096
    size_bytes = ingest.storage.size(place.pack)
    assert size_bytes > 2 * 4096
    refused = [(0, 4096), (size_bytes - 64, size_bytes)] if is_end_refused else [(0, 4096)]
    losses = Losses(ingest.index, BadDisk(ingest.storage, *refused), ingest.workers)  # type: ignore[arg-type]
    try:
        loss = await losses.mark_lost("acme", first, place)
    finally:
        await losses.close()
    assert loss.chunks == (set() if is_end_refused else {first})
    assert await missing(ingest, first) == sorted(loss.chunks)


async def test_two_that_find_the_same_loss_count_it_once(ingest: Ingest, tmp_path: Path) -> None:
    await put_tree(ingest, FILES)
    rows = await count(ingest.index, chunks)
    place = await place_of(ingest, SMALL_BLOB)
    await damage(ingest, tmp_path, SMALL_BLOB)
    found = await asyncio.gather(*(ingest.losses.mark_lost("acme", SMALL_BLOB, place) for _ in range(5)))
    assert sum(len(loss.chunks) for loss in found) == 1
    assert await count(ingest.index, chunks) == rows - 1
    await assert_usage_is_right(ingest)
