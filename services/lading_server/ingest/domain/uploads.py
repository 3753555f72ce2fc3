"""UploadFile, the simple path: bytes come in order, are cut, hashed and stored, and an upload can be continued."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from lading_format.chunking import StreamCutter
from lading_format.digest import blake3_digest, format_digest
from lading_server.common.errors import (
    CorruptRecord,
    DigestMismatch,
    OffsetMismatch,
    SizeMismatch,
    TooManyItems,
    UploadComplete,
    UploadNotFound,
)
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.pack_pool import PackLease, PackPool
from lading_server.ingest.domain.quotas import EntityQuota
from lading_server.ingest.domain.recipes import (
    REF_BYTES,
    BlobHasher,
    ChunkSpan,
    SpanReader,
    encode_recipe_record,
    recipe_slices,
)
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import (
    ChunkRow,
    IndexBatch,
    NewBlob,
    NewRecipePart,
    UploadCompletion,
    UploadProgress,
    pack_refs,
)
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import RecordType, record_span
from lading_server.ingest.packs.storage import PackClass
from lading_server.ingest.packs.writer import NewRecord

# References read back at once when an upload is continued.
_RESUME_SPANS = 1024


class UploadState(Enum):
    """Whether more can be sent."""

    OPEN = "open"
    COMPLETE = "complete"


class UploadStatus(NamedTuple):
    """How far an upload is; the digest when it is complete."""

    state: UploadState
    durable_bytes: int
    digest: bytes | None


class UploadedFile(NamedTuple):
    """What an upload made."""

    digest: bytes
    size_bytes: int
    new_bytes: int


@dataclass(frozen=True)
class UploadContext:
    """What every upload stream needs."""

    index: ContentIndex
    pool: PackPool
    committer: GroupCommitter
    reader: SpanReader
    workers: Workers
    window_bytes: int
    max_chunks_per_blob: int


async def upload_status(index: ContentIndex, entity: str, upload_id: str) -> UploadStatus:
    """Tell how far an upload is. Raises UploadNotFound."""
    row = await index.uploads.get(entity, upload_id)
    return UploadStatus(UploadState(row.state), row.durable_bytes, row.digest)


class FileUpload:
    """The receiving end of one UploadFile stream.

    Invariant: the hasher has seen every byte that was taken, in order; those up to the last durable group are listed
    in the index under the upload, so that another stream can continue from there.
    """

    def __init__(
        self,
        context: UploadContext,
        lease: PackLease,
        *,
        entity: str,
        session: bytes | None,
        upload_id: str,
        quota: EntityQuota,
    ) -> None:
        self._context = context
        self._lease = lease
        self._entity = entity
        self._session = session
        self._upload_id = upload_id
        self._quota = quota
        # Names this stream among all that ever write this upload; fits a signed 64-bit column.
        self._writer = secrets.randbits(63)
        self._hasher = BlobHasher()
        self._cutter = StreamCutter()
        self._refs = bytearray()
        self._stored_bytes = 0
        self._new_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._waiting_bytes = 0

    async def begin(self, offset_bytes: int) -> None:
        """Take the upload over, at `offset_bytes`.

        Raises:
            UploadComplete: It was finished before.
            OffsetMismatch: Another number of bytes is durable.
            CorruptRecord: What is durable cannot be read back.
        """
        row = await self._context.index.uploads.begin(self._entity, self._upload_id, self._writer)
        if row.state == UploadState.COMPLETE.value:
            digest = format_digest(row.digest or b"")
            raise UploadComplete(f"upload {self._upload_id!r} is complete: its file is {digest}", digest=digest)
        if offset_bytes != row.durable_bytes:
            raise OffsetMismatch(
                f"upload {self._upload_id!r} has {row.durable_bytes} durable bytes and not {offset_bytes}; "
                "continue from there",
                expected=row.durable_bytes,
                actual=offset_bytes,
            )
        if row.durable_bytes:
            self._new_bytes = row.new_bytes
            await self._rehash()

    async def take(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            UploadTakenOver: Another stream continues this upload.
            QuotaExceeded: The bytes do not fit; what was durable before is.
            DiskLow, StorageFailed: As PackLease.append.
        """
        await self._store(await self._context.workers.run(self._cut, data))
        while self._waiting_bytes > self._context.window_bytes:
            await self._settle_first()

    async def finish(self, expected_digest: bytes | None, expected_size_bytes: int | None) -> UploadedFile:
        """Commit the blob.

        Raises:
            DigestMismatch, SizeMismatch: The bytes are not what the client expected; the upload is discarded.
            UploadTakenOver, QuotaExceeded, DiskLow, StorageFailed: As `take`.
        """
        await self._store(await self._context.workers.run(self._cut_rest))
        digest, size_bytes = self._hasher.digest(), self._hasher.size_bytes
        await self._check(digest, expected_digest, size_bytes, expected_size_bytes)
        self._context.committer.flush()
        while self._waiting:
            await self._settle_first()
        await self._commit(digest, size_bytes)
        return UploadedFile(digest, size_bytes, self._new_bytes)

    async def suspend(self) -> None:
        """Make what was taken durable as far as it was cut: the stream ended early and may be continued.

        Raises nothing of what could not be: the index says how far the upload is, and the stream has its error already.
        """
        self._context.committer.flush()
        await asyncio.gather(*(future for _, future in self._waiting), return_exceptions=True)
        self._waiting.clear()
        self._waiting_bytes = 0

    async def _rehash(self) -> None:
        spans: list[ChunkSpan] = []
        async for ref in self._context.index.uploads.refs(self._entity, self._upload_id):
            spans.append(ChunkSpan(ref.digest, ref.size_bytes))
            if len(spans) == _RESUME_SPANS:
                await self._rehash_some(spans)
                spans = []
        await self._rehash_some(spans)
        self._stored_bytes = self._hasher.size_bytes

    async def _rehash_some(self, spans: Sequence[ChunkSpan]) -> None:
        located = await self._context.reader.locate(self._entity, spans)
        try:
            await self._context.reader.hash_into(self._entity, self._hasher, spans, located)
        except CorruptRecord as error:
            await self._context.index.uploads.discard(self._entity, self._upload_id, self._writer)
            raise _lost(self._upload_id) from error
        self._refs += pack_refs(spans)

    def _cut(self, data: bytes) -> list[NewRecord]:
        self._hasher.update(data)
        return _records(self._cutter.feed(data))

    def _cut_rest(self) -> list[NewRecord]:
        return _records(self._cutter.finish())

    async def _store(self, records: Sequence[NewRecord]) -> None:
        if not records:
            return
        if len(self._refs) // REF_BYTES + len(records) > self._context.max_chunks_per_blob:
            raise TooManyItems(
                f"a file may have {self._context.max_chunks_per_blob} chunks; split it",
                limit_name="max_chunks_per_blob",
                limit=self._context.max_chunks_per_blob,
            )
        refs = pack_refs(ChunkSpan(record.digest, len(record.payload)) for record in records)
        size_bytes = sum(len(record.payload) for record in records)
        digests = list({record.digest for record in records})
        present = await self._context.index.chunks.locate(self._entity, digests)
        new = list({record.digest: record for record in records if record.digest not in present}.values())
        self._new_bytes += sum(len(record.payload) for record in new)
        batch = self._batch()
        batch.required_packs = {location.pack for location in present.values()}
        batch.upload = UploadProgress(
            self._upload_id, self._writer, self._stored_bytes, refs, self._stored_bytes + size_bytes, self._new_bytes
        )
        durable = await self._submit(batch, new)
        self._refs += refs
        self._stored_bytes += size_bytes
        self._wait_for(durable, size_bytes)

    async def _submit(self, batch: IndexBatch, new: Sequence[NewRecord]) -> asyncio.Future[None]:
        if not new:
            return self._context.committer.submit(None, batch, 0)
        with await self._quota.reserve([record_span(len(record.payload)) for record in new]) as room:
            pack, locations = await self._lease.append(new)
            batch.chunks = [
                ChunkRow(record.digest, RecordType.CHUNK, location)
                for record, location in zip(new, locations, strict=True)
            ]
            durable = pack.submit(batch, sum(location.stored_bytes for location in locations))
            room.settle_with(durable)
        return durable

    def _batch(self) -> IndexBatch:
        return IndexBatch(entity=self._entity, session=self._session, quota_bytes=self._quota.quota_bytes)

    def _wait_for(self, future: asyncio.Future[None], size_bytes: int) -> None:
        self._waiting.append((size_bytes, future))
        self._waiting_bytes += size_bytes

    async def _settle_first(self) -> None:
        size_bytes, future = self._waiting.popleft()
        self._waiting_bytes -= size_bytes
        await future

    async def _check(
        self, digest: bytes, expected_digest: bytes | None, size_bytes: int, expected_size_bytes: int | None
    ) -> None:
        error: DigestMismatch | SizeMismatch | None = None
        if expected_size_bytes is not None and expected_size_bytes != size_bytes:
            error = SizeMismatch(
                f"the upload has {size_bytes} bytes and not {expected_size_bytes}; it was discarded, send it anew",
                expected=expected_size_bytes,
                actual=size_bytes,
            )
        elif expected_digest is not None and expected_digest != digest:
            error = DigestMismatch(
                f"the bytes have {format_digest(digest)} and not {format_digest(expected_digest)}; "
                "the upload was discarded, send it anew",
                expected=format_digest(expected_digest),
                actual=format_digest(digest),
            )
        if error is not None:
            await self.suspend()
            await self._context.index.uploads.discard(self._entity, self._upload_id, self._writer)
            raise error

    async def _commit(self, digest: bytes, size_bytes: int) -> None:
        refs = bytes(self._refs)
        chunk_count = len(refs) // REF_BYTES
        batch = self._batch()
        batch.blobs = [NewBlob(digest, size_bytes, chunk_count)]
        batch.required_packs = await self._packs_of(refs)
        batch.upload = UploadCompletion(self._upload_id, self._writer, digest, self._new_bytes)
        if chunk_count <= 1:
            await self._context.committer.commit(None, batch, 0)
            return
        parts = list(recipe_slices(refs))
        batch.recipe_parts = [NewRecipePart(digest, part.start_bytes, part.refs) for part in parts]
        payloads = [encode_recipe_record(digest, size_bytes, part) for part in parts]
        records = [NewRecord(RecordType.RECIPE, blake3_digest(payload), payload, None) for payload in payloads]
        async with self._context.pool.lease(self._entity, PackClass.META) as lease:
            pack, locations = await lease.append(records)
            durable = pack.submit(batch, sum(location.stored_bytes for location in locations))
            self._context.committer.flush()
            await durable

    async def _packs_of(self, refs: bytes) -> set[UUID]:
        packs: set[UUID] = set()
        step = _RESUME_SPANS * REF_BYTES
        for at in range(0, len(refs), step):
            digests = {refs[i : i + 32] for i in range(at, min(at + step, len(refs)), REF_BYTES)}
            located = await self._context.index.chunks.locate(self._entity, list(digests))
            if len(located) < len(digests):
                await self._context.index.uploads.discard(self._entity, self._upload_id, self._writer)
                raise _lost(self._upload_id)
            packs.update(location.pack for location in located.values())
        return packs


def _lost(upload_id: str) -> UploadNotFound:
    return UploadNotFound(
        f"a part of upload {upload_id!r} that was durable is lost, so it was discarded; start it from the beginning"
    )


def _records(chunks: Sequence[bytes | memoryview]) -> list[NewRecord]:
    return [NewRecord(RecordType.CHUNK, blake3_digest(chunk), chunk, None) for chunk in chunks]
