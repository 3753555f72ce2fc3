"""How a version is read, whatever asks for it: one query for everything that is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.references import VersionReference
from lading_server.common.database import Database
from lading_server.common.direct import row_of, rows_of
from lading_server.common.registry_errors import CollectionNotFound, VersionNotFound
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import (
    CollectionKind,
    VersionState,
    aliases,
    collections,
    has_state,
    is_there,
    projects,
    runs,
    version_tags,
    versions,
)

# No tag and no alias has one.
SEPARATOR = ","

# What can be large, and is told by GetVersion and GetRun.
_TEXTS = frozenset({"description", "metadata", "config", "summary"})

_source = versions.alias("source")
_source_collection = collections.alias("source_collection")
_source_project = projects.alias("source_project")


def select_versions() -> sa.Select[Any]:
    """Return a SELECT of the columns that `version_row` takes, of all live versions; add conditions to it.

    `versions`, `collections` and `projects` of the schema can be used in these.
    """
    return select_any_versions().where(has_state(versions, VersionState.LIVE), is_there(collections))


def brief(query: sa.Select[Any]) -> sa.Select[Any]:
    """Return the query with nothing in the place of texts that can be large, so that they are never read."""
    columns = query.selected_columns
    return query.with_only_columns(
        *(sa.literal("").label(column.key) if column.key in _TEXTS else column for column in columns)
    )


def select_any_versions() -> sa.Select[Any]:
    """Return the same of all versions, deleted and purged ones too, whatever became of their collections."""
    tags = (
        sa.select(joined(version_tags.c.tag))
        .where(version_tags.c.version_id == versions.c.id)
        .correlate(versions)
        .scalar_subquery()
    )
    pointing = (
        sa.select(joined(aliases.c.alias))
        .where(aliases.c.version_id == versions.c.id)
        .correlate(versions)
        .scalar_subquery()
    )
    return (
        sa.select(
            versions.c.id,
            versions.c.uid,
            versions.c.entity_id,
            versions.c.collection_id,
            projects.c.name.label("project"),
            collections.c.name.label("collection"),
            collections.c.kind,
            collections.c.type,
            versions.c.number,
            versions.c.tree_digest,
            versions.c.file_count,
            versions.c.reference_count,
            versions.c.size_bytes,
            sa.func.coalesce(_source.c.description, versions.c.description).label("description"),
            sa.func.coalesce(_source.c.metadata, versions.c.metadata).label("metadata"),
            tags.label("tags"),
            pointing.label("aliases"),
            versions.c.created_at_ms,
            versions.c.created_by,
            runs.c.name.label("run"),
            versions.c.source_id,
            _source.c.uid.label("source_uid"),
            _source_project.c.name.label("source_project"),
            _source_collection.c.name.label("source_collection"),
            _source.c.number.label("source_number"),
            versions.c.expires_at_ms,
            versions.c.state,
            versions.c.deleted_at_ms,
            versions.c.deletion,
        )
        .select_from(versions)
        .join(collections, collections.c.id == versions.c.collection_id)
        .join(projects, projects.c.id == collections.c.project_id)
        .outerjoin(runs, runs.c.id == versions.c.run_id)
        .outerjoin(_source, _source.c.id == versions.c.source_id)
        .outerjoin(_source_collection, _source_collection.c.id == _source.c.collection_id)
        .outerjoin(_source_project, _source_project.c.id == _source_collection.c.project_id)
    )


def joined(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Return the texts of many rows as one, with SEPARATOR between them; NULL for none."""
    # A parameter would be written into the statement's text anew at every execution.
    separator: Any = sa.literal_column(f"'{SEPARATOR}'")
    return sa.func.aggregate_strings(column, separator)


def version_row(row: Any) -> VersionRow:
    """Return one row of `select_versions`."""
    return VersionRow(
        id=row.id,
        uid=row.uid,
        entity_id=row.entity_id,
        collection_id=row.collection_id,
        project=row.project,
        collection=row.collection,
        kind=CollectionKind(row.kind),
        type=row.type,
        number=row.number,
        tree_digest=row.tree_digest,
        file_count=row.file_count,
        reference_count=row.reference_count,
        size_bytes=row.size_bytes,
        description=row.description,
        metadata=row.metadata,
        tags=_split(row.tags),
        aliases=_split(row.aliases),
        created_at_ms=row.created_at_ms,
        created_by=row.created_by,
        run=row.run or "",
        source_id=row.source_id,
        source_uid=row.source_uid,
        source="" if row.source_id is None else f"{row.source_project}/{row.source_collection}:v{row.source_number}",
        expires_at_ms=row.expires_at_ms,
        state=VersionState(row.state),
        deleted_at_ms=row.deleted_at_ms,
        deletion=row.deletion,
    )


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(sorted(text.split(SEPARATOR))) if text else ()


def _newest(rows: Sequence[Any]) -> VersionRow | None:
    """Return the one version that was found.

    A sequence has two live versions of a tree when one was undeleted, and a portfolio may link two sources of it.
    """
    return version_row(max(rows, key=lambda row: row.number)) if rows else None


class VersionQueries:
    """Finds versions. Safe for many tasks at once; each call uses the connection that it is given.

    Its statements are made once: to make one costs more than to run it.
    """

    def __init__(self) -> None:
        every = select_versions()
        named = every.where(
            projects.c.entity_id == sa.bindparam("entity_id"),
            projects.c.name == sa.bindparam("project"),
            collections.c.name == sa.bindparam("collection"),
        )
        wanted = aliases.alias("wanted")
        self._by_alias = named.join(wanted, wanted.c.version_id == versions.c.id).where(
            wanted.c.collection_id == collections.c.id, wanted.c.alias == sa.bindparam("alias")
        )
        self._by_number = named.where(versions.c.number == sa.bindparam("number"))
        # Without an order: for that SQLite would walk through the collection by number.
        self._by_digest = named.where(versions.c.tree_digest == sa.bindparam("digest"))
        self._by_uid = every.where(
            versions.c.entity_id == sa.bindparam("entity_id"), versions.c.uid == sa.bindparam("uid")
        )
        self._by_id = every.where(versions.c.id == sa.bindparam("row_id"))
        self._by_ids = every.where(versions.c.id.in_(sa.bindparam("ids", expanding=True)))
        self._deleted_by_ids = select_any_versions().where(
            versions.c.id.in_(sa.bindparam("ids", expanding=True)), has_state(versions, VersionState.DELETED)
        )
        self._once_by_uid = select_any_versions().where(
            versions.c.entity_id == sa.bindparam("entity_id"), versions.c.uid == sa.bindparam("uid")
        )
        self._once_by_uid_briefly = brief(self._once_by_uid)
        self._once_by_ids = brief(select_any_versions()).where(versions.c.id.in_(sa.bindparam("ids", expanding=True)))
        once_named = select_any_versions().where(
            versions.c.collection_id == sa.bindparam("of_collection"),
        )
        self._once_by_number = once_named.where(versions.c.number == sa.bindparam("number"))
        self._once_by_digest = (
            once_named.where(versions.c.tree_digest == sa.bindparam("digest"))
            .order_by(has_state(versions, VersionState.DELETED).desc(), versions.c.number.desc())
            .limit(1)
        )

    async def resolve(self, connection: AsyncConnection, entity_id: int | None, ref: VersionReference) -> VersionRow:
        """Return the version that a reference means now.

        Args:
            entity_id: None when nothing was ever stored for the entity.

        Raises:
            CollectionNotFound, VersionNotFound: What the reference names is not there.
        """
        row = _newest(await rows_of(connection, *self._meant(entity_id, ref)))
        if row is None:
            raise await self._not_found(connection, entity_id, ref)
        return row

    async def find(self, database: Database, entity_id: int | None, ref: VersionReference) -> VersionRow | None:
        """Return the version that a reference means now, or None: `resolve` for the most frequent call of all."""
        return _newest(await database.fetch(*self._meant(entity_id, ref)))

    async def by_uid(self, connection: AsyncConnection, entity_id: int | None, uid: bytes) -> VersionRow:
        """Return a version by its id. Raises VersionNotFound."""
        row = (await connection.execute(self._by_uid, {"entity_id": entity_id, "uid": uid})).one_or_none()
        if row is None:
            raise VersionNotFound(f"there is no version of id {uid.hex()}; it may have been deleted", uid=uid.hex())
        return version_row(row)

    async def once(
        self, connection: AsyncConnection, entity_id: int, uid: bytes, *, briefly: bool = False
    ) -> VersionRow | None:
        """Return a version by its id, deleted or not: what a call that came before was answered with.

        Args:
            briefly: Without card and metadata.
        """
        query = self._once_by_uid_briefly if briefly else self._once_by_uid
        row = (await connection.execute(query, {"entity_id": entity_id, "uid": uid})).one_or_none()
        return None if row is None else version_row(row)

    async def once_named(
        self, connection: AsyncConnection, collection_id: int, *, number: int | None = None, digest: bytes | None = None
    ) -> VersionRow | None:
        """Return a version by its number, or the newest by its tree, a deleted one before others; deleted or not."""
        whose = {"of_collection": collection_id}
        if number is not None:
            found = await connection.execute(self._once_by_number, {**whose, "number": number})
        else:
            found = await connection.execute(self._once_by_digest, {**whose, "digest": digest})
        row = found.one_or_none()
        return None if row is None else version_row(row)

    async def once_by_ids(self, connection: AsyncConnection, ids: Sequence[int]) -> list[VersionRow]:
        """Return versions without card and metadata, deleted or not, in the order of their rows. At most 1,000."""
        if not ids:
            return []
        rows = await connection.execute(self._once_by_ids, {"ids": list(ids)})
        return sorted((version_row(row) for row in rows), key=lambda row: row.id)

    async def by_ids(
        self, connection: AsyncConnection, ids: Sequence[int], state: VersionState = VersionState.LIVE
    ) -> dict[int, VersionRow]:
        """Return those of these rows that are live, or deleted, by the number of their row. At most 1,000 at once."""
        if not ids:
            return {}
        query = self._by_ids if state is VersionState.LIVE else self._deleted_by_ids
        rows = await connection.execute(query, {"ids": list(ids)})
        return {row.id: version_row(row) for row in rows}

    async def by_id(self, connection: AsyncConnection, row_id: int) -> VersionRow:
        """Return a version that is known to be there."""
        return version_row(await row_of(connection, self._by_id, {"row_id": row_id}))

    def _meant(self, entity_id: int | None, ref: VersionReference) -> tuple[sa.Select[Any], dict[str, Any]]:
        names = {"entity_id": entity_id, "project": ref.project, "collection": ref.collection}
        if ref.digest is not None:
            return self._by_digest, {**names, "digest": ref.digest}
        if ref.number is not None:
            return self._by_number, {**names, "number": ref.number}
        return self._by_alias, {**names, "alias": ref.alias}

    async def _not_found(
        self, connection: AsyncConnection, entity_id: int | None, ref: VersionReference
    ) -> CollectionNotFound | VersionNotFound:
        query = (
            sa.select(collections.c.id)
            .join(projects, projects.c.id == collections.c.project_id)
            .where(
                projects.c.entity_id == entity_id,
                projects.c.name == ref.project,
                collections.c.name == ref.collection,
                is_there(collections),
            )
        )
        if await connection.scalar(query) is None:
            return collection_not_found(ref.project, ref.collection)
        return VersionNotFound(
            f"{ref.project}/{ref.collection} has no {ref.selector.lstrip(':@')}; it may have been moved or deleted",
            reference=f"{ref.project}/{ref.collection}{ref.selector}",
        )


def collection_not_found(project: str, collection: str) -> CollectionNotFound:
    """Return the error for a collection that the entity does not have."""
    return CollectionNotFound(
        f"there is no collection {project}/{collection}; check the name, the project and the entity",
        project=project,
        collection=collection,
    )
