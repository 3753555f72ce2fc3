"""How the entries of a tree are laid into PutTree messages."""

from __future__ import annotations

import pytest

import lading
from lading._upload.tree import _Layout, tree_digest
from lading_format.tree import FileEntry, ReferenceEntry
from lading_proto.ingest.v1 import trees_pb2

ENTRIES: list[FileEntry | ReferenceEntry] = [
    *(FileEntry(f"a/{number:05}", number.to_bytes(32, "big"), number, number % 3 == 0) for number in range(3_000)),
    FileEntry("b", bytes(32), 0, executable=False),
    ReferenceEntry("c/known", "s3://bucket/known", "etag", 7),
    ReferenceEntry("c/unknown", "s3://bucket/unknown", "", None),
]


def _read(entry: trees_pb2.TreeEntry) -> FileEntry | ReferenceEntry:
    if entry.HasField("file"):
        return FileEntry(entry.path, entry.file.blob_digest, entry.file.size_bytes, entry.file.executable)
    reference = entry.reference
    size_bytes = reference.size_bytes if reference.HasField("size_bytes") else None
    return ReferenceEntry(entry.path, reference.uri, reference.checksum, size_bytes)


def test_all_entries_come_in_order_in_small_messages_and_the_digest_is_theirs() -> None:
    layout = _Layout(ENTRIES)
    messages: list[trees_pb2.PutTreeRequest] = []
    while (message := layout.next_message()) is not None:
        # As it travels: an entry whose fields are all zero is there all the same.
        messages.append(trees_pb2.PutTreeRequest.FromString(message.SerializeToString()))
    assert [_read(entry) for message in messages for entry in message.batch.entries] == ENTRIES
    assert max(message.ByteSize() for message in messages) <= 64 << 10
    assert len(messages) > 3
    assert layout.digest() == tree_digest(ENTRIES)


def test_no_entries_make_no_message() -> None:
    layout = _Layout([])
    assert layout.next_message() is None
    assert layout.digest() == tree_digest([])


def test_what_cannot_be_a_tree_is_told_when_it_is_met() -> None:
    layout = _Layout([FileEntry("a", bytes(32), 1, executable=False), FileEntry("A", bytes(32), 1, executable=False)])
    with pytest.raises(lading.InvalidArgument):
        layout.next_message()
