"""One stream of chunks: what is kept of a chunk that is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from lading_server.common.errors import DigestMismatch
from lading_server.ingest.domain.chunks import ChunkSink, IncomingChunk
from lading_server.ingest.domain.quotas import EntityQuota
from lading_server.ingest.domain.workers import Workers


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    pool = Workers(1)
    yield pool
    pool.close()


async def test_a_refused_chunk_keeps_why_and_not_the_message_that_it_came_in(workers: Workers) -> None:
    async def keep_session() -> None:
        pass

    # Nothing of the message gets as far as these.
    unused = cast(Any, None)
    sink = ChunkSink(
        unused,
        workers,
        unused,
        unused,
        entity="acme",
        session=b"",
        quota=EntityQuota("acme", 0, None, unused, unused),
        keep_session=keep_session,
        window_bytes=1 << 20,
        max_chunk_bytes=1 << 20,
    )
    batch = await sink.put([IncomingChunk(b"\0" * 32, 0, 5, b"more than five bytes")])
    (failure,) = batch.failures
    assert isinstance(failure.error, DigestMismatch)
    assert failure.error.__traceback__ is None
