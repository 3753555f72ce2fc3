"""Recipes: a blob's list of chunks, packed, and the hashing of the bytes that it stands for."""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import NamedTuple

from blake3 import blake3

from lading_format.digest import blake3_digest, new_hasher
from lading_format.errors import ReasonedError
from lading_server.common.errors import CorruptRecord, SizeMismatch
from lading_server.common.one_ahead import one_ahead
from lading_server.ingest.domain.records import Found, RecordReader
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import REFS_PER_PART, unpack_refs
from lading_server.ingest.packs.writer import Location

# A packed reference: a digest and a size.
REF_BYTES = 36
# Read in one thread job, and hashed in another while the next is read: bounds the memory of a verification.
_HASH_RUN_BYTES = 4 << 20
_RECORD_HEAD = struct.Struct("<32sQQI")


class ChunkSpan(NamedTuple):
    """A chunk of a recipe: its digest and how many bytes it has."""

    digest: bytes
    size_bytes: int


class RecipeSlice(NamedTuple):
    """Consecutive chunks of a recipe, packed: where they begin in the blob, and 36 bytes for each."""

    start_bytes: int
    refs: bytes


def recipe_slices(refs: bytes) -> Iterator[RecipeSlice]:
    """Cut a whole packed recipe into parts of REFS_PER_PART."""
    start_bytes = 0
    step = REFS_PER_PART * REF_BYTES
    for at in range(0, len(refs), step):
        part = refs[at : at + step]
        yield RecipeSlice(start_bytes, part)
        start_bytes += sum(ref.size_bytes for ref in unpack_refs(start_bytes, part))


def encode_recipe_record(blob_digest: bytes, size_bytes: int, part: RecipeSlice) -> bytes:
    """Return the payload of a RECIPE record: what rebuilding the index needs to know of one part."""
    count = len(part.refs) // REF_BYTES
    return _RECORD_HEAD.pack(blob_digest, size_bytes, part.start_bytes, count) + part.refs


def recipe_record_place(payload: bytes | memoryview) -> tuple[bytes, int]:
    """Return which blob a RECIPE record is of, and where its part begins there."""
    blob_digest, _, start_bytes, _ = _RECORD_HEAD.unpack_from(payload)
    return blob_digest, start_bytes


class RecipePart(NamedTuple):
    """What a RECIPE record says: a part of the recipe of a blob, and how many bytes the whole blob has."""

    blob_digest: bytes
    size_bytes: int
    slice: RecipeSlice


def decode_recipe_record(payload: bytes | memoryview) -> RecipePart:
    """Return what `encode_recipe_record` was given. Raises CorruptRecord."""
    try:
        blob_digest, size_bytes, start_bytes, count = _RECORD_HEAD.unpack_from(payload)
    except struct.error as error:
        raise CorruptRecord(f"a recipe cannot be read: {error}") from error
    refs = bytes(payload[_RECORD_HEAD.size :])
    if len(refs) != count * REF_BYTES:
        raise CorruptRecord(f"a recipe is said to have {count} chunks, and has {len(refs)} bytes of them")
    return RecipePart(blob_digest, size_bytes, RecipeSlice(start_bytes, refs))


def check_sizes(spans: Sequence[ChunkSpan], located: Mapping[bytes, Location]) -> None:
    """Raise SizeMismatch when a chunk that is there is not as long as its span says."""
    for digest, size_bytes in spans:
        location = located.get(digest)
        if location is not None and location.raw_bytes != size_bytes:
            raise SizeMismatch(
                f"chunk b3:{digest.hex()} has {location.raw_bytes} bytes and the recipe says {size_bytes}",
                expected=size_bytes,
                actual=location.raw_bytes,
            )


class SpanReader:
    """Finds and reads the bytes of chunks, in order, a bounded run at a time."""

    def __init__(self, records: RecordReader, workers: Workers) -> None:
        self._records = records
        self._workers = workers

    async def locate(self, entity: str, spans: Sequence[ChunkSpan]) -> dict[bytes, Location]:
        """Return where the chunks are; those that the entity does not have are left out.

        Raises SizeMismatch when a chunk is not as long as its span says.
        """
        found = await self._records.locate(entity, {span.digest for span in spans})
        check_sizes(spans, found)
        return found

    async def hash_into(
        self, entity: str, hasher: BlobHasher, spans: Sequence[ChunkSpan], located: Mapping[bytes, Location]
    ) -> None:
        """Read the chunks in order and hash them. Raises CorruptRecord, StorageFailed, also where one has no place."""
        for error in (await self.hash_all(entity, [HashJob(hasher, spans)], located)).values():
            raise error

    async def hash_all(
        self, entity: str, jobs: Sequence[HashJob], located: Mapping[bytes, Location]
    ) -> dict[int, ReasonedError]:
        """Read the chunks of each job and hash them, in order. What is small is read together.

        Returns:
            Those jobs of which a chunk cannot be read or has no place, by their numbers, with CorruptRecord or
            StorageFailed. Their hashers have seen a part.
        """
        errors: dict[int, ReasonedError] = {}
        async with one_ahead(self._read(entity, jobs, located, errors)) as ahead:
            async for run, found in ahead:
                await self._workers.run(_hash_run, jobs, run, found, errors)
        return errors

    async def _read(
        self,
        entity: str,
        jobs: Sequence[HashJob],
        located: Mapping[bytes, Location],
        errors: Mapping[int, ReasonedError],
    ) -> AsyncGenerator[tuple[_Run, Found], None]:
        for run in _runs(jobs):
            digests = {span.digest for number, spans in run if number not in errors for span in spans}
            if digests:
                yield run, await self._records.read(entity, digests, located)


class BlobHasher:
    """The hash of a blob's bytes so far.

    Invariant: it has seen exactly the first `size_bytes` bytes, in order.
    """

    def __init__(self) -> None:
        # Not before there is something to hash: most blobs are one chunk, whose digest is known.
        self._hasher: blake3 | None = None
        self.size_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """See the next bytes."""
        if self._hasher is None:
            self._hasher = new_hasher()
        self._hasher.update(data)
        self.size_bytes += len(data)

    def digest(self) -> bytes:
        """Return the digest of what was seen."""
        return blake3_digest(b"") if self._hasher is None else self._hasher.digest()


class HashJob(NamedTuple):
    """Chunks that a hash is to see next, in order."""

    hasher: BlobHasher
    spans: Sequence[ChunkSpan]


# The chunks of each job, by its number, that are read together.
_Run = list[tuple[int, list[ChunkSpan]]]


def _hash_run(jobs: Sequence[HashJob], run: _Run, found: Found, errors: dict[int, ReasonedError]) -> None:
    for number, spans in run:
        if number in errors:
            continue
        for digest, _ in spans:
            if digest in found.errors:
                errors[number] = found.errors[digest]
                break
            jobs[number].hasher.update(found.payloads[digest])


def _runs(jobs: Sequence[HashJob]) -> Iterator[_Run]:
    run: _Run = []
    run_bytes = 0
    for number, job in enumerate(jobs):
        spans: list[ChunkSpan] = []
        run.append((number, spans))
        for span in job.spans:
            if run_bytes >= _HASH_RUN_BYTES:
                yield run
                spans = []
                run, run_bytes = [(number, spans)], 0
            spans.append(span)
            run_bytes += span.size_bytes
    if run_bytes:
        yield run
