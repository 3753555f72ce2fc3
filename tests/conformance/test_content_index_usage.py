"""What entities store, and that it is never more than they may, on each database that the index runs on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_server.common.database import open_database
from lading_server.common.registry_errors import QuotaExceeded
from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.rows import (
    ChunkRow,
    IndexBatch,
    NewBlob,
    NewRecipePart,
    UploadProgress,
    pack_refs,
)
from lading_server.ingest.index.schema import packs, usage
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.index.usage import count_anew
from lading_server.ingest.packs.format import record_span
from lading_server.ingest.packs.writer import Location
from tests.support.index import DATABASES, FakeClock, database_url, new_digests, new_pack, opened_index, set_state

CHUNK = 2
# What a chunk of 100 bytes counts for: its header, and padding to a multiple of 8.
SPAN = 168


class Packs:
    """Places that were never written to."""

    def __init__(self, pack: UUID) -> None:
        self.pack = pack
        self._offset = 64

    def rows(self, digests: list[bytes], size_bytes: int = 100) -> list[ChunkRow]:
        rows = []
        for digest in digests:
            rows.append(ChunkRow(digest, CHUNK, Location(self.pack, self._offset, size_bytes, size_bytes)))
            self._offset += record_span(size_bytes)
        return rows


@pytest.fixture(params=DATABASES)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ContentIndex]:
    async with opened_index(request.param, tmp_path, FakeClock()) as opened:
        yield opened


async def packs_of(index: ContentIndex, entity: str = "acme") -> Packs:
    return Packs(await new_pack(index, entity))


async def stored(index: ContentIndex, entity: str = "acme") -> int:
    """What the index says, which is what its rows come to."""
    async with index.database.read() as connection:
        kept = {row.entity_id: row.stored_bytes for row in await connection.execute(sa.select(usage))}
        counted = await count_anew(connection, is_live())
    assert {number: size for number, size in kept.items() if size} == counted
    return await index.usage.stored_bytes(entity)


def recipe(digest: bytes, chunks: list[bytes], quota_bytes: int = 0) -> IndexBatch:
    refs = pack_refs((chunk, 100) for chunk in chunks)
    blob = NewBlob(digest, 100 * len(chunks), len(chunks))
    return IndexBatch("acme", blobs=[blob], recipe_parts=[NewRecipePart(digest, 0, refs)], quota_bytes=quota_bytes)


# --- counting ---


async def test_who_never_stored_anything_stores_nothing(index: ContentIndex) -> None:
    assert await stored(index, "nobody") == 0


async def test_each_chunk_counts_once_with_what_frames_it(index: ContentIndex) -> None:
    places, digests = await packs_of(index), new_digests(3)
    batch = IndexBatch("acme", chunks=places.rows(digests))
    assert await index.recorder.record([batch], {}) == [None]
    assert await stored(index) == 3 * SPAN
    # Again, and with one that is new; twice in one batch, and in two of one group.
    fresh = new_digests(2)
    again = [
        IndexBatch("acme", chunks=places.rows([*digests, fresh[0], fresh[0]])),
        IndexBatch("acme", chunks=places.rows([fresh[0], fresh[1]])),
    ]
    assert await index.recorder.record(again, {}) == [None, None]
    assert await stored(index) == 5 * SPAN


async def test_entities_are_counted_apart(index: ContentIndex) -> None:
    ours, theirs, digests = await packs_of(index), await packs_of(index, "rival"), new_digests(4)
    batches = [
        IndexBatch("acme", chunks=ours.rows(digests)),
        IndexBatch("rival", chunks=theirs.rows(digests[:1], 1000)),
    ]
    assert await index.recorder.record(batches, {}) == [None, None]
    assert (await stored(index), await stored(index, "rival")) == (4 * SPAN, 1064)


async def test_a_recipe_counts_and_one_that_takes_its_place_counts_instead(index: ContentIndex) -> None:
    places, chunks, (blob,) = await packs_of(index), new_digests(4), new_digests(1)
    await index.recorder.record([IndexBatch("acme", chunks=places.rows(chunks))], {})
    assert await index.recorder.record([recipe(blob, chunks)], {}) == [None]
    assert await stored(index) == 4 * SPAN + 4 * 36
    assert await index.recorder.record([recipe(blob, chunks[:2]), recipe(blob, chunks[:3])], {}) == [None, None]
    assert await stored(index) == 4 * SPAN + 3 * 36


async def test_a_damaged_pack_counts_no_more_and_what_is_stored_anew_does(index: ContentIndex) -> None:
    places, digests = await packs_of(index), new_digests(3)
    await index.recorder.record([IndexBatch("acme", chunks=places.rows(digests))], {})
    await index.packs.mark_damaged(places.pack)
    await index.packs.mark_damaged(places.pack)
    assert await stored(index) == 0
    other = await packs_of(index)
    assert await index.recorder.record([IndexBatch("acme", chunks=other.rows(digests[:2]))], {}) == [None]
    assert await stored(index) == 2 * SPAN


async def test_what_is_not_written_is_not_counted(index: ContentIndex) -> None:
    places, dead, digests = await packs_of(index), await packs_of(index), new_digests(4)
    await set_state(index, packs, dead.pack.bytes, "condemned")
    upload = UploadProgress("never-begun", 1, 0, b"", 1, 1)
    batches = [
        IndexBatch("acme", chunks=dead.rows(digests[:1])),
        IndexBatch("acme", chunks=places.rows(digests[1:3]), upload=upload),
        IndexBatch("acme", chunks=places.rows(digests[3:])),
    ]
    outcomes = await index.recorder.record(batches, {})
    assert [outcome is None for outcome in outcomes] == [False, False, True]
    assert await stored(index) == SPAN


# --- the bound ---


async def test_what_does_not_fit_is_rejected_and_the_rest_is_written(index: ContentIndex) -> None:
    places, digests = await packs_of(index), new_digests(6)
    quota_bytes = 4 * SPAN
    batches = [
        IndexBatch("acme", chunks=places.rows(some), quota_bytes=quota_bytes)
        for some in (digests[:3], digests[3:5], digests[5:])
    ]
    outcomes = await index.recorder.record(batches, {})
    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], QuotaExceeded)
    assert outcomes[1].metadata == {"limit_bytes": str(quota_bytes), "stored_bytes": str(3 * SPAN)}
    assert await stored(index) == quota_bytes
    assert set(await index.chunks.locate("acme", digests)) == {*digests[:3], digests[5]}


async def test_who_is_at_the_quota_may_do_what_stores_nothing(index: ContentIndex) -> None:
    places, digests = await packs_of(index), new_digests(2)
    batch = IndexBatch("acme", chunks=places.rows(digests), quota_bytes=2 * SPAN)
    assert await index.recorder.record([batch], {}) == [None]
    again = IndexBatch("acme", chunks=places.rows(digests), blobs=[NewBlob(digests[0], 100, 1)], quota_bytes=2 * SPAN)
    assert await index.recorder.record([again], {}) == [None]
    more = recipe(new_digests(1)[0], digests, quota_bytes=2 * SPAN)
    assert isinstance((await index.recorder.record([more], {}))[0], QuotaExceeded)


async def test_a_smaller_quota_than_what_is_stored_takes_nothing_away(index: ContentIndex) -> None:
    places, digests = await packs_of(index), new_digests(3)
    await index.recorder.record([IndexBatch("acme", chunks=places.rows(digests))], {})
    batch = IndexBatch("acme", chunks=places.rows(new_digests(1)), quota_bytes=1)
    assert isinstance((await index.recorder.record([batch], {}))[0], QuotaExceeded)
    assert await stored(index) == 3 * SPAN
    assert len(await index.chunks.locate("acme", digests)) == 3


@pytest.mark.parametrize("seed", range(3))
async def test_servers_that_race_never_store_more_than_the_quota(
    index: ContentIndex, tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    url = index.database._writer.url.render_as_string(hide_password=False)
    servers = [index, await ContentIndex.open(url), await ContentIndex.open(url)]
    quota_bytes, common = 40 * SPAN, new_digests(10)
    try:
        work = [(server, await packs_of(server)) for server in servers for _ in range(4)]

        async def store(server: ContentIndex, places: Packs, seed: int) -> int:
            chance, written = random.Random(seed), 0
            for _ in range(8):
                digests = [*new_digests(chance.randint(0, 4)), *chance.sample(common, chance.randint(0, 3))]
                batch = IndexBatch("acme", chunks=places.rows(digests), quota_bytes=quota_bytes)
                (outcome,) = await server.recorder.record([batch], {})
                assert outcome is None or isinstance(outcome, QuotaExceeded)
                written += outcome is None
                assert await server.usage.stored_bytes("acme") <= quota_bytes
            return written

        written = await asyncio.gather(*(store(*one, chance.getrandbits(32)) for one in work))
        assert 0 < sum(written) < 8 * len(work)
        assert 36 * SPAN < await stored(index) <= quota_bytes
    finally:
        for server in servers[1:]:
            await server.close()


# --- stores that are there already ---


@pytest.mark.parametrize("kind", DATABASES)
async def test_the_migration_counts_what_is_there(kind: str, tmp_path: Path) -> None:
    async with database_url(kind, tmp_path) as url:
        index = await ContentIndex.open(url, clock=FakeClock())
        places, dead, chunks = await packs_of(index), await packs_of(index), new_digests(5)
        theirs = await packs_of(index, "rival")
        batches = [
            IndexBatch("acme", chunks=places.rows(chunks, 101)),
            IndexBatch("acme", chunks=dead.rows(new_digests(2))),
            IndexBatch("rival", chunks=theirs.rows(chunks)),
            recipe(new_digests(1)[0], chunks),
        ]
        assert await index.recorder.record(batches, {}) == [None] * 4
        await index.packs.mark_damaged(dead.pack)
        expected = await stored(index), await stored(index, "rival")
        assert expected == (5 * SPAN + 5 * 36, 5 * SPAN)
        await index.close()
        old = open_database(url)
        async with old.write() as connection:
            for newer in ("TABLE usage", "TABLE maintenance", "TABLE doomed", "INDEX tree_pages_entity_id_page_digest"):
                await connection.execute(sa.text(f"DROP {newer}"))
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
        await old.close()
        index = await ContentIndex.open(url, clock=FakeClock())
        try:
            assert (await stored(index), await stored(index, "rival")) == expected
        finally:
            await index.close()
