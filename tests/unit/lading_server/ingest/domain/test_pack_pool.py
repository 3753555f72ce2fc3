"""When a pack is full."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from lading_format.digest import blake3_digest, xxh3_64
from lading_server.ingest.domain import pack_pool
from lading_server.ingest.domain.chunks import IncomingChunk
from tests.support.content import opened_ingest

MOST_RECORDS = 100
MESSAGES, CHUNKS = 12, 30


async def test_a_pack_of_many_small_records_is_full_long_before_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_pool, "MOST_RECORDS", MOST_RECORDS)
    async with opened_ingest("sqlite", tmp_path) as ingest:
        session = await ingest.open_session("acme")
        packs: set[UUID] = set()
        async with ingest.chunk_sink("acme", session, 0) as sink:
            for message in range(MESSAGES):
                datas = [f"{message}-{index}".encode() for index in range(CHUNKS)]
                digests = [blake3_digest(data) for data in datas]
                put = await sink.put(
                    [
                        IncomingChunk(digest, xxh3_64(data), len(data), data)
                        for digest, data in zip(digests, datas, strict=True)
                    ]
                )
                ingest.committer.flush()
                await put.settled()
                sink.answered(put)
                located = await ingest.index.chunks.locate("acme", digests)
                assert len(located) == CHUNKS
                packs.update(location.pack for location in located.values())
    # With its owner a pack has 121 records when the next message finds that it is full.
    assert len(packs) == MESSAGES // 4
