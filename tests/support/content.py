"""Ingest without a server: its domain over a real index and real packs, and content to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from lading_format.digest import blake3_digest, xxh3_64
from lading_format.tree import FileEntry, sort_key
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings
from lading_server.ingest.component import run_ingest
from lading_server.ingest.domain.blobs import BlobOutcome, RecipePiece
from lading_server.ingest.domain.chunks import IncomingChunk
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.recipes import ChunkSpan
from lading_server.ingest.packs.local import LocalPackStorage
from tests.support.index import FakeClock, opened_index


@asynccontextmanager
async def opened_ingest(kind: str, directory: Path) -> AsyncIterator[Ingest]:
    """Give ingest over an empty database of that kind and an empty directory."""
    async with opened_index(kind, directory, FakeClock()) as index:
        storage = LocalPackStorage(directory / "packs")
        try:
            async with run_ingest(Settings(min_free_bytes=0), index, storage, Metrics()) as ingest:
                yield ingest
        finally:
            storage.close()


async def put_chunks(ingest: Ingest, chunks: Sequence[bytes], entity: str = "acme") -> None:
    """Store chunks and wait until they are durable."""
    session = await ingest.open_session(entity)
    async with ingest.chunk_sink(entity, session, 0) as sink:
        batch = await sink.put([IncomingChunk(blake3_digest(data), xxh3_64(data), len(data), data) for data in chunks])
        ingest.committer.flush()
        assert batch.durable is not None
        assert not batch.failures
        await batch.durable


async def put_tree(ingest: Ingest, files: Mapping[str, Sequence[bytes]], entity: str = "acme") -> bytes:
    """Store a tree of files, each given as its chunks. Returns the tree's digest."""
    chunks = list({chunk for parts in files.values() for chunk in parts})
    if chunks:
        await put_chunks(ingest, chunks, entity)
    session = await ingest.open_session(entity)
    intake = await ingest.blob_intake(entity, session, 0)
    pieces = [
        RecipePiece(
            blake3_digest(b"".join(parts)),
            sum(map(len, parts)),
            [ChunkSpan(blake3_digest(part), len(part)) for part in parts],
            False,
        )
        for parts in dict.fromkeys(tuple(parts) for parts in files.values())
    ]
    for result in await intake.take(pieces):
        assert result.outcome is not BlobOutcome.FAILED, result.error
    intake.finish()
    entries = [
        FileEntry(path, blake3_digest(b"".join(parts)), sum(map(len, parts)), False) for path, parts in files.items()
    ]
    async with ingest.tree_writer(entity, session, 0) as writer:
        await writer.add(sorted(entries, key=lambda entry: sort_key(entry.path)))
        totals, _ = await writer.finish(None)
    return totals.digest
