"""Who has a role in an entity."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.roles import Role
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import JsonObject
from lading_server.registry.store.schema import MemberKind, members


class MemberRow(NamedTuple):
    """Somebody with a role. `created_at_ms` is in milliseconds since 1970."""

    name: str
    kind: MemberKind
    role: Role
    created_at_ms: int

    @property
    def document(self) -> JsonObject:
        """What events say of a member."""
        return {"member": self.name, "kind": self.kind.value, "role": self.role.value}


class MemberStore:
    """Finds and changes members. Safe for many tasks at once."""

    async def find(self, connection: AsyncConnection, entity_id: int, name: str) -> MemberRow | None:
        """Return a member, or None."""
        query = _members().where(members.c.entity_id == entity_id, members.c.name == name)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else _row(row)

    async def page(self, connection: AsyncConnection, entity_id: int, after: str | None, limit: int) -> list[MemberRow]:
        """Return up to `limit` members, sorted by name, after a name."""
        query = _members().where(members.c.entity_id == entity_id)
        if after is not None:
            query = query.where(members.c.name > after)
        rows = await connection.execute(query.order_by(members.c.name).limit(limit))
        return [_row(row) for row in rows]

    async def any(self, change: Change) -> bool:
        """Tell whether the entity has a member."""
        query = sa.select(members.c.name).where(members.c.entity_id == change.entity_id).limit(1)
        return await change.connection.scalar(query) is not None

    async def has_admin_besides(self, change: Change, name: str) -> bool:
        """Tell whether somebody else is an admin of the entity."""
        query = sa.select(members.c.name).where(
            members.c.entity_id == change.entity_id, members.c.role == Role.ADMIN.value, members.c.name != name
        )
        return await change.connection.scalar(query.limit(1)) is not None

    async def add(self, change: Change, name: str, kind: MemberKind, role: Role) -> MemberRow:
        """Add a member, with its event; return it."""
        row = MemberRow(name, kind, role, change.now_ms)
        values = {"name": name, "kind": kind.value, "role": role.value, "created_at_ms": change.now_ms}
        await change.connection.execute(sa.insert(members).values(entity_id=change.entity_id, **values))
        change.add_event("member.added", "", after=row.document)
        return row

    async def update(self, change: Change, before: MemberRow, kind: MemberKind, role: Role) -> MemberRow:
        """Give a member another kind and role, with its event; return it as it is then."""
        row = before._replace(kind=kind, role=role)
        changed = sa.update(members).where(_is(change, before.name)).values(kind=kind.value, role=role.value)
        await change.connection.execute(changed)
        change.add_event("member.added", "", before=before.document, after=row.document)
        return row

    async def remove(self, change: Change, row: MemberRow) -> None:
        """Remove a member, with its event."""
        await change.connection.execute(sa.delete(members).where(_is(change, row.name)))
        change.add_event("member.removed", "", before=row.document)


def _is(change: Change, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(members.c.entity_id == change.entity_id, members.c.name == name)


def _members() -> sa.Select[tuple[str, str, str, int]]:
    return sa.select(members.c.name, members.c.kind, members.c.role, members.c.created_at_ms)


def _row(row: sa.Row[tuple[str, str, str, int]]) -> MemberRow:
    return MemberRow(row.name, MemberKind(row.kind), Role(row.role), row.created_at_ms)
