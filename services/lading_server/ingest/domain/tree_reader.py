"""ListTree, DiffTrees, and one path of a tree: reads the pages that the answer needs and no others."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from collections.abc import AsyncIterator
from enum import Enum
from typing import NamedTuple

from lading_format.digest import format_digest, xxh3_64
from lading_format.tree import FileEntry, TreeEntry, sort_key
from lading_server.common.errors import CorruptRecord, InvalidPageToken, PathNotFound
from lading_server.ingest.domain.records import RecordReader
from lading_server.ingest.domain.tree_pages import TreeTotals, decode_page, page_blobs
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import TreePageRow
from lading_server.ingest.index.store import ContentIndex

# Page rows fetched at once. A page has about 800 entries, so most listings need one query.
_ROWS = 64
# What an entry costs in an answer besides its path and URI: digests, tags and sizes, rounded up.
_ENTRY_BYTES = 128


class Directory(NamedTuple):
    """A directory of a folded listing. Its path ends with a slash."""

    path: str


class ChangeKind(Enum):
    """How a path differs between two trees."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Change(NamedTuple):
    """One path that differs."""

    path: str
    kind: ChangeKind
    before: TreeEntry | None
    after: TreeEntry | None


class PageCursor:
    """Walks a tree's entries from a path on, a page at a time, and can skip a whole page unread."""

    def __init__(self, reader: TreeReader, entity: str, digest: bytes, start: bytes) -> None:
        self._reader = reader
        self._entity = entity
        self._digest = digest
        self._start = start
        self._rows: list[TreePageRow] = []
        self._next_row = 0
        self._more_rows = True
        self._entries: list[TreeEntry] | None = None
        self._at = 0

    async def page_digest(self) -> bytes | None:
        """Return the digest of the page that begins exactly here, or None within a page and at the end."""
        if self._entries is not None and self._at >= len(self._entries):
            # All of a page was taken: here the next one begins.
            await self.skip_page()
        row = await self._row()
        if row is None or self._at or row.first_path < self._start:
            return None
        return row.page_digest

    async def skip_page(self) -> None:
        """Go to the beginning of the next page."""
        self._next_row += 1
        self._entries, self._at = None, 0

    async def peek(self) -> TreeEntry | None:
        """Return the entry here, or None at the end."""
        while True:
            row = await self._row()
            if row is None:
                return None
            if self._entries is None:
                self._entries = await self._reader.load(self._entity, row.page_digest)
                self._at = bisect_left(self._entries, self._start, key=lambda entry: sort_key(entry.path))
            if self._at < len(self._entries):
                return self._entries[self._at]
            await self.skip_page()

    def advance(self) -> None:
        """Go past the entry that `peek` returned."""
        self._at += 1

    def seek(self, start: bytes) -> None:
        """Go forward to the first entry at or after `start`."""
        self._start = start
        if self._entries is not None:
            self._at = bisect_left(self._entries, start, key=lambda entry: sort_key(entry.path))
            if self._at < len(self._entries):
                return
        # The rows at hand may end long before `start`: ask for the page that has it.
        self._rows, self._next_row, self._more_rows = [], 0, True
        self._entries, self._at = None, 0

    async def _row(self) -> TreePageRow | None:
        if self._next_row >= len(self._rows):
            if not self._more_rows:
                return None
            await self._fetch()
        return self._rows[self._next_row] if self._next_row < len(self._rows) else None

    async def _fetch(self) -> None:
        if self._rows:
            # Continue after the last row: its successor's first path is greater than its own.
            rows = await self._reader.rows(self._entity, self._digest, self._rows[-1].first_path, _ROWS + 1)
            rows = rows[1:]
        else:
            rows = await self._reader.rows(self._entity, self._digest, self._start, _ROWS)
        self._rows, self._next_row = rows, 0
        self._more_rows = len(rows) == _ROWS


class TreeReader:
    """Answers questions about stored trees."""

    def __init__(self, index: ContentIndex, records: RecordReader, workers: Workers) -> None:
        self._index = index
        self._records = records
        self._workers = workers

    async def totals(self, entity: str, digest: bytes) -> TreeTotals:
        """Return a tree's totals. Raises TreeNotFound."""
        row = await self._index.trees.readable(entity, digest)
        return TreeTotals(digest, row.file_count, row.reference_count, row.size_bytes)

    async def rows(self, entity: str, digest: bytes, from_path: bytes, limit: int) -> list[TreePageRow]:
        """Return page rows, from the one that has `from_path` on."""
        return await self._index.trees.pages(entity, digest, from_path or None, limit)

    async def load(self, entity: str, page_digest: bytes) -> list[TreeEntry]:
        """Read one page. Raises CorruptRecord."""
        return await self._workers.run(decode_page, await self.payload(entity, page_digest))

    async def payload(self, entity: str, page_digest: bytes) -> memoryview:
        """Return one page as it is stored. Raises CorruptRecord."""
        places = await self._records.locate(entity, [page_digest])
        (payload,) = (await self._records.read(entity, [page_digest], places)).all_or_raise([page_digest])
        return payload

    async def is_whole(self, entity: str, digest: bytes) -> bool:
        """Tell whether nothing of a tree is known to be lost, neither a page nor a part of a file.

        Where nothing of the entity is lost, that is two questions to the index; else the pages are read, up to the
        first file that is damaged.
        """
        if not await self._index.trees.has_every_page(entity, digest):
            return False
        if not await self._index.trees.may_miss_blobs(entity):
            return True
        try:
            async for page in self.page_digests(entity, digest):
                wanted = set(await self._workers.run(page_blobs, await self.payload(entity, page)))
                if len(await self._index.blobs.stat(entity, list(wanted))) < len(wanted):
                    return False
        except CorruptRecord:
            return False
        return True

    async def page_digests(self, entity: str, digest: bytes) -> AsyncIterator[bytes]:
        """Yield the digests of a tree's pages in order. Raises TreeNotFound."""
        rows = await self._index.trees.pages(entity, digest, None, _ROWS)
        while rows:
            for row in rows:
                yield row.page_digest
            if len(rows) < _ROWS:
                return
            # It gives the page again that has this path.
            rows = (await self._index.trees.pages(entity, digest, rows[-1].first_path, _ROWS + 1))[1:]

    async def find(self, entity: str, digest: bytes, path: str) -> TreeEntry:
        """Return the entry at `path`. Raises TreeNotFound, PathNotFound."""
        await self._index.trees.readable(entity, digest)
        entry = await PageCursor(self, entity, digest, sort_key(path)).peek()
        if entry is None or entry.path != path:
            raise PathNotFound(
                f"tree {format_digest(digest)} has no path {path!r}; ListTree shows what it has", path=path
            )
        return entry

    async def list_page(
        self,
        entity: str,
        digest: bytes,
        *,
        prefix: str,
        fold: bool,
        page_size: int,
        page_token: str,
        max_bytes: int,
    ) -> tuple[list[TreeEntry | Directory], str]:
        """Return up to `page_size` entries below `prefix`, and the token of the next page or "".

        Raises TreeNotFound, InvalidPageToken.
        """
        await self._index.trees.readable(entity, digest)
        scope = b"\0".join([b"list", digest, prefix.encode(), b"fold" if fold else b""])
        start = max(_open_token(page_token, scope), sort_key(prefix))
        cursor = PageCursor(self, entity, digest, start)
        items: list[TreeEntry | Directory] = []
        used_bytes = 0
        while (entry := await cursor.peek()) is not None and entry.path.startswith(prefix):
            slash = entry.path.find("/", len(prefix)) if fold else -1
            item = entry if slash < 0 else Directory(entry.path[: slash + 1])
            used_bytes += _size(item)
            if items and (len(items) >= page_size or used_bytes > max_bytes):
                return items, _make_token(sort_key(entry.path), scope)
            items.append(item)
            if isinstance(item, Directory):
                # '0' is the byte after '/': nothing below the directory comes at or after it.
                cursor.seek(sort_key(item.path[:-1]) + b"0")
            else:
                cursor.advance()
        return items, ""

    async def diff_page(
        self, entity: str, base: bytes, target: bytes, *, page_size: int, page_token: str, max_bytes: int
    ) -> tuple[list[Change], str]:
        """Return up to `page_size` differences, and the token of the next page or "".

        Raises TreeNotFound, InvalidPageToken.
        """
        for digest in (base, target):
            await self._index.trees.readable(entity, digest)
        scope = b"\0".join([b"diff", base, target])
        start = _open_token(page_token, scope)
        changes: list[Change] = []
        used_bytes = 0
        cursors = PageCursor(self, entity, base, start), PageCursor(self, entity, target, start)
        async for change in _differences(*cursors):
            used_bytes += sum(_size(entry) for entry in (change.before, change.after) if entry is not None)
            if changes and (len(changes) >= page_size or used_bytes > max_bytes):
                return changes, _make_token(sort_key(change.path), scope)
            changes.append(change)
        return changes, ""


async def _differences(before: PageCursor, after: PageCursor) -> AsyncIterator[Change]:
    while True:
        page = await before.page_digest()
        if page is not None and page == await after.page_digest():
            await before.skip_page()
            await after.skip_page()
            continue
        old, new = await before.peek(), await after.peek()
        if old is None and new is None:
            return
        if new is None or (old is not None and sort_key(old.path) < sort_key(new.path)):
            assert old is not None  # noqa: S101 - for the type checker: both None returned above
            yield Change(old.path, ChangeKind.REMOVED, old, None)
            before.advance()
        elif old is None or sort_key(new.path) < sort_key(old.path):
            yield Change(new.path, ChangeKind.ADDED, None, new)
            after.advance()
        else:
            if old != new:
                yield Change(old.path, ChangeKind.CHANGED, old, new)
            before.advance()
            after.advance()


def _size(item: TreeEntry | Directory) -> int:
    """About how many bytes an entry takes in an answer."""
    if isinstance(item, Directory | FileEntry):
        return 4 * len(item.path) + _ENTRY_BYTES
    return 4 * len(item.path) + len(item.uri) + len(item.checksum) + _ENTRY_BYTES


def _make_token(start: bytes, scope: bytes) -> str:
    """Where the next page begins, sealed against use with another request. No secret: it only says where to look."""
    check = xxh3_64(scope + b"\0" + start).to_bytes(8, "little")
    return base64.urlsafe_b64encode(check + start).decode()


def _open_token(token: str, scope: bytes) -> bytes:
    if not token:
        return b""
    try:
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        data = b""
    start = data[8:]
    if len(data) < 9 or xxh3_64(scope + b"\0" + start).to_bytes(8, "little") != data[:8]:
        raise InvalidPageToken("page_token is not one that this request gave; begin again without it")
    return start
