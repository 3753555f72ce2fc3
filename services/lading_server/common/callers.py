"""Who calls, and for which entity. Known before any rule is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Caller(NamedTuple):
    """The entity that a call is inside of, and the name that events and versions have for whoever made it."""

    entity: str
    principal: str


class Principal(NamedTuple):
    """Whoever makes a call, as the key says.

    `entity` is the one that may be named, and empty where each may: for services, and where the server asks for no
    keys. `key_id` is empty where there is no key; it is no secret.
    """

    name: str
    entity: str
    key_id: str

    def may_name(self, entity: str) -> bool:
        """Tell whether a message of the caller may name this entity. One that names none is refused by its rule."""
        return not entity or not self.entity or entity == self.entity


ANYBODY = Principal("anonymous", "", "")
"""The caller where the server asks for no keys."""
SERVICE = Principal("service", "", "")
"""The other service."""

_principal: ContextVar[Principal] = ContextVar("principal")


def current_principal() -> Principal:
    """Return whoever makes the call that this task works on. Raises LookupError outside a call."""
    return _principal.get()


@contextmanager
def acting_for(principal: Principal) -> Iterator[None]:
    """Let the block, and the tasks that it starts, work for a caller."""
    token = _principal.set(principal)
    try:
        yield
    finally:
        _principal.reset(token)
