"""What is read and written by hand is what protobuf reads and writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from lading_proto.ingest.v1 import chunks_pb2
from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.chunks import IncomingChunk
from lading_server.ingest.domain.content import Piece
from lading_server.ingest.service.bulk_wire import LargeBatch, decode_put_chunks, encode_pieces
from lading_server.ingest.service.convert import chunks_from_proto, error_to_proto

_LARGE = (64 << 10) + 1
_DATA = st.one_of(st.binary(max_size=40), st.integers(_LARGE, 3 * _LARGE).map(lambda size_bytes: b"x" * size_bytes))
_CHUNKS = st.builds(
    chunks_pb2.Chunk,
    digest=st.one_of(st.binary(min_size=32, max_size=32), st.binary(max_size=40)),
    xxh3=st.integers(0, 2**64 - 1),
    size_bytes=st.integers(0, 2**32 - 1),
    data=_DATA,
)
_PIECES = st.builds(
    Piece,
    range_index=st.integers(0, 2**32 - 1),
    offset_bytes=st.integers(0, 2**64 - 1),
    data=st.one_of(_DATA, _DATA.map(lambda data: memoryview(data))),
    last=st.booleans(),
    error=st.sampled_from([None, CorruptRecord("the chunk is damaged", pack="p", offset=7)]),
)


def put_chunks(chunks: Sequence[chunks_pb2.Chunk]) -> bytes:
    return chunks_pb2.PutChunksRequest(batch=chunks_pb2.ChunkBatch(chunks=chunks)).SerializeToString()


def read(raw: bytes) -> list[IncomingChunk]:
    message = decode_put_chunks(raw)
    return message.chunks if isinstance(message, LargeBatch) else chunks_from_proto(message.batch)


@given(st.lists(_CHUNKS, max_size=4))
def test_chunks_read_as_protobuf_reads_them(chunks: Sequence[chunks_pb2.Chunk]) -> None:
    expected = [IncomingChunk(chunk.digest, chunk.xxh3, chunk.size_bytes, chunk.data) for chunk in chunks]
    assert read(put_chunks(chunks)) == expected


def test_large_chunks_are_views_of_their_message() -> None:
    chunk = chunks_pb2.Chunk(digest=bytes(32), xxh3=1, size_bytes=_LARGE, data=bytes(_LARGE))
    raw = put_chunks([chunk, chunk])
    message = decode_put_chunks(raw)
    assert isinstance(message, LargeBatch)
    views = [taken.data for taken in message.chunks]
    assert all(isinstance(view, memoryview) and view.obj is raw for view in views)


@given(
    st.lists(_CHUNKS, min_size=1, max_size=2).map(put_chunks),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 3),
)
@example(put_chunks([chunks_pb2.Chunk(digest=bytes(32), xxh3=1, size_bytes=1, data=bytes(_LARGE))]), [(0, 10)], 0)
def test_damaged_messages_are_what_protobuf_makes_of_them(
    raw: bytes, changes: Sequence[tuple[int, int]], cut_bytes: int
) -> None:
    damaged = bytearray(raw)
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    wire = bytes(damaged[: len(damaged) - cut_bytes])
    try:
        expected = chunks_pb2.PutChunksRequest.FromString(wire)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_put_chunks(wire)
    else:
        message = decode_put_chunks(wire)
        if isinstance(message, LargeBatch):
            assert message.chunks == chunks_from_proto(expected.batch)
        else:
            assert message == expected


def test_the_start_of_a_stream_is_protobufs() -> None:
    start = chunks_pb2.PutChunksRequest(start=chunks_pb2.PutChunksStart(entity="acme" * (_LARGE // 4), session_id="s"))
    assert decode_put_chunks(start.SerializeToString()) == start


@given(st.lists(_PIECES, max_size=4))
def test_pieces_are_written_as_protobuf_writes_them(pieces: Sequence[Piece]) -> None:
    message = chunks_pb2.ReadBlobsResponse()
    for piece in pieces:
        added = message.pieces.add(
            range_index=piece.range_index, offset_bytes=piece.offset_bytes, data=bytes(piece.data), last=piece.last
        )
        if piece.error is not None:
            added.error.CopyFrom(error_to_proto(piece.error))
    assert encode_pieces(pieces) == message.SerializeToString()
