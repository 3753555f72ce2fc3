"""PutChunks: check every chunk, append what is right, commit it, count what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lading_format.digest import DIGEST_BYTES, blake3_digest, xxh3_64
from lading_format.errors import InvalidDigest, ReasonedError
from lading_server.common.errors import (
    ChecksumMismatch,
    ChunkEmpty,
    ChunkTooLarge,
    DigestMismatch,
    WindowExceeded,
)
from lading_server.ingest.domain.pack_pool import PackLease
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import ChunkRow, IndexBatch
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.writer import NewRecord


class IncomingChunk(NamedTuple):
    """A chunk as it came, with what the client says of it."""

    digest: bytes
    xxh3: int
    size_bytes: int
    data: bytes


class Failure(NamedTuple):
    """A chunk that was not stored: its position in the stream, its digest as sent, and why."""

    position: int
    digest: bytes
    error: ReasonedError


@dataclass(slots=True)
class PutBatch:
    """One message of a stream: how much it was, what was refused, and when the rest is durable."""

    chunk_count: int
    size_bytes: int
    failures: list[Failure]
    durable: asyncio.Future[None] | None


@dataclass(slots=True)
class Acknowledgement:
    """What a stream may tell its client, cumulative."""

    chunk_count: int = 0
    size_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)


def check_chunk(chunk: IncomingChunk, max_chunk_bytes: int) -> None:
    """Raise unless the chunk is what it says it is."""
    actual_bytes = len(chunk.data)
    if len(chunk.digest) != DIGEST_BYTES:
        raise InvalidDigest(f"a chunk's digest has {len(chunk.digest)} bytes; BLAKE3-256 has {DIGEST_BYTES}")
    if chunk.size_bytes != actual_bytes:
        raise DigestMismatch(
            f"the chunk says {chunk.size_bytes} bytes and has {actual_bytes}; send size_bytes as the length of data",
            expected=chunk.size_bytes,
            actual=actual_bytes,
        )
    if actual_bytes == 0:
        raise ChunkEmpty("the chunk has no bytes; an empty file needs no chunk")
    if actual_bytes > max_chunk_bytes:
        raise ChunkTooLarge(
            f"the chunk has {actual_bytes} bytes; cut files into chunks of at most {max_chunk_bytes}",
            limit=max_chunk_bytes,
        )
    if xxh3_64(chunk.data) != chunk.xxh3:
        raise ChecksumMismatch("the chunk's bytes do not have its XXH3-64: damaged on the way; send it again")
    actual = blake3_digest(chunk.data)
    if actual != chunk.digest:
        raise DigestMismatch(
            "the chunk's bytes do not have its digest; hash exactly the bytes that are sent",
            expected=chunk.digest.hex(),
            actual=actual.hex(),
        )


class ChunkSink:
    """The receiving end of one PutChunks stream.

    Invariant: the bytes that were taken and not yet answered never exceed `window_bytes`.
    """

    def __init__(
        self,
        lease: PackLease,
        workers: Workers,
        *,
        entity: str,
        session: bytes,
        keep_session: Callable[[], Awaitable[None]],
        window_bytes: int,
        max_chunk_bytes: int,
    ) -> None:
        self._lease = lease
        self._workers = workers
        self._entity = entity
        self._session = session
        self._keep_session = keep_session
        self._window_bytes = window_bytes
        self._max_chunk_bytes = max_chunk_bytes
        self._taken_chunks = 0
        self._outstanding_bytes = 0

    async def put(self, chunks: Sequence[IncomingChunk]) -> PutBatch:
        """Check and append one message's chunks.

        Raises:
            WindowExceeded: The client did not wait for acknowledgements.
            SessionExpired: The session was closed.
            DiskLow, StorageFailed: As PackLease.append.
        """
        size_bytes = sum(len(chunk.data) for chunk in chunks)
        if self._outstanding_bytes + size_bytes > self._window_bytes:
            raise WindowExceeded(
                f"{self._outstanding_bytes + size_bytes} bytes are unacknowledged and the window is "
                f"{self._window_bytes}; wait for acknowledgements before sending more",
                window_bytes=self._window_bytes,
            )
        await self._keep_session()
        self._outstanding_bytes += size_bytes
        records, failures = await self._workers.run(self._check_all, chunks, self._taken_chunks)
        self._taken_chunks += len(chunks)
        durable = await self._store(records) if records else None
        return PutBatch(len(chunks), size_bytes, failures, durable)

    def answered(self, batch: PutBatch) -> None:
        """Open the window again by what was answered."""
        self._outstanding_bytes -= batch.size_bytes

    def _check_all(self, chunks: Sequence[IncomingChunk], first: int) -> tuple[list[NewRecord], list[Failure]]:
        records: list[NewRecord] = []
        failures: list[Failure] = []
        seen: set[bytes] = set()
        for index, chunk in enumerate(chunks, first):
            try:
                check_chunk(chunk, self._max_chunk_bytes)
            except ReasonedError as error:
                failures.append(Failure(index, chunk.digest, error))
                continue
            if chunk.digest not in seen:
                seen.add(chunk.digest)
                records.append(NewRecord(RecordType.CHUNK, chunk.digest, chunk.data, chunk.xxh3))
        return records, failures

    async def _store(self, records: Sequence[NewRecord]) -> asyncio.Future[None]:
        pack, locations = await self._lease.append(records)
        rows = [
            ChunkRow(record.digest, RecordType.CHUNK, location)
            for record, location in zip(records, locations, strict=True)
        ]
        batch = IndexBatch(entity=self._entity, session=self._session, chunks=rows)
        return pack.submit(batch, sum(location.stored_bytes for location in locations))
