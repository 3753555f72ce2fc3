"""How a collection is read, whatever asks for it: one query for everything that is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.direct import row_of, rows_of
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import CollectionHead, CollectionKey, CollectionRow
from lading_server.registry.store.schema import (
    CollectionKind,
    CollectionState,
    VersionState,
    aliases,
    collection_tags,
    collections,
    has_state,
    is_there,
    projects,
    versions,
)
from lading_server.registry.store.versions import SEPARATOR, collection_not_found, joined

# No alias has one.
_BEFORE_NUMBER = "@"
# A page of collections has to fit into a message, whatever people do with aliases.
_MAX_ALIASES = 1000


def select_collections() -> sa.Select[Any]:
    """Return a SELECT of the columns that `collection_row` takes, of all collections; add conditions to it.

    `collections` and `projects` of the schema can be used in these.
    """
    tags = (
        sa.select(joined(collection_tags.c.tag))
        .where(collection_tags.c.collection_id == collections.c.id)
        .correlate(collections)
        .scalar_subquery()
    )
    first = (
        sa.select(aliases.c.alias, versions.c.number)
        .join(versions, versions.c.id == aliases.c.version_id)
        .where(aliases.c.collection_id == collections.c.id)
        .order_by(aliases.c.alias)
        .limit(_MAX_ALIASES)
        .correlate(collections)
        .subquery("first_aliases")
    )
    target = first.c.alias + _BEFORE_NUMBER + sa.cast(first.c.number, sa.Text)
    targets = sa.select(joined(target)).select_from(first).correlate(collections).scalar_subquery()
    return (
        sa.select(
            collections.c.id,
            collections.c.entity_id,
            projects.c.name.label("project"),
            collections.c.name,
            collections.c.kind,
            collections.c.type,
            collections.c.description,
            tags.label("tags"),
            collections.c.version_count,
            targets.label("aliases"),
            collections.c.created_at_ms,
            collections.c.updated_at_ms,
            collections.c.created_by,
            collections.c.state,
            collections.c.deleted_at_ms,
            collections.c.deletion,
        )
        .select_from(collections)
        .join(projects, projects.c.id == collections.c.project_id)
    )


def collection_row(row: sa.Row[Any]) -> CollectionRow:
    """Return one row of `select_collections`."""
    return CollectionRow(
        id=row.id,
        entity_id=row.entity_id,
        project=row.project,
        name=row.name,
        kind=CollectionKind(row.kind),
        type=row.type,
        description=row.description,
        tags=tuple(sorted(_split(row.tags))),
        version_count=row.version_count,
        aliases=tuple(sorted(_target(text) for text in _split(row.aliases))),
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        created_by=row.created_by,
        state=CollectionState(row.state),
        deleted_at_ms=row.deleted_at_ms,
        deletion=row.deletion,
    )


def _split(text: str | None) -> list[str]:
    return text.split(SEPARATOR) if text else []


def _target(text: str) -> tuple[str, int]:
    alias, _, number = text.partition(_BEFORE_NUMBER)
    return alias, int(number)


class CollectionQueries:
    """Finds collections. Safe for many tasks at once; each call uses the connection that it is given.

    One that was deleted, or is being deleted, is not found, but where that is said. Its statements are made once: to
    make one costs more than to run it.
    """

    def __init__(self) -> None:
        every = select_collections()
        is_named = (
            projects.c.entity_id == sa.bindparam("entity_id"),
            projects.c.name == sa.bindparam("project"),
            collections.c.name == sa.bindparam("collection"),
        )
        self._by_name = every.where(*is_named, is_there(collections))
        self._once_by_name = every.where(*is_named)
        self._head = (
            sa.select(collections.c.id, collections.c.kind, collections.c.type)
            .join(projects, projects.c.id == collections.c.project_id)
            .where(*is_named, is_there(collections))
        )
        self._by_ids = every.where(collections.c.id.in_(sa.bindparam("ids", expanding=True)))
        self._by_id = every.where(collections.c.id == sa.bindparam("row_id"))
        same_tree = sa.and_(
            versions.c.collection_id == collections.c.id,
            versions.c.tree_digest == sa.bindparam("digest"),
            has_state(versions, VersionState.LIVE),
        )
        with_tree = self._head.add_columns(versions.c.id.label("same"), versions.c.number)
        self._head_with_tree = with_tree.outerjoin(versions, same_tree)

    async def get(
        self, connection: AsyncConnection, entity_id: int | None, project: str, collection: str
    ) -> CollectionRow:
        """Return a collection by its name.

        Args:
            entity_id: None when nothing was ever stored for the entity.

        Raises:
            CollectionNotFound: The entity has no such collection.
        """
        names = {"entity_id": entity_id, "project": project, "collection": collection}
        row = (await connection.execute(self._by_name, names)).one_or_none()
        if row is None:
            raise collection_not_found(project, collection)
        return collection_row(row)

    async def once_named(
        self, connection: AsyncConnection, entity_id: int | None, project: str, collection: str
    ) -> CollectionRow | None:
        """Return a collection by its name, deleted or not; None when there never was one."""
        names = {"entity_id": entity_id, "project": project, "collection": collection}
        row = (await connection.execute(self._once_by_name, names)).one_or_none()
        return None if row is None else collection_row(row)

    async def find(self, change: Change, project: str, collection: str) -> CollectionHead | None:
        """Return what a collection is, or None when the entity has none of this name."""
        names = {"entity_id": change.entity_id, "project": project, "collection": collection}
        row = await row_of(change.connection, self._head, names)
        if row is None:
            return None
        return CollectionHead(CollectionKey(row.id, project, collection), CollectionKind(row.kind), row.type)

    async def by_ids(self, connection: AsyncConnection, ids: Sequence[int]) -> dict[int, CollectionRow]:
        """Return those of these rows that are there, deleted or not, by their numbers. At most 1,000 at once."""
        rows = await connection.execute(self._by_ids, {"ids": list(ids)})
        return {row.id: collection_row(row) for row in rows}

    async def find_with_tree(
        self, change: Change, project: str, collection: str, digest: bytes
    ) -> tuple[CollectionHead | None, int | None]:
        """Return what a sequence is, and the row of its newest live version of a tree; None for what is not there."""
        names = {"entity_id": change.entity_id, "project": project, "collection": collection, "digest": digest}
        # In no order: for that SQLite would walk through the collection by number.
        rows = await rows_of(change.connection, self._head_with_tree, names)
        if not rows:
            return None, None
        row = max(rows, key=lambda one: one.number or 0)
        return CollectionHead(CollectionKey(row.id, project, collection), CollectionKind(row.kind), row.type), row.same

    async def by_id(self, connection: AsyncConnection, row_id: int) -> CollectionRow:
        """Return a collection that is known to be there."""
        return collection_row((await connection.execute(self._by_id, {"row_id": row_id})).one())
