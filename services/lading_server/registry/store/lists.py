"""What is listed besides versions that are searched for: projects, collections, a collection's versions, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.registry.store.conditions import Condition, Field, Operator
from lading_server.registry.store.rows import EventFilter, EventRow, ProjectRow
from lading_server.registry.store.scan import Columns, Hit, Hits, Position, Scan, Stage, exists
from lading_server.registry.store.schema import (
    CollectionState,
    ProjectState,
    VersionState,
    collection_tags,
    collections,
    events,
    has_state,
    is_there,
    projects,
    revisions,
    runs,
    versions,
)
from lading_server.registry.store.terms import COLLECTION_TERMS, collection_terms, compare
from lading_server.registry.store.versions import collection_not_found

_AMOUNTS = {Field.CREATED: "created_at_ms", Field.CREATOR: "created_by"}

_tag = collection_tags.alias("its_tag")


class ListQueries:
    """Lists what an entity has. Safe for many tasks at once; each call uses the connection that it is given."""

    async def projects(
        self, connection: AsyncConnection, entity_id: int, after: Position | None, limit: int
    ) -> list[ProjectRow]:
        """Return up to `limit` projects, sorted by name, after the one of a name."""
        query = sa.select(projects.c.name, projects.c.created_at_ms).where(
            projects.c.entity_id == entity_id, has_state(projects, ProjectState.LIVE)
        )
        if after:
            query = query.where(projects.c.name > after[0])
        rows = await connection.execute(query.order_by(projects.c.name).limit(limit))
        return [ProjectRow(*row) for row in rows]

    async def versions(
        self,
        connection: AsyncConnection,
        collection_id: int,
        after: Position | None,
        limit: int,
        state: VersionState = VersionState.LIVE,
    ) -> Hits:
        """Return versions of a collection that are in a state, the newest first, after the one of a number."""
        query: sa.Select[Any] = sa.select(versions.c.id, versions.c.number).where(
            versions.c.collection_id == collection_id, has_state(versions, state)
        )
        if after:
            query = query.where(versions.c.number < after[0])
        rows = await connection.execute(query.order_by(versions.c.number.desc()).limit(limit + 1))
        return _hits(rows.all(), limit)

    async def collection_id(
        self,
        connection: AsyncConnection,
        entity_id: int | None,
        project: str,
        collection: str,
        *,
        is_deleted: bool = False,
    ) -> int:
        """Return the number of a collection's row. Raises CollectionNotFound.

        Args:
            is_deleted: Find it although it was deleted.
        """
        query = (
            sa.select(collections.c.id)
            .join(projects, projects.c.id == collections.c.project_id)
            .where(projects.c.entity_id == entity_id, projects.c.name == project, collections.c.name == collection)
        )
        number: int | None = await connection.scalar(query if is_deleted else query.where(is_there(collections)))
        if number is None:
            raise collection_not_found(project, collection)
        return number

    async def collections(
        self,
        connection: AsyncConnection,
        entity_id: int,
        project: str,
        conditions: Sequence[Condition],
        after: Position | None,
        limit: int,
        *,
        is_deleted: bool = False,
    ) -> Hits:
        """Return collections for which all conditions hold, sorted by project and name.

        Args:
            project: The only project; empty for all.
            is_deleted: Return those that can be undeleted, instead of those that are there.
        """
        if project:
            conditions = [*conditions, Condition(Field.PROJECT, Operator.EQUAL, project)]

        def filters(columns: Columns) -> list[sa.ColumnElement[bool]]:
            return _filters(entity_id, conditions, columns)

        bounds = [projects.c.entity_id == entity_id, *([projects.c.name == project] if project else [])]
        rows = _collections().where(_can_be_undeleted() if is_deleted else is_there(collections))
        stage = Stage(rows, bounds, filters, (projects.c.name, collections.c.name), 1, descending=False)
        return await Scan([stage], _sources(entity_id, conditions)).page(connection, after, limit)

    async def runs(
        self, connection: AsyncConnection, entity_id: int, project: str, after: Position | None, limit: int
    ) -> Hits:
        """Return runs, the newest first, after the one of a number.

        Args:
            project: The only project; empty for all.
        """
        query: sa.Select[Any] = sa.select(runs.c.id, runs.c.id)
        if project:
            named = sa.select(projects.c.id).where(projects.c.entity_id == entity_id, projects.c.name == project)
            query = query.where(runs.c.project_id == named.scalar_subquery())
        else:
            query = query.where(runs.c.entity_id == entity_id)
        if after:
            query = query.where(runs.c.id < after[0])
        rows = await connection.execute(query.order_by(runs.c.id.desc()).limit(limit + 1))
        return _hits(rows.all(), limit)

    async def current_revision(self, connection: AsyncConnection) -> int:
        """Return the revision of the last change of the server."""
        return int((await connection.execute(sa.select(revisions.c.revision).where(revisions.c.id == 1))).scalar_one())

    async def events(
        self, connection: AsyncConnection, entity_id: int, wanted: EventFilter, after: Position | None, limit: int
    ) -> Hits:
        """Return the revisions of events, in their order or against it."""
        revision = events.c.revision
        query: sa.Select[Any] = sa.select(revision, revision).where(
            events.c.entity_id == entity_id, revision > wanted.after_revision, revision <= wanted.up_to_revision
        )
        if wanted.project:
            query = query.where(events.c.project == wanted.project)
        if wanted.collection:
            query = query.where(events.c.collection == wanted.collection)
        if wanted.version_uid is not None:
            query = query.where(events.c.version_uid == wanted.version_uid)
        if after:
            query = query.where(revision < after[0] if wanted.newest_first else revision > after[0])
        order = revision.desc() if wanted.newest_first else revision.asc()
        return _hits((await connection.execute(query.order_by(order).limit(limit + 1))).all(), limit)

    async def events_by_revision(self, connection: AsyncConnection, numbers: Sequence[int]) -> Mapping[int, EventRow]:
        """Return events, by their revisions."""
        query: sa.Select[Any] = sa.select(*(events.c[name] for name in EventRow._fields)).where(
            events.c.revision.in_(numbers)
        )
        return {row.revision: EventRow(**row._asdict()) for row in await connection.execute(query)}


def _hits(rows: Sequence[Sequence[Any]], limit: int) -> Hits:
    hits = [Hit(row[0], (row[1],)) for row in rows[:limit]]
    return Hits(hits, hits[-1].position if len(rows) > limit else None)


def _can_be_undeleted() -> sa.ColumnElement[bool]:
    is_gone = has_state(collections, CollectionState.DELETING, CollectionState.DELETED)
    return sa.and_(is_gone, collections.c.deletion.is_not(None))


def _collections() -> sa.Select[Any]:
    return sa.select(
        collections.c.id,
        collections.c.project_id,
        collections.c.name,
        collections.c.type,
        collections.c.kind,
        collections.c.created_at_ms,
        collections.c.created_by,
    ).select_from(projects.join(collections, collections.c.project_id == projects.c.id))


def _filters(entity_id: int, conditions: Sequence[Condition], columns: Columns) -> list[sa.ColumnElement[bool]]:
    terms = collection_terms(entity_id, conditions, columns)
    for one in conditions:
        if one.field is Field.TAG:
            has_tag = exists(_tag, _tag.c.collection_id == columns["id"], _tag.c.tag == one.value)
            terms.append(has_tag if one.operator is Operator.EQUAL else ~has_tag)
        elif one.field in _AMOUNTS:
            terms.append(compare(columns[_AMOUNTS[one.field]], one))
    return terms


def _sources(entity_id: int, conditions: Sequence[Condition]) -> list[sa.Select[Any]]:
    sources: list[sa.Select[Any]] = []
    for one in conditions:
        if one.field is Field.TAG and one.operator is Operator.EQUAL:
            tagged = sa.select(_tag.c.collection_id.label("id"))
            sources.append(tagged.where(_tag.c.entity_id == entity_id, _tag.c.tag == one.value))
    about_row = [one for one in conditions if one.field in COLLECTION_TERMS or one.field in _AMOUNTS]
    if about_row:
        terms = _filters(entity_id, about_row, collections.c)
        sources.append(sa.select(collections.c.id).where(collections.c.entity_id == entity_id, *terms))
    return sources
