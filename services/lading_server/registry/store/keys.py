"""API keys: whose each is, and the hash of its secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.keys import ApiKey
from lading_server.common.roles import Role, lesser
from lading_server.registry.store.change import Change
from lading_server.registry.store.entity_limits import LIMIT_COLUMNS, StoredLimits
from lading_server.registry.store.rows import JsonObject
from lading_server.registry.store.schema import api_keys, entities, members, revisions


class HeldKey(NamedTuple):
    """What a key that holds is checked by: not revoked, and its member is there. `entity` is empty for the operator's.

    `role` is the lesser one of the key's and its member's.
    """

    secret_hash: bytes
    entity: str
    principal: str
    role: Role
    expires_at_ms: int | None
    limits: StoredLimits


class KeyRow(NamedTuple):
    """A key as its entity sees it. Times are milliseconds since 1970, or None."""

    key_id: str
    principal: str
    role: Role
    note: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_at_ms: int | None

    @property
    def document(self) -> JsonObject:
        """What events say of a key: neither secret nor hash."""
        return {
            "key_id": self.key_id,
            "member": self.principal,
            "role": self.role.value,
            "expires_at_ms": self.expires_at_ms,
        }


_HELD = (
    sa.select(
        api_keys.c.secret_hash,
        api_keys.c.entity_id,
        entities.c.name.label("entity"),
        api_keys.c.principal,
        api_keys.c.role,
        members.c.role.label("member_role"),
        api_keys.c.expires_at_ms,
        *LIMIT_COLUMNS,
    )
    .join_from(api_keys, entities, entities.c.id == api_keys.c.entity_id, isouter=True)
    .join(
        members,
        sa.and_(members.c.entity_id == api_keys.c.entity_id, members.c.name == api_keys.c.principal),
        isouter=True,
    )
    .where(api_keys.c.key_id == sa.bindparam("key_id"), api_keys.c.revoked_at_ms.is_(None))
)


class KeyStore:
    """Finds, makes and revokes keys. Safe for many tasks at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def held(self, key_id: str) -> HeldKey | None:
        """Return a key by which somebody may be let in; None when there never was one of this id, or it ended."""
        async with self._database.read() as connection:
            row = (await connection.execute(_HELD, {"key_id": key_id})).one_or_none()
        if row is None:
            return None
        role, limits = Role(row.role), StoredLimits(*row[-len(LIMIT_COLUMNS) :])
        if row.entity_id is None:
            return HeldKey(row.secret_hash, "", row.principal, role, row.expires_at_ms, limits)
        if row.member_role is None:
            return None
        held_role = lesser(role, Role(row.member_role))
        return HeldKey(row.secret_hash, row.entity, row.principal, held_role, row.expires_at_ms, limits)

    async def find(self, connection: AsyncConnection, entity_id: int, key_id: str) -> KeyRow | None:
        """Return a key of an entity, revoked or not; None when it has none of this id."""
        query = _keys().where(api_keys.c.entity_id == entity_id, api_keys.c.key_id == key_id)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else _row(row)

    async def page(
        self, connection: AsyncConnection, entity_id: int, principal: str, after: str | None, limit: int
    ) -> list[KeyRow]:
        """Return up to `limit` keys, sorted by id, after an id.

        Args:
            principal: Only this member's; empty for all.
        """
        query = _keys().where(api_keys.c.entity_id == entity_id)
        if principal:
            query = query.where(api_keys.c.principal == principal)
        if after is not None:
            query = query.where(api_keys.c.key_id > after)
        return [_row(row) for row in await connection.execute(query.order_by(api_keys.c.key_id).limit(limit))]

    async def of_member(self, change: Change, principal: str) -> list[KeyRow]:
        """Return a member's keys that are not revoked."""
        query = _keys().where(
            api_keys.c.entity_id == change.entity_id,
            api_keys.c.principal == principal,
            api_keys.c.revoked_at_ms.is_(None),
        )
        return [_row(row) for row in await change.connection.execute(query.order_by(api_keys.c.key_id))]

    async def add(
        self, change: Change, key: ApiKey, principal: str, role: Role, *, note: str, expires_at_ms: int | None = None
    ) -> KeyRow:
        """Add a key of the entity, with its event; return it."""
        row = KeyRow(key.key_id, principal, role, note, change.now_ms, expires_at_ms, None, None)
        await change.connection.execute(_new(row, key.secret_hash, change.entity_id))
        change.add_event("key.created", "", after=row.document)
        return row

    async def revoke(self, change: Change, row: KeyRow) -> KeyRow:
        """Revoke a key of the entity that is not, with its event; return it as it is then."""
        revoked = row._replace(revoked_at_ms=change.now_ms)
        changed = sa.update(api_keys).where(api_keys.c.key_id == row.key_id).values(revoked_at_ms=change.now_ms)
        await change.connection.execute(changed)
        change.add_event("key.revoked", "", before=row.document)
        return revoked

    async def any_of_entities(self, connection: AsyncConnection) -> bool:
        """Tell whether a key of any entity was ever made."""
        query = sa.select(api_keys.c.key_id).where(api_keys.c.entity_id.is_not(None)).limit(1)
        return await connection.scalar(query) is not None

    async def any_of_operator(self, connection: AsyncConnection) -> bool:
        """Tell whether a key of the operator was ever made."""
        query = sa.select(api_keys.c.key_id).where(api_keys.c.entity_id.is_(None)).limit(1)
        return await connection.scalar(query) is not None

    async def add_operators(self, connection: AsyncConnection, key: ApiKey, row: KeyRow) -> None:
        """Add a key of the operator, who is in no entity and so in no events."""
        await connection.execute(_new(row, key.secret_hash, None))

    async def used(self, times_ms: Mapping[str, int]) -> None:
        """Keep when keys were last used, by their ids."""
        changed = sa.update(api_keys).where(
            api_keys.c.key_id == sa.bindparam("used_key"),
            sa.func.coalesce(api_keys.c.last_used_at_ms, 0) < sa.bindparam("used_at_ms"),
        )
        rows = [{"used_key": key_id, "used_at_ms": time_ms} for key_id, time_ms in sorted(times_ms.items())]
        async with self._database.write() as connection:
            await connection.execute(changed.values(last_used_at_ms=sa.bindparam("used_at_ms")), rows)


async def take_turn(connection: AsyncConnection) -> None:
    """Wait until no other change is under way, on any server."""
    await connection.execute(sa.select(revisions.c.revision).where(revisions.c.id == 1).with_for_update())


def _new(row: KeyRow, secret_hash: bytes, entity_id: int | None) -> sa.Insert:
    values = row._asdict() | {"role": row.role.value}
    return sa.insert(api_keys).values(entity_id=entity_id, secret_hash=secret_hash, **values)


def _keys() -> sa.Select[Any]:
    return sa.select(*(api_keys.c[name] for name in KeyRow._fields))


def _row(row: sa.Row[Any]) -> KeyRow:
    return KeyRow(**{**row._asdict(), "role": Role(row.role)})
