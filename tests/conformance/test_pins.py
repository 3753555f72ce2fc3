"""What a pin promises, on each database: it is made of live content only, once, and its tombstone is for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_server.common.errors import InvalidPageToken, MissingBlobs, TreeNotFound
from lading_server.common.registry_errors import InvalidPin, PinConflict, PinReleased
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.digests import DigestSet
from lading_server.ingest.index.rows import IndexBatch, NewBlob, NewTree
from lading_server.ingest.index.schema import blobs, packs, pins, trees
from lading_server.ingest.index.store import ContentIndex
from tests.support.content import opened_ingest, put_chunks, put_tree
from tests.support.index import (
    DATABASES,
    FakeClock,
    chunk_rows,
    count,
    new_digests,
    new_pack,
    opened_index,
    set_state,
    store_chunks,
)
from tests.support.statements import noted_statements

SMALL = b"a file of one chunk"
LARGE = (b"a file of " * 10, b"two chunks" * 10)
FILES = {"empty": (), "large.bin": LARGE, "small.txt": (SMALL,)}
VERSION = os.urandom(16)


@pytest.fixture(params=DATABASES)
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with opened_ingest(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(params=DATABASES)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ContentIndex]:
    async with opened_index(request.param, tmp_path, FakeClock()) as opened:
        yield opened


async def generations(index: ContentIndex, table: sa.Table) -> dict[bytes, int]:
    key = table.c.id if table is packs else table.c.digest
    async with index.database.read() as connection:
        return {row[0]: row[1] for row in await connection.execute(sa.select(key, table.c.generation))}


async def all_generations(index: ContentIndex) -> list[dict[bytes, int]]:
    return [await generations(index, table) for table in (packs, blobs, trees)]


async def packs_of(ingest: Ingest, *digests: bytes) -> set[UUID]:
    return {location.pack for location in (await ingest.index.chunks.locate("acme", digests)).values()}


# --- acquiring ---


async def test_a_pin_tells_the_trees_totals(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    totals = await ingest.pins.acquire("acme", VERSION, tree)
    assert totals == (tree, 3, 0, sum(map(len, LARGE)) + len(SMALL))


async def test_a_pin_counts_a_reference_to_everything_that_the_tree_is_made_of(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    other = await put_tree(ingest, {"other": (b"another tree's",)})
    before = await all_generations(ingest.index)
    await ingest.pins.acquire("acme", VERSION, tree)
    packs_, blobs_, trees_ = await all_generations(ingest.index)
    row = (await ingest.index.trees.pages("acme", tree, None, 10))[0]
    held = await packs_of(ingest, row.page_digest, *map(blake3_digest, (SMALL, *LARGE)))
    assert {pack for pack, number in packs_.items() if number > before[0][pack]} == {pack.bytes for pack in held}
    files = {blake3_digest(data) for data in (b"", b"".join(LARGE), SMALL)}
    assert {digest for digest, number in blobs_.items() if number > before[1][digest]} == files
    assert (trees_[tree], trees_[other]) == (before[2][tree] + 1, before[2][other])


async def test_a_pin_that_is_held_is_told_without_a_write(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    first = await ingest.pins.acquire("acme", VERSION, tree)
    before = await all_generations(ingest.index)
    assert await ingest.pins.acquire("acme", VERSION, tree) == first
    assert await all_generations(ingest.index) == before


async def test_a_tree_without_files_can_be_pinned(ingest: Ingest) -> None:
    tree = await put_tree(ingest, {})
    assert (await ingest.pins.acquire("acme", VERSION, tree)).file_count == 0


async def test_every_page_of_a_tree_of_many_pages_is_read(ingest: Ingest) -> None:
    files: dict[str, tuple[bytes, ...]] = {f"{number:06}": (SMALL,) for number in range(20_000)}
    tree = await put_tree(ingest, files | {"zzz": (b"the last of them",)})
    assert len(await ingest.index.trees.pages("acme", tree, None, 100)) > 20
    before = (await generations(ingest.index, blobs))[blake3_digest(b"the last of them")]
    assert (await ingest.pins.acquire("acme", VERSION, tree)).file_count == 20_001
    assert (await generations(ingest.index, blobs))[blake3_digest(b"the last of them")] == before + 1


async def test_two_calls_for_one_pin_at_once_make_one(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    await asyncio.gather(*(ingest.pins.acquire("acme", VERSION, tree) for _ in range(8)))
    assert await count(ingest.index, pins) == 1


async def test_many_versions_pin_overlapping_trees_at_once(ingest: Ingest) -> None:
    files = {f"{number:03}": (b"file %d" % number,) for number in range(60)}
    all_trees = [await put_tree(ingest, dict(list(files.items())[start : start + 40])) for start in range(20)]
    await asyncio.gather(*(ingest.pins.acquire("acme", os.urandom(16), tree) for tree in all_trees))
    assert await count(ingest.index, pins) == 20


async def test_a_collector_that_began_before_the_pin_gives_up(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    before = await all_generations(ingest.index)
    await ingest.pins.acquire("acme", VERSION, tree)
    (pack,) = {pack.bytes for pack in await packs_of(ingest, blake3_digest(SMALL))}
    for table, key, number in (
        (packs, packs.c.id == pack, before[0][pack]),
        (blobs, blobs.c.digest == blake3_digest(SMALL), before[1][blake3_digest(SMALL)]),
        (trees, trees.c.digest == tree, before[2][tree]),
    ):
        condemn = sa.update(table).where(key, table.c.generation == number).values(state="condemned")
        async with ingest.index.database.write() as connection:
            assert (await connection.execute(condemn)).rowcount == 0


@pytest.mark.parametrize("version", [b"", b"x" * 15, b"x" * 17])
async def test_an_id_that_is_none_of_a_version_is_refused(ingest: Ingest, version: bytes) -> None:
    with pytest.raises(InvalidPin):
        await ingest.pins.acquire("acme", version, blake3_digest(b""))
    with pytest.raises(InvalidPin):
        await ingest.pins.release("acme", version)


# --- what is not whole ---


async def test_a_tree_that_is_not_there_cannot_be_pinned(ingest: Ingest) -> None:
    await put_tree(ingest, FILES)
    for entity in ("acme", "nobody"):
        with pytest.raises(TreeNotFound):
            await ingest.pins.acquire(entity, VERSION, blake3_digest(b"no tree"))
    assert await count(ingest.index, pins) == 0


async def test_a_condemned_tree_cannot_be_pinned(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    await set_state(ingest.index, trees, tree, "condemned")
    with pytest.raises(TreeNotFound):
        await ingest.pins.acquire("acme", VERSION, tree)


async def test_another_entitys_tree_cannot_be_pinned_and_its_pins_are_apart(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    theirs = await put_tree(ingest, {"theirs": (b"content of the rival",)}, "rival")
    with pytest.raises(TreeNotFound):
        await ingest.pins.acquire("rival", VERSION, tree)
    await ingest.pins.acquire("acme", VERSION, tree)
    # The same id in another entity is another pin: neither a conflict nor anything to release.
    await ingest.pins.release("rival", VERSION)
    assert [pin.tree_digest for pin in (await ingest.pins.list_page("acme", 0, ""))[0]] == [tree]
    with pytest.raises(PinReleased):
        await ingest.pins.acquire("rival", VERSION, theirs)


@pytest.mark.parametrize("state", ["condemned", "damaged"])
async def test_a_tree_with_a_blob_that_is_not_live_cannot_be_pinned(ingest: Ingest, state: str) -> None:
    tree = await put_tree(ingest, FILES)
    await set_state(ingest.index, blobs, blake3_digest(SMALL), state)
    before = await all_generations(ingest.index)
    with pytest.raises(MissingBlobs) as caught:
        await ingest.pins.acquire("acme", VERSION, tree)
    assert caught.value.metadata["digests"] == f"b3:{blake3_digest(SMALL).hex()}"
    assert await count(ingest.index, pins) == 0
    assert await all_generations(ingest.index) == before


@pytest.mark.parametrize("state", ["condemned", "deleting", "damaged"])
@pytest.mark.parametrize("data", [SMALL, *LARGE])
async def test_a_tree_with_a_chunk_in_a_pack_that_is_not_live_waits_for_its_upload(
    ingest: Ingest, data: bytes, state: str
) -> None:
    rest = [chunk for chunk in (SMALL, *LARGE) if chunk is not data]
    await put_chunks(ingest, rest)
    await ingest.pool.close()
    tree = await put_tree(ingest, FILES)
    (pack,) = await packs_of(ingest, blake3_digest(data))
    assert await packs_of(ingest, *map(blake3_digest, rest)) != {pack}
    await set_state(ingest.index, packs, pack.bytes, state)
    with pytest.raises(MissingBlobs):
        await ingest.pins.acquire("acme", VERSION, tree)
    assert await count(ingest.index, pins) == 0
    await ingest.pool.close()
    await put_chunks(ingest, [data])
    await ingest.pins.acquire("acme", VERSION, tree)


async def test_a_tree_whose_pages_are_in_a_pack_that_is_not_live_cannot_be_pinned(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    row = (await ingest.index.trees.pages("acme", tree, None, 10))[0]
    (pack,) = await packs_of(ingest, row.page_digest)
    await set_state(ingest.index, packs, pack.bytes, "condemned")
    with pytest.raises(MissingBlobs):
        await ingest.pins.acquire("acme", VERSION, tree)


# --- tombstones ---


async def test_a_version_has_one_tree(ingest: Ingest) -> None:
    tree, other = await put_tree(ingest, FILES), await put_tree(ingest, {"other": (SMALL,)})
    await ingest.pins.acquire("acme", VERSION, tree)
    with pytest.raises(PinConflict):
        await ingest.pins.acquire("acme", VERSION, other)
    await ingest.pins.acquire("acme", VERSION, tree)


async def test_what_was_released_cannot_be_had_again(ingest: Ingest) -> None:
    tree, other = await put_tree(ingest, FILES), await put_tree(ingest, {"other": (SMALL,)})
    await ingest.pins.acquire("acme", VERSION, tree)
    await ingest.pins.release("acme", VERSION)
    await ingest.pins.release("acme", VERSION)
    for wanted in (tree, other):
        with pytest.raises(PinReleased):
            await ingest.pins.acquire("acme", VERSION, wanted)
    # The tree itself is as free as before.
    await ingest.pins.acquire("acme", os.urandom(16), tree)


async def test_a_release_that_overtakes_its_pin_leaves_a_tombstone(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    await ingest.pins.release("acme", VERSION)
    with pytest.raises(PinReleased):
        await ingest.pins.acquire("acme", VERSION, tree)
    # Also where nothing was ever stored for the entity.
    await ingest.pins.release("nobody", VERSION)
    assert await count(ingest.index, pins) == 2


async def test_a_release_and_an_acquisition_at_once_end_released(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    versions = [os.urandom(16) for _ in range(10)]
    calls = [ingest.pins.acquire("acme", version, tree) for version in versions]
    releases = [ingest.pins.release("acme", version) for version in versions]
    outcomes = await asyncio.gather(*calls, *releases, return_exceptions=True)
    assert {type(one) for one in outcomes if isinstance(one, Exception)} <= {PinReleased}
    assert (await ingest.pins.list_page("acme", 0, ""))[0] == []


# --- listing ---


async def test_pins_that_hold_are_listed_by_version_a_page_at_a_time(ingest: Ingest) -> None:
    tree = await put_tree(ingest, FILES)
    versions = sorted(os.urandom(16) for _ in range(5))
    for version in versions:
        await ingest.pins.acquire("acme", version, tree)
    await ingest.pins.release("acme", versions[2])
    listed: list[bytes] = []
    token, pages = "", 0
    while token or not pages:
        rows, token = await ingest.pins.list_page("acme", 2, token)
        listed += [row.version_uid for row in rows]
        pages += 1
    assert (listed, pages) == ([version for version in versions if version != versions[2]], 2)
    _, token = await ingest.pins.list_page("acme", 2, "")
    with pytest.raises(InvalidPageToken):
        await ingest.pins.list_page("rival", 2, token)


# --- large trees, over the index alone ---


async def test_ten_thousand_files_cost_few_statements(index: ContentIndex) -> None:
    digests = new_digests(10_000)
    pack = await store_chunks(index, digests)
    (tree,) = new_digests(1)
    batch = IndexBatch(
        "acme",
        blobs=[NewBlob(digest, 100, 1) for digest in digests],
        trees=[NewTree(tree, 10_000, 0, 10**6, [])],
        required_packs={pack},
    )
    assert await index.recorder.record([batch], {}) == [None]
    with noted_statements(index.database) as statements:
        assert (await index.pins.acquire("acme", VERSION, tree, DigestSet(digests))).is_held
    assert 0 < len(statements) < 40
    assert set((await generations(index, blobs)).values()) == {1}


# --- two servers on one PostgreSQL ---


async def until_somebody_waits(index: ContentIndex) -> None:
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30):
        waiting = 0
        while not waiting:
            async with index.database.read() as connection:
                waiting = await connection.scalar(query) or 0


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[ContentIndex]:
    async with opened_index("postgresql", tmp_path, FakeClock()) as opened:
        yield opened


async def one_blob_tree(index: ContentIndex) -> tuple[bytes, bytes, UUID]:
    digest, tree = new_digests(2)
    pack = await store_chunks(index, [digest])
    batch = IndexBatch(
        "acme", blobs=[NewBlob(digest, 100, 1)], trees=[NewTree(tree, 1, 0, 100, [])], required_packs={pack}
    )
    assert await index.recorder.record([batch], {}) == [None]
    return digest, tree, pack


async def test_a_pack_that_is_condemned_at_that_moment_is_missing(shared: ContentIndex) -> None:
    digest, tree, pack = await one_blob_tree(shared)
    async with shared.database.write() as collector:
        await collector.execute(sa.update(packs).where(packs.c.id == pack.bytes).values(state="condemned"))
        acquiring = asyncio.create_task(shared.pins.acquire("acme", VERSION, tree, DigestSet([digest])))
        await until_somebody_waits(shared)
    with pytest.raises(MissingBlobs):
        await acquiring
    assert await count(shared, pins) == 0


async def test_a_blob_that_is_condemned_at_that_moment_is_missing(shared: ContentIndex) -> None:
    digest, tree, _ = await one_blob_tree(shared)
    async with shared.database.write() as collector:
        await collector.execute(sa.update(blobs).where(blobs.c.digest == digest).values(state="condemned"))
        acquiring = asyncio.create_task(shared.pins.acquire("acme", VERSION, tree, DigestSet([digest])))
        await until_somebody_waits(shared)
    with pytest.raises(MissingBlobs):
        await acquiring


async def test_content_that_is_moved_at_that_moment_is_held_where_it_is_then(shared: ContentIndex) -> None:
    digest, tree, old = await one_blob_tree(shared)
    new = await new_pack(shared)
    row = chunk_rows(new, [digest])[0]
    async with shared.database.write() as compaction:
        await compaction.execute(sa.update(packs).where(packs.c.id == old.bytes).values(state="condemned"))
        await compaction.execute(
            sa.text("UPDATE chunks SET pack_id = :pack WHERE digest = :digest"),
            {"pack": row.location.pack.bytes, "digest": digest},
        )
        acquiring = asyncio.create_task(shared.pins.acquire("acme", VERSION, tree, DigestSet([digest])))
        await until_somebody_waits(shared)
    assert (await acquiring).is_held
    numbers = await generations(shared, packs)
    assert (numbers[old.bytes], numbers[new.bytes]) == (2, 1)


async def test_a_revived_pack_that_lost_its_content_meanwhile_is_not_taken_for_its_holder(
    shared: ContentIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in A; then A is condemned, the chunk goes to B, and A is revived: the pin must hold B."""
    digest, tree, _ = await one_blob_tree(shared)
    new = await new_pack(shared)
    begin = shared.database.write

    def write_after_the_move() -> object:
        monkeypatch.undo()
        return moved()

    @asynccontextmanager
    async def moved() -> AsyncIterator[object]:
        async with begin() as mover:
            await mover.execute(
                sa.text("UPDATE chunks SET pack_id = :pack WHERE digest = :digest"),
                {"pack": new.bytes, "digest": digest},
            )
        async with begin() as connection:
            yield connection

    monkeypatch.setattr(shared.database, "write", write_after_the_move)
    assert (await shared.pins.acquire("acme", VERSION, tree, DigestSet([digest]))).is_held
    assert (await generations(shared, packs))[new.bytes] == 1
