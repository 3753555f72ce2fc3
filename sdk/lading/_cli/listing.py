"""How a command prints what there are several of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from lading._cli.documents import document
from lading._cli.output import Table, print_document
from lading._cli.session import first

T = TypeVar("T")


async def print_all(
    items: AsyncGenerator[T, None],
    limit: int,
    as_json: bool,
    headings: Sequence[str],
    row: Callable[[T], tuple[str, ...]],
) -> None:
    """Print a listing while it comes: a document a line, or a table."""
    if as_json:
        async for item in first(items, limit):
            print_document(document(item))
        return
    with Table(*headings) as table:
        async for item in first(items, limit):
            table.add(*row(item))
