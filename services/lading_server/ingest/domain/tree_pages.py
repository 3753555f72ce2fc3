"""The pages that a tree is stored as: sorted entries, cut where their paths say. Pure.

Whether a page ends after an entry depends on that entry's path and on the page's size alone, so two trees that differ
in a few entries share all other pages: the same directory logged again costs what changed, and a comparison skips
what is equal.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from lading_format.digest import DIGEST_BYTES, blake3_digest, xxh3_64
from lading_format.tree import FileEntry, ReferenceEntry, TreeEntry
from lading_server.common.errors import CorruptRecord

# A page ends after one in 512 paths once it has 16 KiB: about 800 entries of 80 bytes, 64 KiB. A change costs one or
# two pages, and a million files make 1,250 rows.
_MIN_PAGE_BYTES = 16 << 10
_MAX_PAGE_BYTES = 256 << 10
_BOUNDARY = 512

_VERSION = b"\x01"
_FILE, _EXECUTABLE, _REFERENCE, _REFERENCE_UNSIZED = range(4)
_HEAD = struct.Struct("<BH")
_FILE_TAIL = struct.Struct("<32sQ")
_REFERENCE_TAIL = struct.Struct("<QHH")
_TREE_HEAD = struct.Struct("<32sQQQI")
_TREE_PAGE = struct.Struct("<32sIH")


class TreePage(NamedTuple):
    """A page ready to be stored."""

    first_path: bytes
    digest: bytes
    payload: bytes
    entry_count: int


class PageBuilder:
    """Makes pages of entries that come sorted by path."""

    def __init__(self) -> None:
        self._parts: list[bytes] = [_VERSION]
        self._size_bytes = len(_VERSION)
        self._first_path = b""

    def add(self, entry: TreeEntry) -> TreePage | None:
        """Take the next entry; return the page that it completes, if it does."""
        path = entry.path.encode()
        encoded = _encode(entry, path)
        if len(self._parts) == 1:
            self._first_path = path
        self._parts.append(encoded)
        self._size_bytes += len(encoded)
        if self._size_bytes < _MIN_PAGE_BYTES:
            return None
        if self._size_bytes >= _MAX_PAGE_BYTES or xxh3_64(path) % _BOUNDARY == 0:
            return self.finish()
        return None

    def finish(self) -> TreePage | None:
        """Return the page of what is left, if anything is."""
        if len(self._parts) == 1:
            return None
        payload = b"".join(self._parts)
        page = TreePage(self._first_path, blake3_digest(payload), payload, len(self._parts) - 1)
        self._parts, self._size_bytes = [_VERSION], len(_VERSION)
        return page


def _encode(entry: TreeEntry, path: bytes) -> bytes:
    if isinstance(entry, FileEntry):
        kind = _EXECUTABLE if entry.executable else _FILE
        return _HEAD.pack(kind, len(path)) + path + _FILE_TAIL.pack(entry.digest, entry.size_bytes)
    uri, checksum = entry.uri.encode("ascii"), entry.checksum.encode("ascii")
    kind = _REFERENCE_UNSIZED if entry.size_bytes is None else _REFERENCE
    tail = _REFERENCE_TAIL.pack(entry.size_bytes or 0, len(uri), len(checksum))
    return _HEAD.pack(kind, len(path)) + path + tail + uri + checksum


def decode_page(payload: bytes | memoryview) -> list[TreeEntry]:
    """Return a page's entries. Raises CorruptRecord when the payload is no page."""
    data = bytes(payload)
    if data[:1] != _VERSION:
        raise CorruptRecord("a tree page has a version that this server does not know; update the server")
    entries: list[TreeEntry] = []
    at = 1
    try:
        while at < len(data):
            kind, path_bytes = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            path = data[at : at + path_bytes].decode()
            at += path_bytes
            if kind in (_FILE, _EXECUTABLE):
                digest, size_bytes = _FILE_TAIL.unpack_from(data, at)
                at += _FILE_TAIL.size
                entries.append(FileEntry(path, digest, size_bytes, kind == _EXECUTABLE))
            else:
                size_bytes, uri_bytes, checksum_bytes = _REFERENCE_TAIL.unpack_from(data, at)
                at += _REFERENCE_TAIL.size
                uri = data[at : at + uri_bytes].decode("ascii")
                checksum = data[at + uri_bytes : at + uri_bytes + checksum_bytes].decode("ascii")
                at += uri_bytes + checksum_bytes
                size = None if kind == _REFERENCE_UNSIZED else size_bytes
                entries.append(ReferenceEntry(path, uri, checksum, size))
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptRecord(f"a tree page cannot be read: {error}") from error
    return entries


def page_blobs(payload: bytes | memoryview) -> list[bytes]:
    """Return the digests of a page's files, for whoever needs nothing else of it. Raises CorruptRecord."""
    data = bytes(payload)
    if data[:1] != _VERSION:
        raise CorruptRecord("a tree page has a version that this server does not know; update the server")
    digests: list[bytes] = []
    at = 1
    try:
        while at < len(data):
            kind, path_bytes = _HEAD.unpack_from(data, at)
            at += _HEAD.size + path_bytes
            if kind in (_FILE, _EXECUTABLE):
                digest, _ = _FILE_TAIL.unpack_from(data, at)
                digests.append(digest)
                at += _FILE_TAIL.size
            else:
                _, uri_bytes, checksum_bytes = _REFERENCE_TAIL.unpack_from(data, at)
                at += _REFERENCE_TAIL.size + uri_bytes + checksum_bytes
    except struct.error as error:
        raise CorruptRecord(f"a tree page cannot be read: {error}") from error
    return digests


class PageSummary(NamedTuple):
    """A stored page, as a tree lists it."""

    first_path: bytes
    digest: bytes
    entry_count: int


class TreeTotals(NamedTuple):
    """What a tree adds up to."""

    digest: bytes
    file_count: int
    reference_count: int
    size_bytes: int


def encode_tree_record(totals: TreeTotals, pages: Sequence[PageSummary]) -> bytes:
    """Return the payload of a TREE record: what rebuilding the index needs to know of a tree."""
    head = _TREE_HEAD.pack(*totals, len(pages))
    rows = (_TREE_PAGE.pack(p.digest, p.entry_count, len(p.first_path)) + p.first_path for p in pages)
    return _VERSION + head + b"".join(rows)


def tree_record_digest(payload: bytes | memoryview) -> bytes:
    """Return which tree a TREE record is of."""
    return bytes(payload[len(_VERSION) : len(_VERSION) + DIGEST_BYTES])


def decode_tree_record(payload: bytes | memoryview) -> tuple[TreeTotals, list[PageSummary]]:
    """Return what `encode_tree_record` was given. Raises CorruptRecord."""
    data = bytes(payload)
    if data[:1] != _VERSION:
        raise CorruptRecord("a tree record has a version that this server does not know; update the server")
    try:
        *totals, page_count = _TREE_HEAD.unpack_from(data, 1)
        at = 1 + _TREE_HEAD.size
        pages: list[PageSummary] = []
        for _ in range(page_count):
            digest, entry_count, path_bytes = _TREE_PAGE.unpack_from(data, at)
            at += _TREE_PAGE.size
            pages.append(PageSummary(data[at : at + path_bytes], digest, entry_count))
            at += path_bytes
    except struct.error as error:
        raise CorruptRecord(f"a tree record cannot be read: {error}") from error
    return TreeTotals(*totals), pages
