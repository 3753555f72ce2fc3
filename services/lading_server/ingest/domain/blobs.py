"""CommitBlobs: a blob is acknowledged when every byte of it was hashed here, in order, and is durable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from lading_format.digest import DIGEST_BYTES, blake3_digest, check_raw_digest
from lading_format.errors import FormatError, ReasonedError
from lading_server.common.errors import (
    CorruptRecord,
    DigestMismatch,
    MissingChunks,
    OutOfSequence,
    SizeMismatch,
    TooManyItems,
)
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.pack_pool import PackPool
from lading_server.ingest.domain.quotas import EntityQuota
from lading_server.ingest.domain.recipes import (
    REF_BYTES,
    BlobHasher,
    ChunkSpan,
    HashJob,
    SpanReader,
    check_sizes,
    encode_recipe_record,
    recipe_slices,
)
from lading_server.ingest.index.rows import IndexBatch, NewBlob, NewRecipePart, PacksGone, pack_ref, pack_refs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.storage import PackClass
from lading_server.ingest.packs.writer import Location, NewRecord

# Missing chunks that an answer names: 32 KiB of digests. The client commits again when it has sent those.
MAX_MISSING_NAMED = 1000


class RecipePiece(NamedTuple):
    """A recipe, or a part of one, as it came. No spans in an only part: the blob is one chunk, or empty."""

    blob_digest: bytes
    size_bytes: int
    spans: Sequence[ChunkSpan]
    more: bool


class BlobOutcome(Enum):
    """What became of a recipe."""

    COMMITTED = "committed"
    ALREADY_PRESENT = "already present"
    FAILED = "failed"


class BlobResult(NamedTuple):
    """The answer to one recipe."""

    blob_digest: bytes
    outcome: BlobOutcome
    error: ReasonedError | None = None


@dataclass(slots=True)
class _Recipe:
    """One blob on its way: what is known of it so far."""

    hasher: BlobHasher = field(default_factory=BlobHasher)
    blob_digest: bytes = b""
    size_bytes: int = 0
    refs: bytearray = field(default_factory=bytearray)
    packs: set[UUID] = field(default_factory=set)
    missing: list[bytes] = field(default_factory=list)
    already: bool = False
    error: ReasonedError | None = None

    @property
    def chunk_count(self) -> int:
        return len(self.refs) // REF_BYTES

    def check(self) -> None:
        """Raise unless the bytes that were hashed are the blob."""
        if self.error is not None:
            raise self.error
        if self.missing:
            raise MissingChunks(
                f"{len(self.missing)} chunks of blob b3:{self.blob_digest.hex()} are not there; "
                "put them, then commit the blob again",
                digests=self.missing[:MAX_MISSING_NAMED],
            )
        if self.hasher.size_bytes != self.size_bytes:
            raise SizeMismatch(
                f"the chunks of blob b3:{self.blob_digest.hex()} have {self.hasher.size_bytes} bytes "
                f"and the recipe says {self.size_bytes}",
                expected=self.size_bytes,
                actual=self.hasher.size_bytes,
            )
        actual = self.hasher.digest()
        if actual != self.blob_digest:
            raise DigestMismatch(
                "the chunks in order do not have the blob's digest; hash the file's bytes in order",
                expected=self.blob_digest.hex(),
                actual=actual.hex(),
            )


class BlobIntake:
    """The receiving end of one CommitBlobs stream."""

    def __init__(
        self,
        index: ContentIndex,
        pool: PackPool,
        committer: GroupCommitter,
        reader: SpanReader,
        *,
        entity: str,
        session: bytes | None,
        quota: EntityQuota,
        max_chunks_per_blob: int,
    ) -> None:
        self._index = index
        self._pool = pool
        self._committer = committer
        self._reader = reader
        self._entity = entity
        self._session = session
        self._quota = quota
        self._max_chunks = max_chunks_per_blob
        self._open: _Recipe | None = None

    async def take(self, pieces: Sequence[RecipePiece]) -> list[BlobResult]:
        """Verify and commit the recipes that these pieces complete, and return their results in order.

        Raises:
            TooManyItems: A recipe has too many chunks.
            QuotaExceeded: The recipes do not fit.
            DiskLow, StorageFailed: As PackLease.append.
        """
        present = await self._present(pieces)
        located = await self._locate(pieces, present)
        complete: list[_Recipe] = []
        hashed: list[_Recipe] = []
        jobs: list[HashJob] = []
        for piece in pieces:
            recipe = self._open or _Recipe(already=piece.blob_digest in present)
            self._open = recipe
            if spans := self._add(recipe, piece, located):
                hashed.append(recipe)
                jobs.append(HashJob(recipe.hasher, spans))
            if not piece.more:
                self._open = None
                recipe.blob_digest, recipe.size_bytes = piece.blob_digest, piece.size_bytes
                complete.append(recipe)
        for number, error in (await self._reader.hash_all(self._entity, jobs, located)).items():
            if not isinstance(error, CorruptRecord):
                raise error
            hashed[number].error = hashed[number].error or error
        return await self._commit(complete)

    def finish(self) -> None:
        """Raise OutOfSequence when the stream ended within a recipe."""
        if self._open is not None:
            raise OutOfSequence("the stream ended within a recipe; send its last part, with `more` unset")

    async def _present(self, pieces: Sequence[RecipePiece]) -> set[bytes]:
        digests = {piece.blob_digest for piece in pieces if len(piece.blob_digest) == DIGEST_BYTES}
        return set(await self._index.blobs.stat(self._entity, list(digests)))

    async def _locate(self, pieces: Sequence[RecipePiece], present: set[bytes]) -> dict[bytes, Location]:
        """Find all chunks of a message at once: thousands of small recipes come in one."""
        digests: set[bytes] = set()
        for piece in pieces:
            if piece.blob_digest in present:
                continue
            digests.update(span.digest for span in piece.spans)
            if not piece.spans and piece.size_bytes:
                digests.add(piece.blob_digest)
        known_length = [digest for digest in digests if len(digest) == DIGEST_BYTES]
        return await self._index.chunks.locate(self._entity, known_length) if known_length else {}

    def _add(self, recipe: _Recipe, piece: RecipePiece, located: dict[bytes, Location]) -> Sequence[ChunkSpan]:
        """Note a piece of a recipe, and return the chunks that have to be hashed for it."""
        if recipe.already or recipe.error is not None:
            return ()
        try:
            if not piece.more:
                check_raw_digest(piece.blob_digest)
            if piece.spans:
                return self._add_spans(recipe, piece.spans, located)
            if not piece.more and not recipe.refs and piece.size_bytes:
                _add_single(recipe, piece, located.get(piece.blob_digest))
        except (SizeMismatch, FormatError) as error:
            recipe.error = error
        return ()

    def _add_spans(
        self, recipe: _Recipe, spans: Sequence[ChunkSpan], located: dict[bytes, Location]
    ) -> Sequence[ChunkSpan]:
        if recipe.chunk_count + len(spans) > self._max_chunks:
            raise TooManyItems(
                f"a recipe may have {self._max_chunks} chunks; cut the file into larger ones",
                limit_name="max_chunks_per_blob",
                limit=self._max_chunks,
            )
        check_sizes(spans, located)
        recipe.refs += pack_refs(spans)
        recipe.missing += [span.digest for span in spans if span.digest not in located][: MAX_MISSING_NAMED + 1]
        recipe.packs.update(located[span.digest].pack for span in spans if span.digest in located)
        return () if recipe.missing else spans

    async def _commit(self, complete: list[_Recipe]) -> list[BlobResult]:
        results: dict[int, BlobResult] = {}
        good: list[_Recipe] = []
        for recipe in complete:
            try:
                if not recipe.already:
                    recipe.check()
                good.append(recipe)
            except ReasonedError as error:
                results[id(recipe)] = BlobResult(recipe.blob_digest, BlobOutcome.FAILED, error)
        while good:
            try:
                await self._write(good)
                break
            except PacksGone as gone:
                good, lost = _part(good, gone.packs)
                for recipe in lost:
                    results[id(recipe)] = BlobResult(recipe.blob_digest, BlobOutcome.FAILED, _chunks_gone(recipe))
        for recipe in good:
            outcome = BlobOutcome.ALREADY_PRESENT if recipe.already else BlobOutcome.COMMITTED
            results[id(recipe)] = BlobResult(recipe.blob_digest, outcome)
        return [results[id(recipe)] for recipe in complete]

    async def _write(self, good: Sequence[_Recipe]) -> None:
        batch = IndexBatch(entity=self._entity, session=self._session, quota_bytes=self._quota.quota_bytes)
        records: list[NewRecord] = []
        for recipe in {recipe.blob_digest: recipe for recipe in good}.values():
            if recipe.already:
                continue
            batch.blobs.append(NewBlob(recipe.blob_digest, recipe.size_bytes, recipe.chunk_count))
            batch.required_packs |= recipe.packs
            if recipe.chunk_count > 1:
                for part in recipe_slices(bytes(recipe.refs)):
                    batch.recipe_parts.append(NewRecipePart(recipe.blob_digest, part.start_bytes, part.refs))
                    payload = encode_recipe_record(recipe.blob_digest, recipe.size_bytes, part)
                    records.append(NewRecord(RecordType.RECIPE, blake3_digest(payload), payload, None))
        if not batch.blobs:
            return
        if not records:
            await self._committer.commit(None, batch, 0)
            return
        room = await self._quota.reserve([len(part.refs) for part in batch.recipe_parts])
        async with self._pool.lease(self._entity, PackClass.META) as lease:
            with room:
                pack, locations = await lease.append(records)
                durable = pack.submit(batch, sum(location.stored_bytes for location in locations))
                room.settle_with(durable)
            self._committer.flush()
            await durable


def _add_single(recipe: _Recipe, piece: RecipePiece, location: Location | None) -> None:
    """Take a blob of one chunk: PutChunks has hashed the very bytes under the very digest."""
    recipe.refs += pack_ref(piece.blob_digest, piece.size_bytes & 0xFFFFFFFF)
    if location is None:
        recipe.missing.append(piece.blob_digest)
        return
    recipe.packs.add(location.pack)
    if location.raw_bytes != piece.size_bytes:
        raise SizeMismatch(
            f"chunk b3:{piece.blob_digest.hex()} has {location.raw_bytes} bytes and the recipe says {piece.size_bytes}",
            expected=piece.size_bytes,
            actual=location.raw_bytes,
        )
    recipe.hasher = _VerifiedChunk(piece.blob_digest, piece.size_bytes)


class _VerifiedChunk(BlobHasher):
    """A hash that is known already: a chunk's digest was checked when it was put."""

    def __init__(self, digest: bytes, size_bytes: int) -> None:
        super().__init__()
        self._digest = digest
        self.size_bytes = size_bytes

    def digest(self) -> bytes:
        return self._digest


def _part(recipes: list[_Recipe], gone: frozenset[UUID]) -> tuple[list[_Recipe], list[_Recipe]]:
    kept = [recipe for recipe in recipes if recipe.already or not recipe.packs & gone]
    lost = [recipe for recipe in recipes if not recipe.already and recipe.packs & gone]
    return kept, lost


def _chunks_gone(recipe: _Recipe) -> MissingChunks:
    return MissingChunks(
        f"chunks of blob b3:{recipe.blob_digest.hex()} were collected meanwhile; "
        "ask FindMissingChunks, put what is missing, then commit the blob again",
        digests=[],
    )
