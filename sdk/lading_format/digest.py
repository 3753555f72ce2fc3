"""Digests and checksums: BLAKE3-256 names content, XXH3-64 finds damage and never names anything."""

from __future__ import annotations

import re

from blake3 import blake3
from xxhash import xxh3_64_intdigest

from lading_format.errors import InvalidDigest

DIGEST_BYTES = 32
Buffer = bytes | bytearray | memoryview

_TEXT = re.compile(r"b3:([0-9a-f]{64})")


def new_hasher() -> blake3:
    """Return an incremental BLAKE3: `update(data)`, `digest()`."""
    return blake3()


def blake3_digest(data: Buffer) -> bytes:
    """Return the 32 bytes that name `data`."""
    return blake3(data).digest()


def xxh3_64(data: Buffer) -> int:
    """Return the checksum of `data`, seed 0."""
    return xxh3_64_intdigest(data)


def format_digest(raw: bytes) -> str:
    """Return the form that people read: `b3:` and 64 lower-case hexadecimal digits."""
    return "b3:" + raw.hex()


def parse_digest(text: str) -> bytes:
    """Return the 32 bytes of a digest as people write it. Raises InvalidDigest."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidDigest(f"{text[:80]!r} is not a digest: write b3: and 64 lower-case hexadecimal digits")
    return bytes.fromhex(match[1])


def check_raw_digest(raw: bytes) -> bytes:
    """Return `raw`, or raise InvalidDigest unless it has 32 bytes."""
    if len(raw) != DIGEST_BYTES:
        raise InvalidDigest(f"a digest has {len(raw)} bytes; BLAKE3-256 has {DIGEST_BYTES}")
    return raw


def split_digests(packed: bytes) -> list[bytes]:
    """Return the digests of a list that was packed without anything between. Raises InvalidDigest."""
    if len(packed) % DIGEST_BYTES:
        raise InvalidDigest(f"{len(packed)} bytes are not a whole number of digests of {DIGEST_BYTES} bytes")
    return [packed[at : at + DIGEST_BYTES] for at in range(0, len(packed), DIGEST_BYTES)]
