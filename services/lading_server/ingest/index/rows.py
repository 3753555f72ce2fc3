"""What goes into the index and what comes out: plain values that know no SQL."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from lading_server.common.errors import ContentMoved
from lading_server.ingest.packs.writer import Location

_REF = struct.Struct("<32sI")
REF_BYTES = _REF.size
# References in one row: 36 KiB, about 512 MiB of a file.
REFS_PER_PART = 1024


class PacksGone(ContentMoved):
    """A batch needs packs that are not live: collected or damaged since they were found. It was not written."""

    def __init__(self, packs: frozenset[UUID]) -> None:
        super().__init__(f"{len(packs)} packs are gone; ask what is missing, store that again, then repeat")
        self.packs = packs


class Epoch(NamedTuple):
    """Which store this is, and how often it was opened for writing, this time included."""

    store_id: UUID
    number: int


class OpenPack(NamedTuple):
    """A pack that was never sealed."""

    pack: UUID
    pack_class: int
    entity: str
    durable_bytes: int
    epoch: int


class ChunkRow(NamedTuple):
    """A chunk or tree page that was stored. `kind` is its record's type."""

    digest: bytes
    kind: int
    location: Location


class ChunkRef(NamedTuple):
    """A chunk of a blob, or of an upload: where it begins there, and which it is."""

    offset_bytes: int
    digest: bytes
    size_bytes: int


class BlobRow(NamedTuple):
    """A committed blob."""

    digest: bytes
    size_bytes: int
    chunk_count: int


class BlobSlice(NamedTuple):
    """A range of a blob, from `start_bytes` up to but not including `end_bytes`."""

    digest: bytes
    start_bytes: int
    end_bytes: int


class SliceRefs(NamedTuple):
    """Some of the chunks of one of the ranges that were asked for, in order; None when there is no such blob."""

    slice_index: int
    refs: list[ChunkRef] | None


class NewBlob(NamedTuple):
    """A blob whose every byte was verified."""

    digest: bytes
    size_bytes: int
    chunk_count: int


class NewRecipePart(NamedTuple):
    """A part of a blob's recipe: where it begins, and at most REFS_PER_PART packed references."""

    blob_digest: bytes
    start_bytes: int
    refs: bytes


class NewTreePage(NamedTuple):
    """A page of a tree, whose bytes are stored under `page_digest`."""

    seq: int
    first_path: bytes
    page_digest: bytes
    entry_count: int


class NewTree(NamedTuple):
    """A tree and all its pages, in order."""

    digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int
    pages: list[NewTreePage]


class TreeRow(NamedTuple):
    """A stored tree's totals."""

    digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int
    page_count: int


class TreePageRow(NamedTuple):
    """A stored tree's page."""

    seq: int
    first_path: bytes
    page_digest: bytes
    entry_count: int


class PinRow(NamedTuple):
    """A promise, or its tombstone. `tree_digest` is None where the tombstone came before the promise."""

    version_uid: bytes
    tree_digest: bytes | None
    is_held: bool


class UploadRow(NamedTuple):
    """How far an upload is. `state` is `open` or `complete`; `digest` is None until it is complete."""

    upload_id: str
    state: str
    writer: int
    durable_bytes: int
    digest: bytes | None
    new_bytes: int


class UploadProgress(NamedTuple):
    """An upload's next chunks, packed: from `start_bytes` up to `durable_bytes`. `new_bytes` is a total."""

    upload_id: str
    writer: int
    start_bytes: int
    refs: bytes
    durable_bytes: int
    new_bytes: int


class UploadCompletion(NamedTuple):
    """The end of an upload."""

    upload_id: str
    writer: int
    digest: bytes
    new_bytes: int


@dataclass(slots=True)
class IndexBatch:
    """What becomes true together, or not at all.

    `required_packs` are those that hold what the batch refers to and does not bring itself. `quota_bytes` is how much
    the entity may store, this batch included; 0 is no limit.
    """

    entity: str
    session: bytes | None = None
    chunks: list[ChunkRow] = field(default_factory=list)
    blobs: list[NewBlob] = field(default_factory=list)
    recipe_parts: list[NewRecipePart] = field(default_factory=list)
    trees: list[NewTree] = field(default_factory=list)
    upload: UploadProgress | UploadCompletion | None = None
    required_packs: AbstractSet[UUID] = frozenset()
    quota_bytes: int = 0


def pack_ref(digest: bytes, size_bytes: int) -> bytes:
    """Return the packed form of one reference; see `pack_refs`."""
    return _REF.pack(digest, size_bytes)


def pack_refs(refs: Iterable[tuple[bytes, int]]) -> bytes:
    """Return the packed form of (digest, size in bytes): 36 bytes each, the size as u32, little-endian."""
    return b"".join(_REF.pack(digest, size_bytes) for digest, size_bytes in refs)


def unpack_refs(start_bytes: int, refs: bytes) -> Iterator[ChunkRef]:
    """Yield packed references, the first of which begins at `start_bytes`."""
    offset_bytes = start_bytes
    for digest, size_bytes in _REF.iter_unpack(refs):
        yield ChunkRef(offset_bytes, digest, size_bytes)
        offset_bytes += size_bytes
