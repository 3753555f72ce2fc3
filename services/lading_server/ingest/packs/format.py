"""The pack format: headers, index and trailer to bytes and back. Pure; little-endian; everything 8-byte aligned.

    PACK HEADER 64 B   magic(8) · format version u16 · class u16 · incompatible-feature bits u32 · pack id(16) ·
                       store id(16) · writer epoch u64 · XXH3-64 of the 56 bytes before u64
    RECORD HEADER 64 B magic(4) · type u8 · codec u8 · digest algorithm u8 · flags u8 · stored length u32 ·
                       raw length u32 · XXH3-64 of the payload u64 · digest(32) · sequence number u32 · checksum u32
    INDEX payload      entries of 56 B sorted by digest: digest(32) · offset u64 · stored length u32 · raw length u32 ·
                       type u8 · padding(7)
    TRAILER 64 B       magic(8) · offset of the INDEX record u64 · record count u64 · payload bytes u64 ·
                       XXH3-128 of all bytes before the trailer(16) · zero u64 · XXH3-64 of the 56 bytes before u64

A header's checksum is verified before any of its lengths is believed. A record's is seeded with the pack's id, so that
a record of another pack is never taken for one of this. The digest of every record is the BLAKE3-256 of its payload,
and its sequence number says how many records the pack has before it. Without a codec the two lengths are one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

from xxhash import xxh3_64_intdigest

from lading_format.digest import DIGEST_BYTES
from lading_server.common.errors import CorruptRecord

HEADER_BYTES = 64
ALIGNMENT = 8
FORMAT_VERSION = 1
# Feature bits that this version understands: none yet.
KNOWN_FEATURES = 0

_PACK_MAGIC = b"\x89LDP\r\n\x1a\n"
_TRAILER_MAGIC = b"\x89LDT\r\n\x1a\n"
RECORD_MAGIC = b"LDRC"
_CODEC_RAW = 0
_BLAKE3 = 1

_PACK = struct.Struct("<8sHHI16s16sQ")
_RECORD = struct.Struct("<4sBBBBIIQ32sI")
_INDEX_ENTRY = struct.Struct("<32sQIIB7x")
_TRAILER = struct.Struct("<8sQQQ16sQ")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class RecordType(IntEnum):
    """What a record's payload is. The numbers are on disk and in the index."""

    OWNER = 1
    CHUNK = 2
    RECIPE = 3
    TREE_PAGE = 4
    TREE = 5
    INDEX = 6


class PackHeader(NamedTuple):
    """The first bytes of a pack."""

    pack_class: int
    pack: UUID
    store_id: UUID
    writer_epoch: int


class RecordHeader(NamedTuple):
    """What stands before a payload."""

    type: RecordType
    stored_bytes: int
    raw_bytes: int
    xxh3: int
    digest: bytes
    sequence: int


class IndexEntry(NamedTuple):
    """Where a record is in its pack."""

    digest: bytes
    offset: int
    stored_bytes: int
    raw_bytes: int
    type: RecordType


class Trailer(NamedTuple):
    """The last bytes of a sealed pack."""

    index_offset: int
    record_count: int
    payload_bytes: int
    xxh3_128: bytes


def header_seed(pack: UUID) -> int:
    """Return the seed of a pack's record checksums."""
    return xxh3_64_intdigest(pack.bytes)


def padding_of(length: int) -> int:
    """Return how many zero bytes follow a payload of this length."""
    return -length % ALIGNMENT


def record_span(stored_bytes: int) -> int:
    """Return how many bytes a record takes with header and padding."""
    return HEADER_BYTES + stored_bytes + padding_of(stored_bytes)


def sealed_bytes(record_bytes: int, record_count: int) -> int:
    """Return how long a sealed pack is whose records take so many bytes with header and padding, its owner included."""
    return HEADER_BYTES + record_bytes + record_span(_INDEX_ENTRY.size * record_count) + HEADER_BYTES


def encode_pack_header(header: PackHeader) -> bytes:
    """Return the 64 bytes that a pack begins with."""
    body = _PACK.pack(
        _PACK_MAGIC,
        FORMAT_VERSION,
        header.pack_class,
        KNOWN_FEATURES,
        header.pack.bytes,
        header.store_id.bytes,
        header.writer_epoch,
    )
    return body + _U64.pack(xxh3_64_intdigest(body))


def decode_pack_header(data: bytes) -> PackHeader:
    """Return a pack's header. Raises CorruptRecord when it is damaged, or of a version that is not known here."""
    body = _checked(data, "pack header")
    magic, version, pack_class, features, pack, store_id, epoch = _PACK.unpack(body)
    if magic != _PACK_MAGIC:
        raise CorruptRecord("this is not a pack: its first bytes are not a pack's")
    if version != FORMAT_VERSION or features & ~KNOWN_FEATURES:
        raise CorruptRecord(
            f"the pack has format version {version} and features {features:#x}, "
            f"and this server knows version {FORMAT_VERSION}; update the server"
        )
    return PackHeader(pack_class, UUID(bytes=pack), UUID(bytes=store_id), epoch)


def encode_record_header(header: RecordHeader, seed: int) -> bytes:
    """Return the 64 bytes that stand before a payload. Raises ValueError unless the digest has 32 bytes."""
    if len(header.digest) != DIGEST_BYTES:
        raise ValueError(f"a record's digest has {DIGEST_BYTES} bytes and not {len(header.digest)}")
    body = _RECORD.pack(
        RECORD_MAGIC,
        header.type,
        _CODEC_RAW,
        _BLAKE3,
        0,
        header.stored_bytes,
        header.raw_bytes,
        header.xxh3,
        header.digest,
        header.sequence,
    )
    return body + _U32.pack(xxh3_64_intdigest(body, seed) & 0xFFFFFFFF)


def decode_record_header(data: bytes | memoryview, seed: int) -> RecordHeader:
    """Return a record's header. Raises CorruptRecord."""
    if len(data) != HEADER_BYTES:
        raise CorruptRecord(f"a record header has {len(data)} bytes and not {HEADER_BYTES}")
    body = data[:-4]
    if _U32.unpack(data[-4:])[0] != xxh3_64_intdigest(body, seed) & 0xFFFFFFFF:
        raise CorruptRecord("a record header does not have its checksum")
    magic, kind, codec, algorithm, flags, stored, raw, xxh3, digest, sequence = _RECORD.unpack(body)
    if magic != RECORD_MAGIC or codec != _CODEC_RAW or algorithm != _BLAKE3 or flags or kind not in _TYPES:
        raise CorruptRecord("a record has a type or codec that this server does not know; update the server")
    if stored != raw:
        raise CorruptRecord("a record that is not compressed has two different lengths")
    return RecordHeader(RecordType(kind), stored, raw, xxh3, digest, sequence)


def encode_index(entries: Iterable[IndexEntry]) -> bytes:
    """Return the payload of an INDEX record."""
    return b"".join(_INDEX_ENTRY.pack(*entry) for entry in sorted(entries))


def decode_index(payload: bytes | memoryview) -> Iterator[IndexEntry]:
    """Yield the entries of an INDEX record. Raises CorruptRecord."""
    if len(payload) % _INDEX_ENTRY.size:
        raise CorruptRecord("a pack's index is not a whole number of entries")
    for digest, offset, stored, raw, kind in _INDEX_ENTRY.iter_unpack(payload):
        if kind not in _TYPES:
            raise CorruptRecord("a pack's index has an entry of a type that this server does not know")
        yield IndexEntry(digest, offset, stored, raw, RecordType(kind))


def encode_trailer(trailer: Trailer) -> bytes:
    """Return the 64 bytes that a sealed pack ends with."""
    body = _TRAILER.pack(_TRAILER_MAGIC, *trailer, 0)
    return body + _U64.pack(xxh3_64_intdigest(body))


def decode_trailer(data: bytes) -> Trailer:
    """Return a pack's trailer. Raises CorruptRecord."""
    magic, *fields, _ = _TRAILER.unpack(_checked(data, "trailer"))
    if magic != _TRAILER_MAGIC:
        raise CorruptRecord("this is not a sealed pack: its last bytes are not a trailer")
    return Trailer(*fields)


def _checked(data: bytes, what: str) -> bytes:
    """Return all but the checksum, or raise CorruptRecord."""
    if len(data) != HEADER_BYTES:
        raise CorruptRecord(f"a {what} has {len(data)} bytes and not {HEADER_BYTES}")
    if _U64.unpack(data[-8:])[0] != xxh3_64_intdigest(data[:-8]):
        raise CorruptRecord(f"a {what} does not have its checksum")
    return data[:-8]


_TYPES = frozenset(int(kind) for kind in RecordType)
