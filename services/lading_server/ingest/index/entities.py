"""Names of tenants and the numbers that stand for them in every row."""

from __future__ import annotations

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.ingest.index.schema import entities


class Entities:
    """Remembers every name that it has seen: an entity is never removed, nor does its number change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[str, int] = {}

    async def find(self, name: str) -> int | None:
        """Return the entity's number, or None when nothing was ever stored for it."""
        number = self._numbers.get(name)
        if number is None:
            async with self._database.read() as connection:
                number = await connection.scalar(sa.select(entities.c.id).where(entities.c.name == name))
            if number is not None:
                self._numbers[name] = number
        return number

    async def ensure(self, name: str) -> int:
        """Return the entity's number, giving it one if need be.

        In a transaction of its own, so that a number that is remembered is also committed. Not to be called within
        another write.
        """
        number = await self.find(name)
        if number is not None:
            return number
        async with self._database.write() as connection:
            await connection.execute(
                self._database.insert(entities).values(name=name).on_conflict_do_nothing(index_elements=["name"])
            )
        # A statement of its own: on PostgreSQL another replica may have won, and only a new one sees its row.
        number = await self.find(name)
        if number is None:
            raise AssertionError(f"entity {name!r} was written and is not there")
        return number

    async def names(self, after: str, limit: int) -> list[str]:
        """Return the names of up to `limit` entities, sorted by code points, of those that come after a name."""
        name: sa.ColumnElement[str] = entities.c.name
        if self._database.dialect == "postgresql":
            # Its own order is that of a language.
            name = sa.collate(name, "C")
        query = sa.select(entities.c.name).where(name > after).order_by(name).limit(limit)
        async with self._database.read() as connection:
            return list((await connection.scalars(query)).all())
