"""What changes collections: rows and events. How one is read is in `collections`."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from lading_server.common.registry_errors import CollectionDeleting, TypeMismatch
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_states import has_deleted_versions
from lading_server.registry.store.entities import ensure_project
from lading_server.registry.store.rows import CollectionHead, CollectionKey, CollectionRow
from lading_server.registry.store.schema import CollectionKind, CollectionState, collection_tags, collections


async def create_collection(
    change: Change,
    project: str,
    name: str,
    kind: CollectionKind,
    type_: str,
    description: str = "",
    tags: Sequence[str] = (),
) -> CollectionHead:
    """Make a collection that is not there, and its project if need be.

    One that was deleted is made anew in its row: its numbers go on.

    Raises:
        CollectionDeleting: It, or its project, is being deleted.
        TypeMismatch: Versions of another type can still be undeleted.
    """
    project_id = await ensure_project(change, project)
    query = sa.select(collections.c.id, collections.c.state, collections.c.type).where(
        collections.c.project_id == project_id, collections.c.name == name
    )
    row = (await change.connection.execute(query)).one_or_none()
    stamps = {"created_at_ms": change.now_ms, "updated_at_ms": change.now_ms, "created_by": change.caller.principal}
    if row is None:
        new = sa.insert(collections).values(
            entity_id=change.entity_id,
            project_id=project_id,
            name=name,
            kind=kind.value,
            type=type_,
            description=description,
            next_number=0,
            version_count=0,
            **stamps,
        )
        number = (await change.connection.execute(new.returning(collections.c.id))).scalar_one()
    else:
        number = row.id
        if row.state != CollectionState.DELETED:
            raise collection_deleting(project, name)
        if row.type != type_ and await has_deleted_versions(change, number):
            raise _other_type(project, name, row.type, type_)
        again = sa.update(collections).where(collections.c.id == number)
        values = {"state": CollectionState.LIVE.value, "type": type_, "description": description, **stamps}
        await change.connection.execute(again.values(values))
        await change.connection.execute(sa.delete(collection_tags).where(collection_tags.c.collection_id == number))
        change.stamped(number)
    key = CollectionKey(number, project, name)
    await _add_tags(change, key, tags)
    after = {"kind": kind.value, "type": type_, "description": description, "tags": list(tags)}
    change.add_event("collection.created", project, collection=name, after=after)
    return CollectionHead(key, kind, type_)


def collection_deleting(project: str, name: str) -> CollectionDeleting:
    """Return the error for a collection that is on its way to being deleted."""
    return CollectionDeleting(
        f"{project}/{name} is being deleted; try again when that is done, or undelete it",
        project=project,
        collection=name,
    )


def _other_type(project: str, name: str, expected: str, actual: str) -> TypeMismatch:
    return TypeMismatch(
        f"{project}/{name} was deleted and held versions of type {expected!r}, which can be undeleted; choose another "
        f"name than for {actual!r}, or purge it first",
        expected=expected,
        actual=actual,
    )


async def update_collection(change: Change, row: CollectionRow, description: str, tags: Sequence[str]) -> None:
    """Give a collection another card and other tags. Makes no event where they are the same."""
    before: dict[str, object] = {}
    after: dict[str, object] = {}
    if description != row.description:
        before["description"], after["description"] = row.description, description
    if tuple(tags) != row.tags:
        before["tags"], after["tags"] = list(row.tags), list(tags)
        await change.connection.execute(sa.delete(collection_tags).where(collection_tags.c.collection_id == row.id))
        await _add_tags(change, row.key, tags)
    if after:
        mine = sa.update(collections).where(collections.c.id == row.id)
        await change.connection.execute(mine.values(description=description, updated_at_ms=change.now_ms))
        change.add_event("collection.updated", row.project, collection=row.name, before=before, after=after)


async def _add_tags(change: Change, key: CollectionKey, tags: Sequence[str]) -> None:
    if tags:
        rows = [{"collection_id": key.id, "tag": tag, "entity_id": change.entity_id} for tag in tags]
        await change.connection.execute(sa.insert(collection_tags), rows)
