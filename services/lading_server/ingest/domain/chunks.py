"""PutChunks: check every chunk, append what is right, commit it, count what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from lading_format.digest import DIGEST_BYTES, blake3_digest, xxh3_64
from lading_format.errors import InvalidDigest, ReasonedError
from lading_server.common.errors import (
    ChecksumMismatch,
    ChunkEmpty,
    ChunkTooLarge,
    DigestMismatch,
    WindowExceeded,
)
from lading_server.common.registry_errors import QuotaExceeded
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.pack_pool import PackLease
from lading_server.ingest.domain.quotas import EntityQuota
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.chunks import ChunkIndex
from lading_server.ingest.index.rows import ChunkRow, IndexBatch
from lading_server.ingest.packs.format import RecordType, record_span
from lading_server.ingest.packs.writer import NewRecord


class IncomingChunk(NamedTuple):
    """A chunk as it came, with what the client says of it."""

    digest: bytes
    xxh3: int
    size_bytes: int
    data: bytes | memoryview


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
    # Which chunks `durable` is about, by position and digest.
    stored: list[tuple[int, bytes]] = field(default_factory=list)

    async def settled(self) -> None:
        """Return when everything is durable or was refused. Raises what went wrong with all of it."""
        if self.durable is None:
            return
        try:
            await self.durable
        except QuotaExceeded as error:
            # Another server has stored so much meanwhile.
            failed = [Failure(*chunk, error.with_traceback(None)) for chunk in self.stored]
            self.failures = sorted([*self.failures, *failed], key=_position)


def _position(failure: Failure) -> int:
    return failure.position


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


class _Numbered(NamedTuple):
    """A chunk that is right, and its position in the stream."""

    position: int
    record: NewRecord


class ChunkSink:
    """The receiving end of one PutChunks stream.

    Invariant: the bytes that were taken and not yet answered never exceed `window_bytes`.
    """

    def __init__(
        self,
        lease: PackLease,
        workers: Workers,
        index: ChunkIndex,
        committer: GroupCommitter,
        *,
        entity: str,
        session: bytes,
        quota: EntityQuota,
        keep_session: Callable[[], Awaitable[None]],
        window_bytes: int,
        max_chunk_bytes: int,
    ) -> None:
        self._lease = lease
        self._workers = workers
        self._index = index
        self._committer = committer
        self._quota = quota
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
        numbered, failures = await self._workers.run(self._check_all, chunks, self._taken_chunks)
        self._taken_chunks += len(chunks)
        batch = PutBatch(len(chunks), size_bytes, failures, None)
        if not numbered:
            return batch
        if self._quota.quota_bytes:
            await self._store_within_quota(batch, numbered)
        else:
            batch.durable = await self._store([one.record for one in numbered], self._batch())
        return batch

    def answered(self, batch: PutBatch) -> None:
        """Open the window again by what was answered."""
        self._outstanding_bytes -= batch.size_bytes

    def _check_all(self, chunks: Sequence[IncomingChunk], first: int) -> tuple[list[_Numbered], list[Failure]]:
        records: list[_Numbered] = []
        failures: list[Failure] = []
        seen: set[bytes] = set()
        for index, chunk in enumerate(chunks, first):
            try:
                check_chunk(chunk, self._max_chunk_bytes)
            except ReasonedError as error:
                # Without the frames that it passed through: they hold the chunk, and with it the whole message.
                failures.append(Failure(index, chunk.digest, error.with_traceback(None)))
                continue
            if chunk.digest not in seen:
                seen.add(chunk.digest)
                records.append(_Numbered(index, NewRecord(RecordType.CHUNK, chunk.digest, chunk.data, chunk.xxh3)))
        return records, failures

    async def _store_within_quota(self, batch: PutBatch, numbered: Sequence[_Numbered]) -> None:
        """Store what is not there yet, as far as it fits.

        What is there is only held. Appending it again would cost no quota and all the disk.
        """
        present = await self._index.locate(self._entity, [one.record.digest for one in numbered])
        new = [one for one in numbered if one.record.digest not in present]
        room, refused = await self._quota.reserve_some([record_span(len(one.record.payload)) for one in new])
        with room:
            batch.failures += [Failure(new[at].position, new[at].record.digest, error) for at, error in refused.items()]
            batch.failures.sort(key=_position)
            fitting = [one for at, one in enumerate(new) if at not in refused]
            batch.stored = [(one.position, one.record.digest) for one in fitting]
            rows = self._batch(required_packs={location.pack for location in present.values()})
            if fitting:
                batch.durable = await self._store([one.record for one in fitting], rows)
                room.settle_with(batch.durable)
            elif present:
                batch.durable = self._committer.submit(None, rows, 0)

    async def _store(self, records: Sequence[NewRecord], batch: IndexBatch) -> asyncio.Future[None]:
        pack, locations = await self._lease.append(records)
        batch.chunks = [
            ChunkRow(record.digest, RecordType.CHUNK, location)
            for record, location in zip(records, locations, strict=True)
        ]
        return pack.submit(batch, sum(location.stored_bytes for location in locations))

    def _batch(self, required_packs: AbstractSet[UUID] = frozenset()) -> IndexBatch:
        return IndexBatch(
            entity=self._entity,
            session=self._session,
            required_packs=required_packs,
            quota_bytes=self._quota.quota_bytes,
        )
