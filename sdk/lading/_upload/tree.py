"""Puts a tree whose blobs are committed. Knows entries, not how they came there."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from lading._errors import format_errors
from lading._model import TreeInfo
from lading._transport import Stream, Transport
from lading_format.digest import format_digest
from lading_format.tree import FileEntry, ReferenceEntry, TreeHasher
from lading_proto.ingest.v1 import trees_pb2

# Read more than once, each time in the order of the paths.
TreeEntries = Collection[FileEntry | ReferenceEntry]

# Some 600 entries: the server works on one message while the next is laid out.
_MESSAGE_BYTES = 64 << 10
_ENTRY_OVERHEAD_BYTES = 80


async def put_tree(transport: Transport, entity: str, session_id: str, entries: TreeEntries) -> tuple[TreeInfo, bool]:
    """Put a tree; return it and whether the entity already had it.

    Args:
        entries: Sorted by path.

    Raises:
        InvalidArgument: The entries cannot be one tree.
        MissingContent: A blob is not committed any more.
    """
    layout = _Layout(entries)
    stream: Stream[trees_pb2.PutTreeRequest, trees_pb2.PutTreeResponse] = transport.stream(transport.control.PutTree())
    try:
        start = trees_pb2.PutTreeStart(entity=entity, session_id=session_id)
        going = await stream.try_write(trees_pb2.PutTreeRequest(start=start))
        # In a thread: a million entries take seconds.
        while going and (message := await asyncio.to_thread(layout.next_message)) is not None:
            going = await stream.try_write(message)
        finish = trees_pb2.PutTreeFinish(expected_digest=layout.digest() if going else "")
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
    with format_errors():
        for entry in entries:
            hasher.add(entry)
        return format_digest(hasher.finish())


class _Layout:
    """Lays entries out into messages, and hashes what it laid out: each entry is made once."""

    def __init__(self, entries: TreeEntries) -> None:
        self._entries = iter(entries)
        self._hasher = TreeHasher()

    def next_message(self) -> trees_pb2.PutTreeRequest | None:
        """Return the next message, or None after the last. Raises InvalidArgument."""
        message = trees_pb2.PutTreeRequest()
        message_bytes = 0
        with format_errors():
            for entry in self._entries:
                self._hasher.add(entry)
                message_bytes += _ENTRY_OVERHEAD_BYTES + _add(message.batch, entry)
                if message_bytes >= _MESSAGE_BYTES:
                    break
        return message if message_bytes else None

    def digest(self) -> str:
        """Return the tree's digest, after the last message."""
        return format_digest(self._hasher.finish())


def _add(batch: trees_pb2.TreeEntryBatch, entry: FileEntry | ReferenceEntry) -> int:
    """Add an entry; return how many bytes of text it has."""
    if isinstance(entry, FileEntry):
        file = batch.entries.add(path=entry.path).file
        file.blob_digest = entry.digest
        file.size_bytes = entry.size_bytes
        file.executable = entry.executable
        return len(entry.path.encode())
    reference = trees_pb2.TreeReference(uri=entry.uri, checksum=entry.checksum, size_bytes=entry.size_bytes)
    batch.entries.add(path=entry.path, reference=reference)
    return len(entry.path.encode()) + len(entry.uri) + len(entry.checksum)
