"""What is encoded by hand is what protobuf would have made."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lading._local_files import LocalFile
from lading._upload.blocks import Block, Blocks
from lading._upload.content import Chunk, UploadingFile
from lading._upload.wire import encode_batch
from lading_proto.ingest.v1 import chunks_pb2

_FILE = UploadingFile(LocalFile("f", "/f", 0, 0, False, 0, 0, 0))
_BLOCK = Block(Blocks(0, 0), memoryview(b""))
_CHUNKS = st.builds(
    Chunk,
    file=st.just(_FILE),
    index=st.just(0),
    digest=st.binary(min_size=32, max_size=32),
    xxh3=st.integers(1, 2**64 - 1),
    data=st.one_of(
        st.binary(min_size=1, max_size=300), st.integers(1, 2 << 20).map(lambda size_bytes: b"x" * size_bytes)
    ),
    block=st.just(_BLOCK),
)


@given(st.lists(_CHUNKS, min_size=1, max_size=5))
def test_the_encoding_is_that_of_protobuf(chunks: Sequence[Chunk]) -> None:
    message = chunks_pb2.PutChunksRequest()
    for chunk in chunks:
        message.batch.chunks.add(digest=chunk.digest, xxh3=chunk.xxh3, size_bytes=len(chunk.data), data=chunk.data)
    assert encode_batch(chunks) == message.SerializeToString()


def test_a_checksum_of_zero_reads_as_zero() -> None:
    chunk = Chunk(_FILE, 0, bytes(32), 0, b"data", _BLOCK)
    (read,) = chunks_pb2.PutChunksRequest.FromString(encode_batch([chunk])).batch.chunks
    assert (read.xxh3, read.size_bytes, read.data) == (0, 4, b"data")
