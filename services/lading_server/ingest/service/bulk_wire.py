"""The two messages that carry the bytes of content, without protobuf's copies of them.

protobuf copies data into its own memory and out again: a third of the server's processor time for large files. Here a
chunk is a view of the message that brought it, and a piece goes from where it was read into the message at once. Only
messages as every protobuf writes them, with large chunks, are read this way; protobuf itself reads all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lading_format.digest import DIGEST_BYTES
from lading_format.varints import put_varint, take_varint
from lading_proto.ingest.v1 import chunks_pb2
from lading_server.ingest.domain.chunks import IncomingChunk
from lading_server.ingest.domain.content import Piece
from lading_server.ingest.service.convert import error_to_proto

# Where it begins to pay: with many small chunks protobuf is faster than Python.
_LARGE_BYTES = 64 << 10
# Tags are (field number << 3 | wire type); the fields are those of chunks.proto.
_BATCH_TAG, _CHUNK_TAG = 0x12, 0x0A
_DIGEST_HEAD = bytes([0x0A, DIGEST_BYTES])
_XXH3_TAG, _SIZE_TAG, _DATA_TAG = 0x11, 0x18, 0x22
_PIECES_TAG = b"\x0a"
_INDEX_TAG, _OFFSET_TAG, _PIECE_DATA_TAG, _LAST = b"\x08", b"\x10", b"\x1a", b"\x20\x01"
_ERROR_TAG = b"\x2a"


@dataclass(frozen=True, slots=True)
class LargeBatch:
    """A PutChunksRequest with a batch of large chunks."""

    chunks: list[IncomingChunk]


def decode_put_chunks(raw: bytes) -> chunks_pb2.PutChunksRequest | LargeBatch:
    """Read a message. Raises DecodeError as protobuf does."""
    chunks = _large_chunks(raw)
    return chunks_pb2.PutChunksRequest.FromString(raw) if chunks is None else LargeBatch(chunks)


def encode_pieces(pieces: Sequence[Piece]) -> bytes:
    """Return a ReadBlobsResponse, byte for byte as protobuf makes it."""
    parts: list[bytes | memoryview] = []
    for piece in pieces:
        head = bytearray()
        if piece.range_index:
            head += _INDEX_TAG
            put_varint(head, piece.range_index)
        if piece.offset_bytes:
            head += _OFFSET_TAG
            put_varint(head, piece.offset_bytes)
        data_bytes = len(piece.data)
        if data_bytes:
            head += _PIECE_DATA_TAG
            put_varint(head, data_bytes)
        tail = bytearray(_LAST if piece.last else b"")
        if piece.error is not None:
            error = error_to_proto(piece.error).SerializeToString()
            tail += _ERROR_TAG
            put_varint(tail, len(error))
            tail += error
        length = bytearray(_PIECES_TAG)
        put_varint(length, len(head) + data_bytes + len(tail))
        parts += (bytes(length + head), piece.data, bytes(tail))
    return b"".join(parts)


def _large_chunks(raw: bytes) -> list[IncomingChunk] | None:
    """Return the chunks of a message that is laid out as expected, or None for protobuf to read it."""
    if len(raw) < _LARGE_BYTES or raw[0] != _BATCH_TAG:
        return None
    try:
        length, at = take_varint(raw, 1)
        if at + length != len(raw):
            return None
        chunks = []
        while at < len(raw):
            chunk, at = _large_chunk(raw, at)
            if chunk is None:
                return None
            chunks.append(chunk)
    except IndexError:
        return None
    return chunks


def _large_chunk(raw: bytes, at: int) -> tuple[IncomingChunk | None, int]:
    """Return the chunk at a position and where it ends; no chunk if it is small or laid out in another way.

    Raises IndexError where the message ends before the chunk does.
    """
    length, begin = take_varint(raw, at + 1)
    digest_at = begin + len(_DIGEST_HEAD)
    xxh3_at = digest_at + DIGEST_BYTES
    if raw[at] != _CHUNK_TAG or length < _LARGE_BYTES or raw[begin:digest_at] != _DIGEST_HEAD:
        return None, at
    # A checksum of zero is left out by protobuf, which then reads the message itself.
    if raw[xxh3_at] != _XXH3_TAG or raw[xxh3_at + 9] != _SIZE_TAG:
        return None, at
    size_bytes, data_at = take_varint(raw, xxh3_at + 10)
    if raw[data_at] != _DATA_TAG:
        return None, at
    data_bytes, data_at = take_varint(raw, data_at + 1)
    end = data_at + data_bytes
    if end != begin + length or end > len(raw) or size_bytes > 0xFFFFFFFF:
        return None, at
    xxh3 = int.from_bytes(raw[xxh3_at + 1 : xxh3_at + 9], "little")
    return IncomingChunk(raw[digest_at:xxh3_at], xxh3, size_bytes, memoryview(raw)[data_at:end]), end
