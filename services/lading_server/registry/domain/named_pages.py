"""Lists that are sorted by a name, and short enough to be bounded by their count alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from lading_server.common.page_tokens import check_position, make_token, open_token, page_limit
from lading_server.registry.domain.pages import Page, PageRequest

Row = TypeVar("Row")

_PAGE_SIZE = 100


class NamedPage(NamedTuple):
    """Where a page begins: after which name, or None for the first; and how many rows it has at most."""

    scope: Sequence[object]
    after: str | None
    limit: int

    def of(self, rows: list[Row], name_of: Callable[[Row], str]) -> Page[Row]:
        """Return the page, of one row more than it may have if there are so many."""
        shown = rows[: self.limit]
        token = make_token(self.scope, (name_of(shown[-1]),)) if len(rows) > self.limit else ""
        return Page(shown, token)


def open_page(page: PageRequest, scope: Sequence[object], most: int) -> NamedPage:
    """Return which page is wanted. Raises InvalidPageSize, InvalidPageToken.

    Args:
        scope: Everything that the listing was asked for, its entity first.
        most: How many rows a page may have.
    """
    limit = page_limit(page.size, _PAGE_SIZE, most)
    position = open_token(page.token, scope)
    if position is None:
        return NamedPage(scope, None, limit)
    check_position(position, (str,))
    return NamedPage(scope, position[0], limit)
