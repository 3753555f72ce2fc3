"""What the index promises, on each database that it runs on: packs, sessions, chunks, blobs, trees, uploads."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from lading_server.common.errors import BlobNotFound, SessionExpired, TreeNotFound, UploadNotFound
from lading_server.ingest.index.rows import (
    REFS_PER_PART,
    BlobRow,
    BlobSlice,
    ChunkRef,
    IndexBatch,
    NewBlob,
    NewRecipePart,
    NewTree,
    NewTreePage,
    OpenPack,
    PacksGone,
    TreeRow,
    UploadProgress,
    pack_refs,
)
from lading_server.ingest.index.schema import blobs, packs, session_packs, sessions, trees, upload_chunks, uploads
from lading_server.ingest.index.store import ContentIndex
from tests.support.index import (
    DATABASES,
    FakeClock,
    chunk_rows,
    count,
    database_url,
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


# --- the store ---


@pytest.mark.parametrize("kind", DATABASES)
async def test_what_was_recorded_is_there_after_closing_and_opening_again(kind: str, tmp_path: Path) -> None:
    async with database_url(kind, tmp_path) as url:
        digests = new_digests(3)
        first = await ContentIndex.open(url)
        epoch = await first.begin_epoch()
        pack = await store_chunks(first, digests)
        await first.close()
        second = await ContentIndex.open(url)
        try:
            again = await second.begin_epoch()
            assert (again.store_id, again.number) == (epoch.store_id, epoch.number + 1)
            assert set(await second.chunks.locate("acme", digests)) == set(digests)
            assert await second.packs.open_packs() == [OpenPack(pack, 1, "acme", 64 + 168 * 3, 1)]
        finally:
            await second.close()


# --- packs ---


async def test_only_packs_that_were_never_sealed_are_open(index: ContentIndex) -> None:
    open_pack, sealed, damaged = [await new_pack(index) for _ in range(3)]
    await index.packs.mark_sealed(sealed, 4096)
    await index.packs.mark_damaged(damaged)
    assert [row.pack for row in await index.packs.open_packs()] == [open_pack]


async def test_chunks_of_a_sealed_pack_are_there_and_those_of_a_damaged_one_are_missing(index: ContentIndex) -> None:
    session = await index.sessions.open("acme", 60)
    kept, lost = new_digests(2)
    await index.packs.mark_sealed(await store_chunks(index, [kept]), 4096)
    await index.packs.mark_damaged(await store_chunks(index, [lost]))
    assert await index.chunks.find("acme", session, [kept, lost]) == {kept}
    assert set(await index.chunks.locate("acme", [kept, lost])) == {kept}


async def test_sealing_a_pack_that_is_not_there_or_damaged_is_refused(index: ContentIndex) -> None:
    damaged = await new_pack(index)
    await index.packs.mark_damaged(damaged)
    for pack in (uuid4(), damaged):
        with pytest.raises(PacksGone):
            await index.packs.mark_sealed(pack, 64)


async def test_only_a_pack_without_durable_bytes_can_be_removed(index: ContentIndex) -> None:
    empty = await new_pack(index)
    full = await store_chunks(index, new_digests(1))
    await index.packs.remove(empty)
    await index.packs.remove(full)
    assert [row.pack for row in await index.packs.open_packs()] == [full]


# --- sessions ---


async def test_a_session_lasts_as_long_as_it_is_renewed(index: ContentIndex, clock: FakeClock) -> None:
    session = await index.sessions.open("acme", 60)
    assert len(session) == 16
    for _ in range(5):
        clock.seconds += 59
        await index.sessions.renew("acme", session, 60)
    clock.seconds += 60
    with pytest.raises(SessionExpired):
        await index.sessions.renew("acme", session, 60)


async def test_a_fresh_lease_is_not_written_again(index: ContentIndex, clock: FakeClock) -> None:
    session = await index.sessions.open("acme", 60)

    async def expires_at_ms() -> object:
        async with index.database.read() as connection:
            return await connection.scalar(sa.select(sessions.c.expires_at_ms))

    before = await expires_at_ms()
    clock.seconds += 14
    await index.sessions.renew("acme", session, 60)
    assert await expires_at_ms() == before
    clock.seconds += 2
    await index.sessions.renew("acme", session, 60)
    assert await expires_at_ms() == int((clock.seconds + 60) * 1000)


async def test_a_session_is_of_no_use_to_another_entity_nor_after_its_end(index: ContentIndex) -> None:
    session = await index.sessions.open("acme", 60)
    await index.sessions.open("other", 60)
    for entity in ("other", "nobody"):
        await index.sessions.close(entity, session)
        with pytest.raises(SessionExpired):
            await index.sessions.renew(entity, session, 60)
    await index.sessions.renew("acme", session, 60)
    await index.sessions.close("acme", session)
    await index.sessions.close("acme", session)
    with pytest.raises(SessionExpired):
        await index.sessions.renew("acme", session, 60)


async def test_a_sweep_removes_lapsed_sessions_with_their_holds_and_no_others(
    index: ContentIndex, clock: FakeClock
) -> None:
    digests = new_digests(1)
    for _ in range(3):
        await store_chunks(index, digests, session=await index.sessions.open("acme", 60))
    clock.seconds += 30
    living = await index.sessions.open("acme", 60)
    await index.chunks.find("acme", living, digests)
    clock.seconds += 30
    assert await index.sessions.sweep(2) == 2
    assert await index.sessions.sweep(2) == 1
    assert await index.sessions.sweep(2) == 0
    await index.sessions.renew("acme", living, 60)
    assert await count(index, session_packs) == 1


# --- chunks ---


async def test_finding_chunks_holds_their_packs_and_counts_the_reference(index: ContentIndex) -> None:
    present, absent = new_digests(2)
    pack = await store_chunks(index, [present])
    before = await generation(index, pack)
    session = await index.sessions.open("acme", 60)
    assert await index.chunks.find("acme", session, [absent, present, present]) == {present}
    assert await generation(index, pack) == before + 1
    async with index.database.read() as connection:
        held = (await connection.execute(sa.select(session_packs))).all()
    assert [tuple(row) for row in held] == [(session, pack.bytes)]


async def test_finding_nothing_writes_nothing(index: ContentIndex) -> None:
    pack = await store_chunks(index, new_digests(1))
    before = await generation(index, pack)
    session = await index.sessions.open("acme", 60)
    assert await index.chunks.find("acme", session, new_digests(10)) == set()
    assert await index.chunks.find("acme", session, []) == set()
    assert await generation(index, pack) == before
    assert await count(index, session_packs) == 0


async def test_chunks_are_not_found_for_a_session_that_cannot_hold_them(index: ContentIndex, clock: FakeClock) -> None:
    digests = new_digests(1)
    pack = await store_chunks(index, digests)
    before = await generation(index, pack)
    await store_chunks(index, new_digests(1), entity="other")
    lapsed = await index.sessions.open("acme", 60)
    clock.seconds += 60
    foreign = await index.sessions.open("other", 60)
    for session in (lapsed, foreign, bytes(16)):
        with pytest.raises(SessionExpired):
            await index.chunks.find("acme", session, digests)
    assert await generation(index, pack) == before


@pytest.mark.parametrize("state", ["condemned", "deleting", "damaged"])
async def test_chunks_in_a_pack_that_is_not_live_are_missing(index: ContentIndex, state: str) -> None:
    digests = new_digests(2)
    session = await index.sessions.open("acme", 60)
    pack = await store_chunks(index, digests)
    await set_state(index, packs, pack.bytes, state)
    assert await index.chunks.find("acme", session, digests) == set()
    assert await index.chunks.locate("acme", digests) == {}


async def test_a_digest_of_the_wrong_length_is_just_missing(index: ContentIndex) -> None:
    (digest,) = new_digests(1)
    await store_chunks(index, [digest])
    odd = [digest[:31], digest, digest + b"\0", b""]
    assert set(await index.chunks.locate("acme", odd)) == {digest}


async def test_two_entities_do_not_see_each_others_content(index: ContentIndex) -> None:
    (digest,) = new_digests(1)
    pack = await store_chunks(index, [digest])
    tree = NewTree(digest, 0, 0, 0, [])
    await index.uploads.begin("acme", "u", 1)
    batch = IndexBatch("acme", blobs=[NewBlob(digest, 100, 1)], trees=[tree], required_packs={pack})
    assert await index.recorder.record([batch], {}) == [None]
    for entity in ("nobody", "other"):
        assert await index.chunks.locate(entity, [digest]) == {}
        assert await index.blobs.stat(entity, [digest]) == {}
        with pytest.raises(TreeNotFound):
            await index.trees.get(entity, digest)
        with pytest.raises(UploadNotFound):
            await index.uploads.get(entity, "u")
        # From here on there are rows of this entity, with the same keys.
        other_pack = await store_chunks(index, new_digests(1), entity="other")
        session = await index.sessions.open("other", 60)
        assert await index.chunks.find("other", session, [digest]) == set()
        assert await generation(index, other_pack) == 1


async def test_ten_thousand_chunks_and_blobs_are_recorded_and_found_in_few_queries(index: ContentIndex) -> None:
    digests = new_digests(10_000)
    pack = await new_pack(index)
    session = await index.sessions.open("acme", 60)
    assert await index.chunks.find("acme", session, digests) == set()
    batches = [
        IndexBatch("acme", session, chunks=chunk_rows(pack, digests)),
        IndexBatch("acme", session, blobs=[NewBlob(d, 100, 1) for d in digests], required_packs={pack}),
    ]
    began = time.monotonic()
    assert await index.recorder.record(batches, {pack: 1 << 21}) == [None, None]
    # Ten times what it takes on two slow cores: this catches a query for each row, not a busy machine.
    assert time.monotonic() - began < 5
    assert await index.chunks.find("acme", session, digests) == set(digests)
    assert len(await index.blobs.stat("acme", digests)) == 10_000
    slices = [BlobSlice(digest, 0, 100) for digest in digests]
    found = [piece async for piece in index.blobs.recipes("acme", slices)]
    assert [piece.refs for piece in found] == [[ChunkRef(0, digest, 100)] for digest in digests]


# --- blobs ---


async def _store_long_blob(index: ContentIndex, chunk_count: int) -> tuple[bytes, list[ChunkRef]]:
    """Commit a blob whose chunks have 1, 2, 3, … bytes, so that no two begin alike."""
    digest, *chunks = new_digests(1 + chunk_count)
    refs, at = [], 0
    for size_bytes, chunk in enumerate(chunks, 1):
        refs.append(ChunkRef(at, chunk, size_bytes))
        at += size_bytes
    parts = [refs[n : n + REFS_PER_PART] for n in range(0, len(refs), REFS_PER_PART)]
    batch = IndexBatch("acme", blobs=[NewBlob(digest, at, chunk_count)])
    batch.recipe_parts = [
        NewRecipePart(digest, part[0].offset_bytes, pack_refs((ref.digest, ref.size_bytes) for ref in part))
        for part in parts
    ]
    assert await index.recorder.record([batch], {}) == [None]
    return digest, refs


async def test_a_recipe_gives_the_chunks_that_a_range_touches(index: ContentIndex) -> None:
    digest, refs = await _store_long_blob(index, 20 * REFS_PER_PART + 7)
    size_bytes = refs[-1].offset_bytes + refs[-1].size_bytes
    middle = refs[REFS_PER_PART]
    ranges = [
        (0, size_bytes),
        (0, size_bytes + 10**6),
        (0, 1),
        (size_bytes - 1, size_bytes),
        (middle.offset_bytes - 1, middle.offset_bytes + 1),
        (middle.offset_bytes, middle.offset_bytes + middle.size_bytes),
        (middle.offset_bytes + 1, size_bytes - 1),
        (17, 17),
        (size_bytes, size_bytes + 1),
    ]
    for start, end in ranges:
        expected = [ref for ref in refs if ref.offset_bytes + ref.size_bytes > start and ref.offset_bytes < end]
        expected = expected if start < min(end, size_bytes) else []
        assert [ref async for ref in index.blobs.recipe("acme", digest, start, end)] == expected, (start, end)


async def test_a_blob_of_one_chunk_or_none_needs_no_recipe_rows(index: ContentIndex) -> None:
    single, empty = new_digests(2)
    batch = IndexBatch("acme", blobs=[NewBlob(single, 100, 1), NewBlob(empty, 0, 0)])
    assert await index.recorder.record([batch], {}) == [None]
    assert await index.blobs.stat("acme", [single, empty]) == {
        single: BlobRow(single, 100, 1),
        empty: BlobRow(empty, 0, 0),
    }
    assert [ref async for ref in index.blobs.recipe("acme", single, 40, 50)] == [ChunkRef(0, single, 100)]
    assert [ref async for ref in index.blobs.recipe("acme", empty, 0, 1)] == []


async def test_many_ranges_come_in_their_order_with_the_missing_ones_named(index: ContentIndex) -> None:
    long, refs = await _store_long_blob(index, 9 * REFS_PER_PART)
    single, missing = new_digests(2)
    assert await index.recorder.record([IndexBatch("acme", blobs=[NewBlob(single, 100, 1)])], {}) == [None]
    slices = [
        BlobSlice(single, 0, 100),
        BlobSlice(missing, 0, 1),
        BlobSlice(long, 0, 1 << 60),
        BlobSlice(single, 9, 10),
    ]
    found = [piece async for piece in index.blobs.recipes("acme", slices)]
    assert [piece.slice_index for piece in found] == [0, 1, 2, 2, 3]
    assert found[1].refs is None
    assert (found[2].refs or []) + (found[3].refs or []) == refs
    assert found[0].refs == found[4].refs == [ChunkRef(0, single, 100)]


async def test_a_blob_that_is_missing_or_condemned_is_not_found(index: ContentIndex) -> None:
    digest, _ = await _store_long_blob(index, 3)
    await set_state(index, blobs, digest, "condemned")
    assert await index.blobs.stat("acme", [digest]) == {}
    for wanted in (digest, new_digests(1)[0]):
        with pytest.raises(BlobNotFound):
            [ref async for ref in index.blobs.recipe("acme", wanted, 0, 1)]


async def test_a_recipe_that_vanishes_while_it_is_read_is_an_error_and_no_short_answer(index: ContentIndex) -> None:
    digest, refs = await _store_long_blob(index, 20 * REFS_PER_PART)
    reading = index.blobs.recipe("acme", digest, 0, 1 << 60)
    assert await anext(reading) == refs[0]
    async with index.database.write() as connection:
        await connection.execute(sa.text("DELETE FROM recipe_parts"))
    with pytest.raises(BlobNotFound, match="read it again"):
        [ref async for ref in reading]


# --- trees ---


async def test_pages_begin_with_the_one_that_has_the_path(index: ContentIndex) -> None:
    (digest,) = new_digests(1)
    # Sorted as bytes, not as text: upper case before lower case, and multi-byte letters last.
    firsts = [b"A", b"Z", b"a", "é".encode(), "￿".encode()]
    pages = [NewTreePage(n, path, new_digests(1)[0], 10 + n) for n, path in enumerate(firsts)]
    tree = NewTree(digest, 12, 3, 10**15, pages)
    assert await index.recorder.record([IndexBatch("acme", trees=[tree])], {}) == [None]
    assert await index.trees.get("acme", digest) == TreeRow(digest, 12, 3, 10**15, 5)

    async def seqs(from_path: bytes | None, limit: int = 10) -> list[int]:
        return [page.seq for page in await index.trees.pages("acme", digest, from_path, limit)]

    assert [tuple(page) for page in await index.trees.pages("acme", digest, None, 10)] == [tuple(p) for p in pages]
    assert await seqs(b"") == await seqs(b"9") == await seqs(b"A") == await seqs(b"B") == [0, 1, 2, 3, 4]
    assert await seqs(b"Z") == await seqs(b"Zz") == [1, 2, 3, 4]
    assert await seqs("é/x".encode()) == [3, 4]
    assert await seqs(b"\xff") == [4]
    assert await seqs(b"b", 2) == [2, 3]


async def test_a_tree_that_is_missing_or_condemned_is_not_found(index: ContentIndex) -> None:
    digest, missing = new_digests(2)
    assert await index.recorder.record([IndexBatch("acme", trees=[NewTree(digest, 0, 0, 0, [])])], {}) == [None]
    assert await index.trees.pages("acme", digest, None, 10) == []
    await set_state(index, trees, digest, "condemned")
    for wanted in (digest, missing):
        with pytest.raises(TreeNotFound):
            await index.trees.get("acme", wanted)
        with pytest.raises(TreeNotFound):
            await index.trees.pages("acme", wanted, None, 10)


# --- uploads ---


async def test_an_upload_that_is_begun_again_keeps_its_progress_and_changes_its_writer(index: ContentIndex) -> None:
    row = await index.uploads.begin("acme", "file-1", 7)
    assert (row.state, row.writer, row.durable_bytes, row.digest, row.new_bytes) == ("open", 7, 0, None, 0)
    (digest,) = new_digests(1)
    progress = UploadProgress("file-1", 7, 0, pack_refs([(digest, 100)]), 100, 60)
    assert await index.recorder.record([IndexBatch("acme", upload=progress)], {}) == [None]
    row = await index.uploads.begin("acme", "file-1", (1 << 63) - 1)
    assert (row.writer, row.durable_bytes, row.new_bytes) == ((1 << 63) - 1, 100, 60)
    assert await index.uploads.get("acme", "file-1") == row


async def test_an_uploads_chunks_come_back_in_order_however_many_there_are(index: ContentIndex) -> None:
    await index.uploads.begin("acme", "file-1", 7)
    chunks = new_digests(150)
    batches = [
        IndexBatch("acme", upload=UploadProgress("file-1", 7, 5 * n, pack_refs([(chunk, 5)]), 5 * n + 5, 0))
        for n, chunk in enumerate(chunks)
    ]
    assert await index.recorder.record(batches, {}) == [None] * 150
    refs = [ref async for ref in index.uploads.refs("acme", "file-1")]
    assert refs == [ChunkRef(5 * n, chunk, 5) for n, chunk in enumerate(chunks)]


async def test_only_its_writer_can_discard_an_upload(index: ContentIndex) -> None:
    await index.uploads.begin("acme", "file-1", 7)
    progress = UploadProgress("file-1", 7, 0, pack_refs([(new_digests(1)[0], 100)]), 100, 100)
    assert await index.recorder.record([IndexBatch("acme", upload=progress)], {}) == [None]
    await index.uploads.discard("acme", "file-1", 8)
    assert (await index.uploads.get("acme", "file-1")).durable_bytes == 100
    await index.uploads.discard("acme", "file-1", 7)
    with pytest.raises(UploadNotFound):
        await index.uploads.get("acme", "file-1")
    assert await count(index, upload_chunks) == 0


async def test_a_sweep_forgets_idle_uploads_and_no_others(index: ContentIndex, clock: FakeClock) -> None:
    for n in range(3):
        await index.uploads.begin("acme", f"idle-{n}", 1)
    clock.seconds += 50
    await index.uploads.begin("acme", "busy", 1)
    clock.seconds += 50
    assert await index.uploads.sweep(100, 2) == 2
    assert await index.uploads.sweep(100, 2) == 1
    assert await index.uploads.sweep(100, 2) == 0
    assert (await index.uploads.get("acme", "busy")).state == "open"
    assert await count(index, uploads) == 1
