"""What is read by hand is what protobuf reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from lading._download.wire import ReceivedPiece, decode_pieces
from lading_proto.ingest.v1 import chunks_pb2

_LARGE = (64 << 10) + 1
_PIECES = st.builds(
    chunks_pb2.BlobPiece,
    range_index=st.integers(0, 2**32 - 1),
    offset_bytes=st.integers(0, 2**64 - 1),
    data=st.one_of(st.binary(max_size=40), st.integers(_LARGE, 3 * _LARGE).map(lambda size_bytes: b"x" * size_bytes)),
    last=st.booleans(),
    error=st.sampled_from([None, chunks_pb2.ItemError(code=15, reason="CORRUPT_RECORD", message="damaged")]),
)
_MESSAGES = st.lists(_PIECES, max_size=4).map(lambda pieces: chunks_pb2.ReadBlobsResponse(pieces=pieces))


def received(message: chunks_pb2.ReadBlobsResponse) -> list[ReceivedPiece]:
    return [
        ReceivedPiece(
            piece.range_index,
            piece.offset_bytes,
            piece.data,
            piece.last,
            piece.error if piece.HasField("error") else None,
        )
        for piece in message.pieces
    ]


@given(_MESSAGES)
def test_pieces_read_as_protobuf_reads_them(message: chunks_pb2.ReadBlobsResponse) -> None:
    assert decode_pieces(message.SerializeToString()) == received(message)


def test_large_pieces_are_views_of_their_message() -> None:
    raw = chunks_pb2.ReadBlobsResponse(pieces=[chunks_pb2.BlobPiece(data=bytes(_LARGE), last=True)]).SerializeToString()
    (piece,) = decode_pieces(raw)
    assert isinstance(piece.data, memoryview)
    assert piece.data.obj is raw


@given(
    _MESSAGES,
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_damaged_messages_are_what_protobuf_makes_of_them(
    message: chunks_pb2.ReadBlobsResponse, changes: Sequence[tuple[int, int]], cut_bytes: int
) -> None:
    damaged = bytearray(message.SerializeToString() or b"\0")
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    wire = bytes(damaged[: max(0, len(damaged) - cut_bytes)])
    try:
        expected = chunks_pb2.ReadBlobsResponse.FromString(wire)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_pieces(wire)
    else:
        assert decode_pieces(wire) == received(expected)
