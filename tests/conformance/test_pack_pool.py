"""The pool of open packs, over a real index: none is forgotten, whoever goes away and when."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lading_format.digest import blake3_digest
from lading_server.ingest.index.rows import ChunkRow, IndexBatch
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.storage import PackClass
from lading_server.ingest.packs.writer import NewRecord
from tests.support.content import opened_ingest
from tests.support.index import DATABASES


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_pack_whose_uploader_goes_away_while_it_is_made_is_kept_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    records = [NewRecord(RecordType.CHUNK, blake3_digest(b"data"), b"data", None)]
    async with opened_ingest(kind, tmp_path) as ingest:
        rows: Any = ingest.index.packs
        is_adding, may_add = asyncio.Event(), asyncio.Event()
        add = rows.add

        async def slowly(*row: Any) -> None:
            await add(*row)
            is_adding.set()
            await may_add.wait()

        monkeypatch.setattr(type(rows), "add", lambda _self, *row: slowly(*row))

        async def append() -> None:
            async with ingest.pool.lease("acme", PackClass.DATA) as lease:
                await lease.append(records)

        going = asyncio.create_task(append())
        await is_adding.wait()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        may_add.set()
        await ingest.pool.close()
        assert await ingest.index.packs.open_packs() == []
        await append()
        await ingest.pool.close()
        assert await ingest.index.packs.open_packs() == []


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_pack_whose_uploader_goes_away_is_closed_only_when_what_was_sent_is_committed(
    tmp_path: Path, kind: str
) -> None:
    record = NewRecord(RecordType.CHUNK, blake3_digest(b"data"), b"data", None)
    async with opened_ingest(kind, tmp_path) as ingest:

        async def upload() -> None:
            async with ingest.pool.lease("acme", PackClass.DATA) as lease:
                pack, (location,) = await lease.append([record])
                batch = IndexBatch("acme", chunks=[ChunkRow(record.digest, RecordType.CHUNK, location)])
                durable = pack.submit(batch, len(record.payload))
                is_submitted.set()
                await durable

        is_submitted = asyncio.Event()
        going = asyncio.create_task(upload())
        await is_submitted.wait()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await ingest.pool.close()
        assert ingest.committer.failure is None
        assert await ingest.index.packs.open_packs() == []
        assert len(await ingest.index.chunks.locate("acme", [record.digest])) == 1
