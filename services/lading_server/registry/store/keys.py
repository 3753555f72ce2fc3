"""API keys: whose each is, and the hash of its secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.registry.store.entities import Entities
from lading_server.registry.store.schema import api_keys, entities, revisions


class KeyRow(NamedTuple):
    """A key that was made. Times are milliseconds since 1970, or None."""

    key_id: str
    secret_hash: bytes
    entity: str
    principal: str
    expires_at_ms: int | None
    revoked_at_ms: int | None


class KeyStore:
    """Finds keys and makes the first one."""

    def __init__(self, database: Database, entities_: Entities) -> None:
        self._database = database
        self._entities = entities_

    async def find(self, key_id: str) -> KeyRow | None:
        """Return a key, whether it still holds or not; None when there never was one of this id."""
        query = (
            sa.select(
                api_keys.c.key_id,
                api_keys.c.secret_hash,
                entities.c.name,
                api_keys.c.principal,
                api_keys.c.expires_at_ms,
                api_keys.c.revoked_at_ms,
            )
            .join_from(api_keys, entities, entities.c.id == api_keys.c.entity_id)
            .where(api_keys.c.key_id == key_id)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else KeyRow(*row)

    async def any(self) -> bool:
        """Tell whether a key was ever made."""
        async with self._database.read() as connection:
            return await connection.scalar(sa.select(api_keys.c.key_id).limit(1)) is not None

    @asynccontextmanager
    async def first(
        self, entity: str, principal: str, role: str, key_id: str, secret_hash: bytes, now_ms: int
    ) -> AsyncIterator[bool]:
        """Add a key if there is none at all: true in the block then, and the key counts when the block has ended.

        Servers that start together on one database wait for each other, and only one of them makes it.
        """
        entity_id = await self._entities.ensure(entity, now_ms)
        async with self._database.write() as connection:
            await connection.execute(sa.select(revisions.c.revision).where(revisions.c.id == 1).with_for_update())
            is_first = await connection.scalar(sa.select(api_keys.c.key_id).limit(1)) is None
            if is_first:
                new = sa.insert(api_keys).values(
                    key_id=key_id,
                    secret_hash=secret_hash,
                    entity_id=entity_id,
                    principal=principal,
                    role=role,
                    created_at_ms=now_ms,
                )
                await connection.execute(new)
            yield is_first
