"""Recipes: a blob's list of chunks, packed, and the hashing of the bytes that it stands for."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lading_format.digest import new_hasher
from lading_server.common.errors import SizeMismatch
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import REFS_PER_PART, unpack_refs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.reader import read_payloads
from lading_server.ingest.packs.storage import PackStorage
from lading_server.ingest.packs.writer import Location

# A packed reference: a digest and a size.
REF_BYTES = 36
# Read and hashed in one thread job: bounds the memory of a verification.
_HASH_RUN_BYTES = 8 << 20
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

    def __init__(self, index: ContentIndex, storage: PackStorage, workers: Workers) -> None:
        self._index = index
        self._storage = storage
        self._workers = workers

    async def locate(self, entity: str, spans: Sequence[ChunkSpan]) -> dict[bytes, Location]:
        """Return where the chunks are; those that the entity does not have are left out.

        Raises SizeMismatch when a chunk is not as long as its span says.
        """
        found = await self._index.chunks.locate(entity, list({span.digest for span in spans}))
        check_sizes(spans, found)
        return found

    async def hash_into(self, hasher: BlobHasher, spans: Sequence[ChunkSpan], located: dict[bytes, Location]) -> None:
        """Read the chunks in order and hash them. Raises CorruptRecord."""
        for run in _runs(spans):
            await self._workers.run(self._hash_run, hasher, run, located)

    def _hash_run(self, hasher: BlobHasher, run: Sequence[ChunkSpan], located: dict[bytes, Location]) -> None:
        digests = [span.digest for span in run]
        for payload in read_payloads(self._storage, [located[digest] for digest in digests], digests):
            hasher.update(payload)


class BlobHasher:
    """The hash of a blob's bytes so far.

    Invariant: it has seen exactly the first `size_bytes` bytes, in order.
    """

    def __init__(self) -> None:
        self._hasher = new_hasher()
        self.size_bytes = 0

    def update(self, data: bytes | memoryview) -> None:
        """See the next bytes."""
        self._hasher.update(data)
        self.size_bytes += len(data)

    def digest(self) -> bytes:
        """Return the digest of what was seen."""
        return self._hasher.digest()


def _runs(spans: Sequence[ChunkSpan]) -> Iterator[list[ChunkSpan]]:
    run: list[ChunkSpan] = []
    run_bytes = 0
    for span in spans:
        run.append(span)
        run_bytes += span.size_bytes
        if run_bytes >= _HASH_RUN_BYTES:
            yield run
            run, run_bytes = [], 0
    if run:
        yield run
