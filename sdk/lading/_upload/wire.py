"""Encodes PutChunks messages, byte for byte as protobuf does, but copies the data once instead of three times.

Of a 1 GiB upload, protobuf's own encoding took a third of the client's processor time. Nothing else is encoded here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from lading._upload.content import DIGEST_BYTES, Chunk

# Tags are (field number << 3 | wire type); the fields are those of chunks.proto.
_BATCH_TAG = b"\x12"  # PutChunksRequest.batch
_CHUNK_TAG = b"\x0a"  # ChunkBatch.chunks
_DIGEST_TAG = bytes([0x0A, DIGEST_BYTES])  # Chunk.digest and its length
_XXH3 = struct.Struct("<BQ")
_XXH3_TAG = 0x11
_SIZE_TAG = b"\x18"
_DATA_TAG = b"\x22"
# Of a chunk, without the varints: the two tags, the digest with its own, the checksum with its own.
_FIXED_BYTES = 2 + len(_DIGEST_TAG) + DIGEST_BYTES + _XXH3.size


def encode_batch(chunks: Sequence[Chunk]) -> bytes:
    """Return a PutChunksRequest with a batch of these chunks. None of them is empty."""
    parts: list[bytes | memoryview] = [b""]
    batch_bytes = 0
    for chunk in chunks:
        size = _varint(len(chunk.data))
        head_bytes = _FIXED_BYTES + 2 * len(size)
        length = _varint(head_bytes + len(chunk.data))
        batch_bytes += len(_CHUNK_TAG) + len(length) + head_bytes + len(chunk.data)
        head = b"".join(
            (
                _CHUNK_TAG, length, _DIGEST_TAG, chunk.digest, _XXH3.pack(_XXH3_TAG, chunk.xxh3),
                _SIZE_TAG, size, _DATA_TAG, size,
            )
        )  # fmt: skip
        parts += (head, chunk.data)
    parts[0] = _BATCH_TAG + _varint(batch_bytes)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
