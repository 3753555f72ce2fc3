"""Two servers on one PostgreSQL: a group commit that meets another transaction ends right, whoever wins.

SQLite has one writer, so there is nothing to meet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lading_server.ingest.index.rows import IndexBatch, NewBlob, PacksGone
from lading_server.ingest.index.schema import chunks, packs
from lading_server.ingest.index.store import ContentIndex
from tests.support.index import FakeClock, chunk_rows, new_digests, new_pack, opened_index, store_chunks


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[ContentIndex]:
    async with opened_index("postgresql", tmp_path, FakeClock()) as opened:
        yield opened


async def until_somebody_waits(index: ContentIndex) -> None:
    """Return when a transaction of this database waits for a lock of another."""
    query = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30):
        waiting = 0
        while not waiting:
            async with index.database.read() as connection:
                waiting = await connection.scalar(query) or 0


async def test_a_chunk_whose_old_pack_is_condemned_at_that_moment_moves_to_the_new_one(index: ContentIndex) -> None:
    digests = new_digests(2)
    old = await store_chunks(index, digests)
    new = await new_pack(index)
    batch = IndexBatch("acme", chunks=chunk_rows(new, digests))
    async with index.database.write() as collector:
        await collector.execute(sa.update(packs).where(packs.c.id == old.bytes).values(state="condemned"))
        recording = asyncio.create_task(index.recorder.record([batch], {new: 4096}))
        await until_somebody_waits(index)
    assert await recording == [None]
    located = await index.chunks.locate("acme", digests)
    assert [located[digest].pack for digest in digests] == [new, new]


async def test_a_batch_whose_pack_is_condemned_at_that_moment_is_rejected(index: ContentIndex) -> None:
    (digest,) = new_digests(1)
    pack = await store_chunks(index, [digest])
    batch = IndexBatch("acme", blobs=[NewBlob(digest, 100, 1)], required_packs={pack})
    async with index.database.write() as collector:
        await collector.execute(sa.update(packs).where(packs.c.id == pack.bytes).values(state="condemned"))
        recording = asyncio.create_task(index.recorder.record([batch], {}))
        await until_somebody_waits(index)
    (outcome,) = await recording
    assert isinstance(outcome, PacksGone)
    assert await index.blobs.stat("acme", [digest]) == {}


async def test_a_group_that_postgresql_undid_to_end_a_deadlock_is_run_again(index: ContentIndex) -> None:
    (digest,) = new_digests(1)
    old = await store_chunks(index, [digest])
    batch = IndexBatch("acme", chunks=chunk_rows(await new_pack(index), [digest]))
    async with index.database.write() as other:
        # In the wrong order: first the pack, then, while the recorder has it, the chunk.
        await other.execute(sa.update(packs).where(packs.c.id == old.bytes).values(durable_bytes=1 << 20))
        recording = asyncio.create_task(index.recorder.record([batch], {}))
        await until_somebody_waits(index)
        # Whoever began to wait first looks for a circle first, and is the one that is undone.
        await other.execute(sa.update(chunks).where(chunks.c.digest == digest).values(kind=4))
    assert await recording == [None]
    assert (await index.chunks.locate("acme", [digest]))[digest].pack == old
