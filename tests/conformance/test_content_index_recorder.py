"""What a group commit promises, on each database that the index runs on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from lading_server.common.errors import OffsetMismatch, UploadTakenOver
from lading_server.ingest.index.rows import (
    ChunkRef,
    IndexBatch,
    NewBlob,
    NewRecipePart,
    NewTree,
    NewTreePage,
    PacksGone,
    UploadCompletion,
    UploadProgress,
    pack_refs,
)
from lading_server.ingest.index.schema import (
    blobs,
    chunks,
    packs,
    recipe_parts,
    session_packs,
    tree_pages,
    trees,
    upload_chunks,
)
from lading_server.ingest.index.store import ContentIndex
from tests.support.index import (
    DATABASES,
    TREE_PAGE,
    FakeClock,
    chunk_rows,
    count,
    generation,
    new_digests,
    new_pack,
    opened_index,
    set_state,
    store_chunks,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=DATABASES)
async def index(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[ContentIndex]:
    async with opened_index(request.param, tmp_path, clock) as opened:
        yield opened


async def durable_bytes(index: ContentIndex) -> dict[UUID, int]:
    return {row.pack: row.durable_bytes for row in await index.packs.open_packs()}


async def held_packs(index: ContentIndex, session: bytes) -> set[UUID]:
    async with index.database.read() as connection:
        query = sa.select(session_packs.c.pack_id).where(session_packs.c.session_id == session)
        return {UUID(bytes=pack) for pack in (await connection.scalars(query)).all()}


async def blob_state(index: ContentIndex, digest: bytes) -> tuple[str, int, int]:
    query = sa.select(blobs.c.state, blobs.c.generation, blobs.c.chunk_count).where(blobs.c.digest == digest)
    async with index.database.read() as connection:
        state, generation_, chunk_count = (await connection.execute(query)).one()
        return state, generation_, chunk_count


def two_chunk_blob(digest: bytes, first: bytes, second: bytes, first_bytes: int) -> IndexBatch:
    """Return a batch with a blob of 300 bytes that is cut at `first_bytes`."""
    refs = pack_refs([(first, first_bytes), (second, 300 - first_bytes)])
    return IndexBatch("acme", blobs=[NewBlob(digest, 300, 2)], recipe_parts=[NewRecipePart(digest, 0, refs)])


# --- packs ---


async def test_nothing_to_record_is_recorded(index: ContentIndex) -> None:
    assert await index.recorder.record([], {}) == []
    assert await index.recorder.record([IndexBatch("acme")], {}) == [None]


async def test_a_packs_durable_length_grows_and_never_shrinks(index: ContentIndex) -> None:
    first, second = await new_pack(index), await new_pack(index)
    await index.recorder.record([], {first: 4096, second: 512})
    await index.recorder.record([], {first: 1024, second: 1 << 40})
    assert await durable_bytes(index) == {first: 4096, second: 1 << 40}


async def test_a_batch_that_requires_a_dead_pack_is_rejected_and_the_others_are_written(index: ContentIndex) -> None:
    live, dead, unknown = await new_pack(index), await new_pack(index), uuid4()
    await set_state(index, packs, dead.bytes, "condemned")
    digests = new_digests(4)
    required: list[set[UUID]] = [{live}, {live, dead}, {unknown, dead}, set()]
    batches = [
        IndexBatch("acme", blobs=[NewBlob(digest, 1, 1)], required_packs=packs_)
        for digest, packs_ in zip(digests, required, strict=True)
    ]
    outcomes = await index.recorder.record(batches, {live: 4096})
    assert outcomes[0] is None
    assert isinstance(outcomes[1], PacksGone)
    assert outcomes[1].packs == {dead}
    assert isinstance(outcomes[2], PacksGone)
    assert outcomes[2].packs == {dead, unknown}
    assert outcomes[3] is None
    assert set(await index.blobs.stat("acme", digests)) == {digests[0], digests[3]}
    assert await durable_bytes(index) == {live: 4096}
    assert await generation(index, live) == 1


async def test_chunks_written_to_a_pack_that_is_damaged_by_now_are_rejected(index: ContentIndex) -> None:
    digests = new_digests(2)
    damaged, good = await new_pack(index), await new_pack(index)
    await index.packs.mark_damaged(damaged)
    outcomes = await index.recorder.record(
        [
            IndexBatch("acme", chunks=chunk_rows(damaged, digests)),
            IndexBatch("acme", chunks=chunk_rows(good, digests[:1])),
        ],
        {good: 4096},
    )
    assert isinstance(outcomes[0], PacksGone)
    assert outcomes[1] is None
    located = await index.chunks.locate("acme", digests)
    assert {digest: place.pack for digest, place in located.items()} == {digests[0]: good}


# --- chunks and sessions ---


async def test_a_chunk_stays_where_it_is_while_that_pack_is_live(index: ContentIndex) -> None:
    digests = new_digests(3)
    old = await store_chunks(index, digests[:2])
    before = await generation(index, old)
    session = await index.sessions.open("acme", 60)
    new = await store_chunks(index, digests, session=session)
    located = await index.chunks.locate("acme", digests)
    assert [located[digest].pack for digest in digests] == [old, old, new]
    # The session relies on both, so both count a reference and are held.
    assert await held_packs(index, session) == {old, new}
    assert await generation(index, old) == before + 1


@pytest.mark.parametrize("state", ["condemned", "deleting", "damaged"])
async def test_a_chunk_moves_from_a_dead_pack_to_the_new_one(index: ContentIndex, state: str) -> None:
    digests = new_digests(2)
    old = await store_chunks(index, digests)
    await set_state(index, packs, old.bytes, state)
    new = await new_pack(index)
    rows = chunk_rows(new, digests, first=4096, kind=TREE_PAGE)
    assert await index.recorder.record([IndexBatch("acme", chunks=rows)], {new: 8192}) == [None]
    assert await index.chunks.locate("acme", digests) == {row.digest: row.location for row in rows}


async def test_of_two_batches_with_the_same_chunk_the_first_one_wins_and_both_sessions_hold_it(
    index: ContentIndex,
) -> None:
    digests = new_digests(1)
    first, second = await new_pack(index), await new_pack(index)
    sessions = [await index.sessions.open("acme", 60) for _ in range(2)]
    batches = [
        IndexBatch("acme", session, chunks=chunk_rows(pack, digests))
        for session, pack in zip(sessions, [first, second], strict=True)
    ]
    assert await index.recorder.record(batches, {first: 4096, second: 4096}) == [None, None]
    assert (await index.chunks.locate("acme", digests))[digests[0]].pack == first
    assert await held_packs(index, sessions[0]) == {first}
    assert await held_packs(index, sessions[1]) == {first, second}


async def test_a_session_that_lapsed_holds_nothing_and_its_chunks_are_stored_all_the_same(
    index: ContentIndex, clock: FakeClock
) -> None:
    digests = new_digests(1)
    lapsed = await index.sessions.open("acme", 60)
    foreign = await index.sessions.open("other", 3600)
    clock.seconds += 60
    for session in (lapsed, foreign, bytes(16)):
        await store_chunks(index, digests, session=session)
    assert await count(index, session_packs) == 0
    assert set(await index.chunks.locate("acme", digests)) == set(digests)


async def test_one_group_can_have_batches_of_many_entities_with_the_same_chunks(index: ContentIndex) -> None:
    digests = new_digests(20)
    entities = [f"team-{n}" for n in range(5)]
    own = {entity: await new_pack(index, entity) for entity in entities}
    batches = [
        IndexBatch(entity, chunks=chunk_rows(own[entity], digests), blobs=[NewBlob(d, 100, 1) for d in digests])
        for entity in entities
    ]
    # Twice: the second time every chunk is there already, in each entity's own pack.
    for _ in range(2):
        assert await index.recorder.record(batches, dict.fromkeys(own.values(), 4096)) == [None] * 5
    for entity in entities:
        located = await index.chunks.locate(entity, digests)
        assert {place.pack for place in located.values()} == {own[entity]}
        assert len(await index.blobs.stat(entity, digests)) == 20


async def test_twenty_tasks_recording_overlapping_chunks_all_end_and_agree(index: ContentIndex) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choice = random.Random(seed)
    digests = new_digests(300)
    session = await index.sessions.open("acme", 60)

    async def upload(mine: list[bytes]) -> None:
        pack = await new_pack(index)
        for n in range(0, len(mine), 25):
            rows = chunk_rows(pack, mine[n : n + 25], first=64 + 168 * n)
            some = [IndexBatch("acme", session, chunks=rows)]
            some.append(IndexBatch("acme", session, blobs=[NewBlob(row.digest, 100, 1) for row in rows]))
            located = await index.chunks.locate("acme", digests)
            some[1].required_packs = {pack, *(place.pack for place in located.values())}
            assert await index.recorder.record(some, {pack: 64 + 168 * (n + 25)}) == [None, None]
            assert await index.chunks.find("acme", session, mine[: n + 25]) == set(mine[: n + 25])

    await asyncio.wait_for(asyncio.gather(*(upload(choice.sample(digests, 100)) for _ in range(20))), 120)
    located = await index.chunks.locate("acme", digests)
    assert len(located) == await count(index, chunks) == await count(index, blobs)
    assert {place.pack for place in located.values()} <= await held_packs(index, session)


# --- blobs ---


async def test_a_blob_committed_again_counts_a_reference_and_takes_the_new_recipe_whole(index: ContentIndex) -> None:
    digest, a, b, c, d = new_digests(5)
    assert await index.recorder.record([two_chunk_blob(digest, a, b, 100)], {}) == [None]
    assert await blob_state(index, digest) == ("live", 0, 2)
    assert await index.recorder.record([two_chunk_blob(digest, c, d, 200)], {}) == [None]
    assert await blob_state(index, digest) == ("live", 1, 2)
    refs = [ref async for ref in index.blobs.recipe("acme", digest, 0, 300)]
    assert refs == [ChunkRef(0, c, 200), ChunkRef(200, d, 100)]


async def test_two_recipes_for_one_blob_in_one_group_do_not_mix(index: ContentIndex) -> None:
    digest, a, b, c = new_digests(4)
    cut = IndexBatch("acme", blobs=[NewBlob(digest, 300, 3)])
    cut.recipe_parts = [
        NewRecipePart(digest, 0, pack_refs([(a, 100)])),
        NewRecipePart(digest, 100, pack_refs([(b, 100), (c, 100)])),
    ]
    group = [cut, two_chunk_blob(digest, b, c, 150)]
    assert await index.recorder.record(group, {}) == [None, None]
    refs = [ref async for ref in index.blobs.recipe("acme", digest, 0, 300)]
    assert refs == [ChunkRef(0, b, 150), ChunkRef(150, c, 150)]
    assert await count(index, recipe_parts) == 1
    assert await index.recorder.record([IndexBatch("acme", blobs=[NewBlob(digest, 300, 1)])], {}) == [None]
    assert [ref async for ref in index.blobs.recipe("acme", digest, 0, 300)] == [ChunkRef(0, digest, 300)]


async def test_a_condemned_blob_is_revived_by_committing_it_again(index: ContentIndex) -> None:
    digest, a, b = new_digests(3)
    batch = two_chunk_blob(digest, a, b, 100)
    assert await index.recorder.record([batch], {}) == [None]
    await set_state(index, blobs, digest, "condemned")
    assert await index.blobs.stat("acme", [digest]) == {}
    assert await index.recorder.record([batch], {}) == [None]
    assert await blob_state(index, digest) == ("live", 1, 2)


# --- trees ---


async def test_a_tree_put_again_counts_a_reference_and_its_pages_do_not_mix(index: ContentIndex) -> None:
    digest, *pages = new_digests(4)
    first = NewTree(digest, 2, 0, 9, [NewTreePage(0, b"a", pages[0], 1), NewTreePage(1, b"b", pages[1], 1)])
    again = NewTree(digest, 2, 0, 9, [NewTreePage(0, b"a", pages[2], 2)])
    for tree in (first, again):
        assert await index.recorder.record([IndexBatch("acme", trees=[tree])], {}) == [None]
    assert [page.page_digest for page in await index.trees.pages("acme", digest, None, 10)] == [pages[2]]
    assert (await index.trees.get("acme", digest)).page_count == 1
    assert await count(index, tree_pages) == 1
    await set_state(index, trees, digest, "condemned")
    assert await index.recorder.record([IndexBatch("acme", trees=[again])], {}) == [None]
    async with index.database.read() as connection:
        assert (await connection.execute(sa.select(trees.c.state, trees.c.generation))).one() == ("live", 2)


# --- uploads ---


async def test_an_upload_that_was_taken_over_is_rejected_and_leaves_nothing(index: ContentIndex) -> None:
    await index.uploads.begin("acme", "file-1", 7)
    await index.uploads.begin("acme", "file-1", 8)
    stale, good = new_digests(2)
    pack = await new_pack(index)
    batches = [
        IndexBatch(
            "acme",
            chunks=chunk_rows(pack, [digest], first=64 + 168 * n),
            upload=UploadProgress("file-1", writer, 0, pack_refs([(digest, 100)]), 100, 100),
        )
        for n, (writer, digest) in enumerate([(7, stale), (8, good)])
    ]
    outcomes = await index.recorder.record(batches, {pack: 400})
    assert isinstance(outcomes[0], UploadTakenOver)
    assert outcomes[1] is None
    assert set(await index.chunks.locate("acme", [stale, good])) == {good}
    assert [ref.digest async for ref in index.uploads.refs("acme", "file-1")] == [good]


async def test_after_a_rejected_part_of_an_upload_no_later_part_is_written(index: ContentIndex) -> None:
    await index.uploads.begin("acme", "file-1", 7)
    a, b, c = new_digests(3)
    parts = [
        IndexBatch("acme", upload=UploadProgress("file-1", 7, 10 * n, pack_refs([(digest, 10)]), 10 * n + 10, 0))
        for n, digest in enumerate([a, b, c])
    ]
    parts[1].required_packs = {uuid4()}
    outcomes = await index.recorder.record(parts, {})
    assert outcomes[0] is None
    assert isinstance(outcomes[1], PacksGone)
    assert isinstance(outcomes[2], OffsetMismatch)
    assert outcomes[2].metadata == {"expected": "10", "actual": "20"}
    assert (await index.uploads.get("acme", "file-1")).durable_bytes == 10


async def test_completing_an_upload_commits_its_blob_and_ends_it(index: ContentIndex) -> None:
    await index.uploads.begin("acme", "file-1", 7)
    digest, chunk = new_digests(2)
    progress = UploadProgress("file-1", 7, 0, pack_refs([(chunk, 100)]), 100, 100)
    end = IndexBatch("acme", blobs=[NewBlob(digest, 100, 1)], upload=UploadCompletion("file-1", 7, digest, 60))
    assert await index.recorder.record([IndexBatch("acme", upload=progress), end], {}) == [None, None]
    row = await index.uploads.get("acme", "file-1")
    assert (row.state, row.digest, row.durable_bytes, row.new_bytes) == ("complete", digest, 100, 60)
    assert await count(index, upload_chunks) == 0
    # Nobody continues it any more, not even its writer; beginning it again tells what became of it.
    outcomes = await index.recorder.record([end, IndexBatch("acme", upload=progress)], {})
    assert [type(outcome) for outcome in outcomes] == [UploadTakenOver, UploadTakenOver]
    assert await index.uploads.begin("acme", "file-1", 9) == row
