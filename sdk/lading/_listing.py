"""Reads listings page by page. Knows the messages of trees; trusts nothing but their form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from lading._errors import Incompatible
from lading._model import ChangeKind, EntryKind, ListedEntry, PathChange
from lading._retry import RetryPolicy
from lading._transport import Transport
from lading_proto.ingest.v1 import trees_pb2

# No server of ours sends one; a server that sends many means to keep us busy.
_EMPTY_PAGES_AT_MOST = 100


async def tree_pages(
    transport: Transport, policy: RetryPolicy, request: trees_pb2.ListTreeRequest
) -> AsyncGenerator[list[ListedEntry], None]:
    """Yield the pages of a tree's listing.

    Raises:
        Incompatible: The server sends pages without end, or entries of a kind that this SDK does not know.
    """
    pages = EndlessPages(transport.target)
    while True:
        response = await policy.call(partial(transport.call, transport.control.ListTree, request))
        yield [entry_from(entry) for entry in response.entries]
        if not pages.goes_on(response.next_page_token, len(response.entries)):
            return
        request.page_token = response.next_page_token


async def change_pages(
    transport: Transport, policy: RetryPolicy, request: trees_pb2.DiffTreesRequest
) -> AsyncGenerator[list[PathChange], None]:
    """Yield the pages of a comparison. Raises as `tree_pages` does."""
    pages = EndlessPages(transport.target)
    while True:
        response = await policy.call(partial(transport.call, transport.control.DiffTrees, request))
        yield [_change_from(change) for change in response.changes]
        if not pages.goes_on(response.next_page_token, len(response.changes)):
            return
        request.page_token = response.next_page_token


def entry_from(entry: trees_pb2.ListedEntry) -> ListedEntry:
    """Return the SDK's value for one line of a listing."""
    kind = _ENTRY_KINDS.get(entry.kind)
    if kind is None:
        raise Incompatible(f"{entry.path!r} is of kind {entry.kind}, which this SDK does not know. Use a newer one.")
    return ListedEntry(
        entry.path,
        kind,
        entry.blob_digest,
        entry.size_bytes if entry.HasField("size_bytes") else None,
        entry.executable,
        entry.uri,
        entry.checksum,
    )


def entry_message(entry: ListedEntry) -> trees_pb2.ListedEntry:
    """Return the message for one line of a listing."""
    return trees_pb2.ListedEntry(
        path=entry.path,
        kind=_KIND_NUMBERS[entry.kind],
        blob_digest=entry.digest,
        size_bytes=entry.size_bytes,
        executable=entry.executable,
        uri=entry.uri,
        checksum=entry.checksum,
    )


class EndlessPages:
    """Notices a server that sends pages without end."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._token = ""
        self._empty_count = 0

    def goes_on(self, next_token: str, entry_count: int) -> bool:
        """Return whether there is another page to ask for."""
        if not next_token:
            return False
        self._empty_count = 0 if entry_count else self._empty_count + 1
        if next_token == self._token or self._empty_count > _EMPTY_PAGES_AT_MOST:
            raise Incompatible(f"{self._target} sends pages without end.")
        self._token = next_token
        return True


def _change_from(change: trees_pb2.PathChange) -> PathChange:
    kind = _CHANGE_KINDS.get(change.kind)
    if kind is None:
        raise Incompatible(f"{change.path!r} changed in way {change.kind}, which this SDK does not know.")
    return PathChange(
        change.path,
        kind,
        entry_from(change.before) if change.HasField("before") else None,
        entry_from(change.after) if change.HasField("after") else None,
    )


_ENTRY_KINDS = {
    trees_pb2.ENTRY_KIND_FILE: EntryKind.FILE,
    trees_pb2.ENTRY_KIND_REFERENCE: EntryKind.REFERENCE,
    trees_pb2.ENTRY_KIND_DIRECTORY: EntryKind.DIRECTORY,
}
_KIND_NUMBERS = {kind: number for number, kind in _ENTRY_KINDS.items()}
_CHANGE_KINDS = {
    trees_pb2.CHANGE_KIND_ADDED: ChangeKind.ADDED,
    trees_pb2.CHANGE_KIND_REMOVED: ChangeKind.REMOVED,
    trees_pb2.CHANGE_KIND_CHANGED: ChangeKind.CHANGED,
}
