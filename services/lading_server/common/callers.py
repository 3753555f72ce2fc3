"""Who calls, and for which entity. Known before any rule is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from lading_server.common.allowances import UNLIMITED, Allowances
from lading_server.common.roles import Role


class Caller(NamedTuple):
    """The entity that a call is inside of, and the name that events and versions have for whoever made it.

    `origin` is where the call came from, the peer's address; empty for what the server does by itself. `role` is what
    the caller may do; None where that is everything: for the server itself, and where it asks for no keys.
    """

    entity: str
    principal: str
    origin: str = ""
    role: Role | None = None

    def may(self, role: Role) -> bool:
        """Tell whether the caller may do what this role may."""
        return self.role is None or self.role.includes(role)


class Principal(NamedTuple):
    """Whoever makes a call, as the key says.

    `entity` is the one that may be named, and empty for the operator, who may name none. `key_id` is no secret. Where
    there is no key, for services and where the server asks for none, it is empty, `role` is None and each entity may
    be named. `limits` are those of the entity and of the key.
    """

    name: str
    entity: str
    key_id: str
    role: Role | None
    limits: Allowances = UNLIMITED

    def may_name(self, entity: str) -> bool:
        """Tell whether a message of the caller may name this entity. One that names none is refused by its rule."""
        return not entity or self.role is None or entity == self.entity


ANYBODY = Principal("anonymous", "", "", None)
"""The caller where the server asks for no keys."""
SERVICE = Principal("service", "", "", None)
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
