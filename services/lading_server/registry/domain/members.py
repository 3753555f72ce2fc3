"""Members: who has a role in an entity."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lading_format.names import check_member
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import LastAdmin, MemberNotFound
from lading_server.common.roles import Role
from lading_server.common.settings import Settings
from lading_server.registry.domain.named_pages import open_page
from lading_server.registry.domain.pages import Page, PageRequest
from lading_server.registry.store.change import Change
from lading_server.registry.store.members import MemberRow
from lading_server.registry.store.schema import MemberKind
from lading_server.registry.store.store import RegistryStore

# A member takes up to 100 bytes of an answer.
_MOST_MEMBERS = 16_000

Forget = Callable[[Iterable[str]], None]
"""Told the ids of keys that give something else from now on."""


@dataclass(frozen=True, slots=True)
class Members:
    """The rules of members. Every method is inside the entity of its caller, who is an admin of it."""

    settings: Settings
    store: RegistryStore
    forget: Forget

    async def add(self, caller: Caller, name: str, kind: MemberKind, role: Role) -> MemberRow:
        """Give somebody a role, or another one. Raises InvalidName, LastAdmin."""
        check_member(name)
        async with self.store.change(caller) as change:
            before = await self.store.members.find(change.connection, change.entity_id, name)
            if before is None:
                return await self.store.members.add(change, name, kind, role)
            if (before.kind, before.role) == (kind, role):
                return before
            if role is not Role.ADMIN:
                await self._check_not_last(change, before)
            row = await self.store.members.update(change, before, kind, role)
            keys = await self.store.keys.of_member(change, name)
        self.forget(key.key_id for key in keys)
        return row

    async def remove(self, caller: Caller, name: str) -> None:
        """Take a member's role away and revoke its keys. Raises InvalidName, MemberNotFound, LastAdmin."""
        check_member(name)
        async with self.store.change(caller) as change:
            row = await self.store.members.find(change.connection, change.entity_id, name)
            if row is None:
                raise member_not_found(name)
            await self._check_not_last(change, row)
            keys = await self.store.keys.of_member(change, name)
            for key in keys:
                await self.store.keys.revoke(change, key)
            await self.store.members.remove(change, row)
        self.forget(key.key_id for key in keys)

    async def list(self, caller: Caller, page: PageRequest) -> Page[MemberRow]:
        """Return who has a role, sorted by name. Raises InvalidPageSize, InvalidPageToken."""
        opened = open_page(page, (caller.entity, "ListMembers"), min(self.settings.max_page_size, _MOST_MEMBERS))
        entity_id = await self.store.entities.find(caller.entity)
        if entity_id is None:
            return Page([], "")
        async with self.store.database.read() as connection:
            rows = await self.store.members.page(connection, entity_id, opened.after, opened.limit + 1)
        return opened.of(rows, lambda row: row.name)

    async def _check_not_last(self, change: Change, row: MemberRow) -> None:
        if row.role is Role.ADMIN and not await self.store.members.has_admin_besides(change, row.name):
            raise LastAdmin(f"{row.name} is the only admin of the entity; make somebody else an admin first")


def member_not_found(name: str) -> MemberNotFound:
    """Return the error for somebody who has no role."""
    return MemberNotFound(f"the entity has no member {name!r}; add it first", member=name)
