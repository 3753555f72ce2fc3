"""Puts a tree whose blobs are committed. Knows entries, not how they came there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from lading._errors import InvalidArgument
from lading._model import TreeInfo
from lading._transport import Stream, Transport
from lading_format.digest import format_digest
from lading_format.errors import FormatError
from lading_format.tree import FileEntry, ReferenceEntry, TreeHasher
from lading_proto.ingest.v1 import trees_pb2

# Read more than once, each time in the order of the paths.
TreeEntries = Collection[FileEntry | ReferenceEntry]

_MESSAGE_BYTES = 1 << 20
_ENTRY_OVERHEAD_BYTES = 80


async def put_tree(transport: Transport, entity: str, session_id: str, entries: TreeEntries) -> tuple[TreeInfo, bool]:
    """Put a tree; return it and whether the entity already had it.

    Args:
        entries: Sorted by path.

    Raises:
        MissingContent: A blob is not committed any more.
    """
    # In a thread: a million entries take seconds.
    expected_digest = await asyncio.to_thread(tree_digest, entries)
    stream: Stream[trees_pb2.PutTreeRequest, trees_pb2.PutTreeResponse] = transport.stream(transport.control.PutTree())
    try:
        start = trees_pb2.PutTreeStart(entity=entity, session_id=session_id)
        going = await stream.try_write(trees_pb2.PutTreeRequest(start=start))
        for message in _messages(entries):
            going = going and await stream.try_write(message)
        finish = trees_pb2.PutTreeFinish(expected_digest=expected_digest)
        if going and await stream.try_write(trees_pb2.PutTreeRequest(finish=finish)):
            await stream.try_done_writing()
        response = await stream.result()
    finally:
        stream.cancel()
    return tree_info(response.tree), response.already_present


def tree_info(tree: trees_pb2.TreeInfo) -> TreeInfo:
    """Return the SDK's value for a message."""
    return TreeInfo(tree.digest, tree.file_count, tree.reference_count, tree.size_bytes)


def tree_digest(entries: TreeEntries) -> str:
    """Return the digest that the tree of these entries has. Raises InvalidArgument when they cannot be one tree."""
    hasher = TreeHasher()
    try:
        for entry in entries:
            hasher.add(entry)
        return format_digest(hasher.finish())
    except FormatError as error:
        raise InvalidArgument(error.message, reason=error.reason, metadata=error.metadata) from error


def _messages(entries: TreeEntries) -> Iterator[trees_pb2.PutTreeRequest]:
    message = trees_pb2.PutTreeRequest()
    add = message.batch.entries.add
    message_bytes = 0
    for entry in entries:
        message_bytes += _ENTRY_OVERHEAD_BYTES + len(entry.path.encode())
        if isinstance(entry, FileEntry):
            file = trees_pb2.TreeFile(
                blob_digest=entry.digest, size_bytes=entry.size_bytes, executable=entry.executable
            )
            add(path=entry.path, file=file)
        else:
            message_bytes += len(entry.uri) + len(entry.checksum)
            reference = trees_pb2.TreeReference(uri=entry.uri, checksum=entry.checksum, size_bytes=entry.size_bytes)
            add(path=entry.path, reference=reference)
        if message_bytes >= _MESSAGE_BYTES:
            yield message
            message = trees_pb2.PutTreeRequest()
            add = message.batch.entries.add
            message_bytes = 0
    if message_bytes:
        yield message
