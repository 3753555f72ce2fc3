"""How a command prints what there are several of, where it does nothing else: it ends once nobody reads."""

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
    """Print a listing while it comes: a document a line, or a table.

    Raises:
        OutputClosed: Nobody reads it any more; the rest was not asked for.
    """
    if as_json:
        async for item in first(items, limit):
            print_document(document(item), may_end=True)
        return
    with Table(*headings, may_end=True) as table:
        async for item in first(items, limit):
            table.add(*row(item))
