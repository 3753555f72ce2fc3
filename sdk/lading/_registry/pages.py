"""Reads the registry's listings page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from lading._listing import EndlessPages
from lading._registry.connection import Connection

if TYPE_CHECKING:
    from lading_proto.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub


class _PageRequest(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


Page = TypeVar("Page", bound=_Page)
Item = TypeVar("Item")


def items(
    connection: Connection,
    method: Callable[[RegistryServiceAsyncStub], Callable[..., Awaitable[Page]]],
    request: _PageRequest,
    items_of: Callable[[Page], Sequence[Item]],
) -> AsyncGenerator[Item, None]:
    """Yield what a listing of RegistryService has.

    Args:
        connection: Whom to ask.
        method: Picks the method, as in Connection.call.
        request: As `asked_items` takes it.
        items_of: Picks what a page has.

    Raises:
        Incompatible: The server sends pages without end.
    """

    def ask(asked: object) -> Awaitable[Page]:
        return connection.call(method, asked)

    return asked_items(ask, request, items_of)


async def asked_items(
    ask: Callable[[object], Awaitable[Page]], request: _PageRequest, items_of: Callable[[Page], Sequence[Item]]
) -> AsyncGenerator[Item, None]:
    """Yield what a listing has.

    Args:
        ask: Asks for a page.
        request: For the first page; its token is set for those that follow.
        items_of: Picks what a page has.

    Raises:
        Incompatible: The server sends pages without end.
    """
    pages = EndlessPages("The server")
    while True:
        response = await ask(request)
        found = items_of(response)
        for item in found:
            yield item
        if not pages.goes_on(response.next_page_token, len(found)):
            return
        request.page_token = response.next_page_token
