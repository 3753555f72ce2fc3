"""Names of tenants and of their projects, and the numbers that stand for them in every row."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.registry_errors import CollectionDeleting
from lading_server.registry.store.change import Change
from lading_server.registry.store.entity_limits import LIMIT_COLUMNS, StoredLimits
from lading_server.registry.store.schema import ProjectState, entities, projects


class EntityRow(NamedTuple):
    """What is known of a tenant as a whole."""

    name: str
    created_at_ms: int
    limits: StoredLimits


_ENTITIES: sa.Select[Any] = sa.select(entities.c.name, entities.c.created_at_ms, *LIMIT_COLUMNS)


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

    async def ensure(self, name: str, now_ms: int) -> int:
        """Return the entity's number, giving it one if need be.

        In a transaction of its own, so that a number that is remembered is also committed. Not to be called within
        another write.
        """
        number = await self.find(name)
        if number is not None:
            return number
        new = self._database.insert(entities).values(name=name, created_at_ms=now_ms)
        async with self._database.write() as connection:
            await connection.execute(new.on_conflict_do_nothing(index_elements=["name"]))
        # A statement of its own: on PostgreSQL another replica may have won, and only a new one sees its row.
        number = await self.find(name)
        if number is None:
            raise AssertionError(f"entity {name!r} was written and is not there")
        return number


async def list_entities(connection: AsyncConnection, after: str | None, limit: int) -> list[EntityRow]:
    """Return up to `limit` entities, sorted by name, after a name."""
    query = _ENTITIES if after is None else _ENTITIES.where(entities.c.name > after)
    return [_row(row) for row in await connection.execute(query.order_by(entities.c.name).limit(limit))]


async def get_entity(connection: AsyncConnection, entity_id: int) -> EntityRow:
    """Return the entity of a number that was found."""
    return _row((await connection.execute(_ENTITIES.where(entities.c.id == entity_id))).one())


def _row(row: sa.Row[Any]) -> EntityRow:
    name, created_at_ms, *limits = tuple(row)
    return EntityRow(name, created_at_ms, StoredLimits(*limits))


async def ensure_project(change: Change, name: str) -> int:
    """Return a project's number; make the project, with its event, if it is not there, or was deleted.

    Raises:
        CollectionDeleting: It is being deleted.
    """
    query = sa.select(projects.c.id, projects.c.state).where(
        projects.c.entity_id == change.entity_id, projects.c.name == name
    )
    row = (await change.connection.execute(query)).one_or_none()
    if row is not None:
        if row.state in (ProjectState.DELETING, ProjectState.PURGING):
            raise CollectionDeleting(f"project {name} is being deleted; try again in a while", project=name)
        number = int(row.id)
        if row.state == ProjectState.DELETED:
            again = sa.update(projects).where(projects.c.id == number)
            await change.connection.execute(again.values(state=ProjectState.LIVE.value, deleted_by=None))
            change.add_event("project.created", name, after={"name": name})
    else:
        new = sa.insert(projects).values(entity_id=change.entity_id, name=name, created_at_ms=change.now_ms)
        number = int((await change.connection.execute(new.returning(projects.c.id))).scalar_one())
        change.add_event("project.created", name, after={"name": name})
    return number
