"""What fits into one answer: pages that are bounded by count and by bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from lading_server.registry.store.rows import CollectionRow, EventRow, RunRow, VersionRow
from lading_server.registry.store.scan import Hits, Position

Row = TypeVar("Row")

# What rows may take in an answer, so that with their framing they stay within a message of 4 MiB.
_PAGE_BYTES = 3 << 20
# A row may have a card and metadata of 256 KiB each, so few are read before it is known how large they are.
_FIRST_ROWS = 16
_MOST_ROWS = 256
_SMALL_ROW_BYTES = 4 << 10
# What a row costs besides its long texts: names, times, numbers and tags, rounded up.
_ROW_BYTES = 1024


class PageRequest(NamedTuple):
    """Which page is wanted: `page_size` and `page_token` of a request."""

    size: int
    token: str


class Page(NamedTuple, Generic[Row]):
    """What was found, and the token of the next page; empty when this is the last."""

    rows: list[Row]
    token: str


async def read_page(
    hits: Hits,
    read: Callable[[Sequence[int]], Awaitable[Mapping[int, Row]]],
    size_of: Callable[[Row], int],
) -> tuple[list[Row], Position | None]:
    """Return the rows of a page, in its order, as many as fit, and where the next page begins.

    Args:
        read: Gives rows by their numbers; one that is not there any more is left out.
        size_of: About how many bytes a row takes in an answer.
    """
    rows: list[Row] = []
    used_bytes, at, batch = 0, 0, _FIRST_ROWS
    while at < len(hits.hits):
        some = hits.hits[at : at + batch]
        found = await read([hit.row_id for hit in some])
        before_bytes = used_bytes
        for index, hit in enumerate(some, at):
            row = found.get(hit.row_id)
            if row is None:
                continue
            used_bytes += size_of(row)
            if rows and used_bytes > _PAGE_BYTES:
                return rows, hits.hits[index - 1].position
            rows.append(row)
        at += len(some)
        are_small = used_bytes - before_bytes <= len(some) * _SMALL_ROW_BYTES
        batch = min(2 * batch, _MOST_ROWS) if are_small else _FIRST_ROWS
    return rows, hits.next


def version_bytes(row: VersionRow) -> int:
    """About how many bytes a version takes in an answer."""
    names = sum(len(name) + 2 for name in (*row.tags, *row.aliases))
    return _ROW_BYTES + _utf8(row.description) + _utf8(row.metadata) + names


def collection_bytes(row: CollectionRow) -> int:
    """About how many bytes a collection takes in an answer."""
    return _ROW_BYTES + _utf8(row.description) + sum(map(len, row.tags)) + sum(len(a) + 16 for a, _ in row.aliases)


def run_bytes(row: RunRow) -> int:
    """About how many bytes a run takes in an answer."""
    return _ROW_BYTES + _utf8(row.config) + _utf8(row.summary)


def event_bytes(row: EventRow) -> int:
    """About how many bytes an event takes in an answer."""
    return _ROW_BYTES + _utf8(row.before) + _utf8(row.after)


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
