"""Lays recipes into CommitBlobs messages. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lading._limits import Limits
from lading._upload.content import DIGEST_BYTES, UploadingFile
from lading_proto.ingest.v1 import chunks_pb2

# 36 to 37 bytes a chunk: 2.3 MiB, so that any such part fits into a message with what was before it.
CHUNKS_PER_PART = 1 << 16
_MESSAGE_BYTES = 1 << 20
_PART_OVERHEAD_BYTES = 64
_CHUNK_BYTES = DIGEST_BYTES + 5


def recipe_messages(files: Iterable[UploadingFile], limits: Limits) -> Iterator[chunks_pb2.CommitBlobsRequest]:
    """Yield the messages that commit these files: many recipes to one, a very long recipe over several."""
    message = chunks_pb2.CommitBlobsRequest()
    message_bytes = 0
    for file in files:
        for first in range(0, max(1, file.chunk_count), CHUNKS_PER_PART):
            last = min(file.chunk_count, first + CHUNKS_PER_PART)
            add_part(message, file, first, last)
            message_bytes += _PART_OVERHEAD_BYTES + (last - first) * _CHUNK_BYTES
            if message_bytes >= _MESSAGE_BYTES or len(message.parts) >= limits.max_blobs_per_message:
                yield message
                message = chunks_pb2.CommitBlobsRequest()
                message_bytes = 0
    if message.parts:
        yield message


def add_part(message: chunks_pb2.CommitBlobsRequest, file: UploadingFile, first: int, last: int) -> None:
    """Add the chunks from `first` to before `last`; as the last part when the file is read and they are its last."""
    if not file.chunk_digests:
        message.parts.add(blob_digest=file.digest, size_bytes=file.source.size_bytes)
        return
    message.parts.add(
        blob_digest=file.digest,
        size_bytes=file.source.size_bytes,
        chunk_digests=bytes(file.chunk_digests[first * DIGEST_BYTES : last * DIGEST_BYTES]),
        chunk_sizes=file.chunk_sizes[first:last],
        more=not (file.is_read and last == file.chunk_count),
    )
