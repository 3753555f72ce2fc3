"""Collections and projects that go and come back: their states, and what of them is still to be done."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import CollectionRow, JsonObject
from lading_server.registry.store.schema import (
    CollectionState,
    ProjectState,
    VersionState,
    aliases,
    collections,
    entities,
    has_state,
    is_there,
    projects,
    versions,
)

_link = versions.alias("link")
_portfolio = collections.alias("portfolio")
_portfolio_project = projects.alias("portfolio_project")


class Unfinished(NamedTuple):
    """A collection or a project that is on its way: its row, whose it is, and in whose name it is gone on with."""

    id: int
    entity: str
    principal: str


class DueCollection(NamedTuple):
    """A collection that can be undeleted no more, and whose entity it is."""

    id: int
    entity: str


async def set_state(change: Change, row: CollectionRow, state: CollectionState) -> None:
    """Have a collection go on to another state of the same deletion."""
    await _update(change, row.id, state=state.value)


async def begin_deletion(change: Change, row: CollectionRow, state: CollectionState) -> None:
    """Hide a collection, whose versions are to be deleted; `state` is DELETING or PURGING."""
    # What was on its way back goes with what is there again; what is gone is only purged.
    goes_on = row.state is not CollectionState.LIVE and row.deletion is not None
    await _update(
        change,
        row.id,
        state=state.value,
        deleted_at_ms=change.now_ms,
        deleted_by=change.caller.principal,
        deletion=row.deletion if goes_on else change.next_revision,
    )
    if row.state in (CollectionState.LIVE, CollectionState.UNDELETING):
        change.add_event("collection.deleted", row.project, collection=row.name, before=_told(row))


async def begin_undeletion(change: Change, row: CollectionRow) -> None:
    """Have a collection back, whose versions are to follow. One that was made anew meanwhile makes no event."""
    await _update(change, row.id, state=CollectionState.UNDELETING.value, deleted_by=change.caller.principal)
    if row.state not in (CollectionState.LIVE, CollectionState.UNDELETING):
        change.add_event("collection.undeleted", row.project, collection=row.name, after=_told(row))


async def end_undeletion(change: Change, collection_id: int) -> None:
    """Keep that all versions are back that can be."""
    values = {"deleted_at_ms": None, "deleted_by": None, "deletion": None}
    await _update(change, collection_id, state=CollectionState.LIVE.value, **values)


async def show_collection(change: Change, row: CollectionRow) -> None:
    """Have a collection back without the versions that went with it; they can still follow."""
    await _update(change, row.id, state=CollectionState.LIVE.value)
    change.add_event("collection.undeleted", row.project, collection=row.name, after=_told(row))


async def forget_deletion(change: Change, row: CollectionRow) -> None:
    """Keep that a deletion can be taken back no more. Makes no event where the collection was made anew."""
    await _update(change, row.id, deleted_at_ms=None, deleted_by=None, deletion=None)
    if row.state is CollectionState.DELETED:
        change.add_event("collection.purged", row.project, collection=row.name, before={"type": row.type})


async def has_deleted_versions(change: Change, collection_id: int) -> bool:
    """Tell whether any version of a collection can be undeleted."""
    query = sa.select(versions.c.id).where(
        versions.c.collection_id == collection_id, has_state(versions, VersionState.DELETED)
    )
    return await change.connection.scalar(query.limit(1)) is not None


async def aliases_into(change: Change, collection_id: int, most: int) -> list[str]:
    """Return the aliases of a collection, the first of them."""
    query = sa.select(aliases.c.alias).where(aliases.c.collection_id == collection_id).order_by(aliases.c.alias)
    return list((await change.connection.scalars(query.limit(most))).all())


async def links_into(change: Change, collection_id: int, most: int) -> list[str]:
    """Return live links to versions of a collection, the first of them, as `project/collection:vN`."""
    query = (
        sa.select(_portfolio_project.c.name, _portfolio.c.name, _link.c.number)
        .select_from(versions)
        .join(_link, _link.c.source_id == versions.c.id)
        .join(_portfolio, _portfolio.c.id == _link.c.collection_id)
        .join(_portfolio_project, _portfolio_project.c.id == _portfolio.c.project_id)
        .where(versions.c.collection_id == collection_id, has_state(_link, VersionState.LIVE), is_there(_portfolio))
        .limit(most)
    )
    rows = await change.connection.execute(query)
    return [f"{project}/{collection}:v{number}" for project, collection, number in rows]


async def version_ids(
    change: Change, collection_id: int, state: VersionState, after: int, most: int, deletion: int | None = None
) -> list[int]:
    """Return versions of a collection that are in a state, by their numbers, from the one after `after`.

    Args:
        deletion: Only those that went with it; None for all.
    """
    query = sa.select(versions.c.id).where(
        versions.c.collection_id == collection_id, versions.c.number > after, has_state(versions, state)
    )
    if deletion is not None:
        query = query.where(versions.c.deletion == deletion)
    return list((await change.connection.scalars(query.order_by(versions.c.number).limit(most))).all())


async def unfinished_collections(connection: AsyncConnection, after: int, most: int) -> list[Unfinished]:
    """Return collections that are on their way to being deleted, or to being back, by the numbers of their rows."""
    working = has_state(collections, CollectionState.DELETING, CollectionState.PURGING, CollectionState.UNDELETING)
    query = (
        sa.select(collections.c.id, entities.c.name, collections.c.deleted_by)
        .join(entities, entities.c.id == collections.c.entity_id)
        .where(working, collections.c.id > after)
        .order_by(collections.c.id)
        .limit(most)
    )
    return [Unfinished(*row) for row in await connection.execute(query)]


async def due_collections(connection: AsyncConnection, before_ms: int, most: int) -> list[DueCollection]:
    """Return collections whose deletion, of up to `before_ms`, is done and can be taken back no more."""
    query = (
        sa.select(collections.c.id, entities.c.name)
        .join(entities, entities.c.id == collections.c.entity_id)
        .where(
            collections.c.deletion.is_not(None),
            collections.c.deleted_at_ms <= before_ms,
            has_state(collections, CollectionState.DELETED, CollectionState.LIVE),
        )
        .order_by(collections.c.deleted_at_ms)
        .limit(most)
    )
    return [DueCollection(*row) for row in await connection.execute(query)]


class ProjectHead(NamedTuple):
    """What has to be known of a project before it goes."""

    id: int
    name: str
    state: ProjectState
    created_at_ms: int


async def find_project(change: Change, name: str) -> ProjectHead | None:
    """Return a project, deleted or not; None when there never was one."""
    return await _project(change, projects.c.name == name)


async def project_by_id(change: Change, number: int) -> ProjectHead | None:
    """Return a project of the change's entity by the number of its row, deleted or not."""
    return await _project(change, projects.c.id == number)


async def collections_in(change: Change, project_id: int, most: int) -> list[int]:
    """Return collections of a project that are there, at most so many."""
    query = sa.select(collections.c.id).where(collections.c.project_id == project_id, is_there(collections))
    return list((await change.connection.scalars(query.order_by(collections.c.name).limit(most))).all())


async def has_unfinished(change: Change, project_id: int) -> bool:
    """Tell whether versions of a project's collections are still to be deleted."""
    working = has_state(collections, CollectionState.DELETING, CollectionState.PURGING)
    query = sa.select(collections.c.id).where(collections.c.project_id == project_id, working)
    return await change.connection.scalar(query.limit(1)) is not None


async def begin_project_deletion(change: Change, project: ProjectHead, state: ProjectState) -> None:
    """Hide a project, whose collections are to be deleted; `state` is DELETING or PURGING."""
    await set_project_state(change, project, state, change.caller.principal)
    change.add_event("project.deleted", project.name, before={"name": project.name})


async def set_project_state(
    change: Change, project: ProjectHead, state: ProjectState, deleted_by: str | None = None
) -> None:
    """Have a project go on to another state."""
    mine = sa.update(projects).where(projects.c.id == project.id)
    await change.connection.execute(mine.values(state=state.value, deleted_by=deleted_by))


async def unfinished_projects(connection: AsyncConnection, after: int, most: int) -> list[Unfinished]:
    """Return projects whose collections are still to be told to go, by the numbers of their rows."""
    query = (
        sa.select(projects.c.id, entities.c.name, projects.c.deleted_by)
        .join(entities, entities.c.id == projects.c.entity_id)
        .where(has_state(projects, ProjectState.DELETING, ProjectState.PURGING), projects.c.id > after)
        .order_by(projects.c.id)
        .limit(most)
    )
    return [Unfinished(*row) for row in await connection.execute(query)]


async def _project(change: Change, condition: sa.ColumnElement[bool]) -> ProjectHead | None:
    query = sa.select(projects.c.id, projects.c.name, projects.c.state, projects.c.created_at_ms).where(
        projects.c.entity_id == change.entity_id, condition
    )
    row = (await change.connection.execute(query)).one_or_none()
    return None if row is None else ProjectHead(row.id, row.name, ProjectState(row.state), row.created_at_ms)


async def _update(change: Change, collection_id: int, **values: object) -> None:
    mine = sa.update(collections).where(collections.c.id == collection_id)
    await change.connection.execute(mine.values(**values, updated_at_ms=change.now_ms))
    change.stamped(collection_id)


def _told(row: CollectionRow) -> JsonObject:
    return {"kind": row.kind.value, "type": row.type, "description": row.description, "tags": list(row.tags)}
