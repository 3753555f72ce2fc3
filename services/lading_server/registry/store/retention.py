"""What has to be read to say which versions stay: facts of versions, ranks of collections, and where there is work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.names import LATEST, MODEL_REGISTRY
from lading_server.registry.store.rows import CollectionKey, Ranks, RetentionFacts, RetentionRule
from lading_server.registry.store.schema import (
    VersionState,
    aliases,
    collections,
    entities,
    events,
    is_there,
    projects,
    retention_rules,
    revisions,
    version_fields,
    version_tags,
    versions,
)

# Written out: neither database takes an index of some rows for a condition whose value it does not know yet.
_IS_LIVE = versions.c.state == sa.literal_column(f"'{VersionState.LIVE.value}'")
# What happens in a collection and lets no version stay that would have gone. Aliases are looked at apart.
_HARMLESS = ("version.committed", "alias.set", "alias.removed", "collection.updated", "version.used")

_link = versions.alias("a_link")
_ALIAS = (
    sa.select(sa.func.min(aliases.c.alias))
    .where(aliases.c.version_id == versions.c.id, aliases.c.alias != LATEST)
    .correlate(versions)
    .scalar_subquery()
)
_IS_LINKED = (
    sa.select(sa.literal(1))
    .where(_link.c.source_id == versions.c.id, _link.c.state == VersionState.LIVE.value)
    .correlate(versions)
    .exists()
)


class Scope(NamedTuple):
    """Where work is done: in one collection, or one project; what is empty is all."""

    project: str = ""
    collection: str = ""


class Due(NamedTuple):
    """A version whose time is over, and its collection."""

    key: CollectionKey
    facts: RetentionFacts


class RetentionQueries:
    """Reads for retention. Safe for many tasks at once; each call uses the connection that it is given."""

    async def revision(self, connection: AsyncConnection) -> int:
        """Return the revision of the last change: what is read after this holds everything up to it."""
        return int((await connection.execute(sa.select(revisions.c.revision))).scalar_one())

    async def has_changed(self, connection: AsyncConnection, entity_id: int, key: CollectionKey, revision: int) -> bool:
        """Tell whether anything happened in a collection since a revision that may have more of its versions stay."""
        query = sa.select(events.c.revision).where(
            events.c.entity_id == entity_id,
            events.c.project == key.project,
            events.c.collection == key.name,
            events.c.revision > revision,
            events.c.kind.not_in(_HARMLESS),
        )
        return (await connection.execute(query.limit(1))).one_or_none() is not None

    async def ranks(
        self, connection: AsyncConnection, collection_id: int, rule: RetentionRule | None, now_ms: int
    ) -> Ranks:
        """Return where the last N and the best K end, of the live versions whose time is not over.

        Walks the collection once for the best, with a look at `version_fields` for each version; the database keeps the
        K best of those that it has seen.
        """
        if rule is None:
            return Ranks()
        counted = (
            versions.c.collection_id == collection_id,
            versions.c.state == VersionState.LIVE.value,
            sa.or_(versions.c.expires_at_ms.is_(None), versions.c.expires_at_ms > now_ms),
        )
        last_number, best = None, None
        if rule.keep_last:
            numbers = sa.select(versions.c.number).where(*counted).order_by(versions.c.number.desc())
            last_number = (await connection.execute(numbers.offset(rule.keep_last - 1).limit(1))).scalar_one_or_none()
        if rule.keep_best:
            value = version_fields.c.number
            bears = sa.and_(version_fields.c.version_id == versions.c.id, version_fields.c.key == rule.best_key)
            ranked = (
                sa.select(value, versions.c.number)
                .select_from(versions.outerjoin(version_fields, bears))
                .where(*counted)
                .order_by(
                    value.is_(None), value.asc() if rule.best_is_smallest else value.desc(), versions.c.number.desc()
                )
            )
            row = (await connection.execute(ranked.offset(rule.keep_best - 1).limit(1))).one_or_none()
            best = None if row is None else (row[0], row[1])
        return Ranks(last_number, best)

    async def page(
        self,
        connection: AsyncConnection,
        collection_id: int,
        rule: RetentionRule | None,
        before: int | None,
        limit: int,
    ) -> list[RetentionFacts]:
        """Return facts of up to `limit` live versions of a collection, the newest first, below a number."""
        query = _facts(rule).where(
            versions.c.collection_id == collection_id, versions.c.state == VersionState.LIVE.value
        )
        if before is not None:
            query = query.where(versions.c.number < before)
        rows = await connection.execute(query.order_by(versions.c.number.desc()).limit(limit))
        return [_facts_row(row) for row in rows]

    async def candidates(
        self,
        connection: AsyncConnection,
        collection_id: int,
        rule: RetentionRule,
        ranks: Ranks,
        now_ms: int,
        first: int,
        limit: int,
    ) -> list[RetentionFacts]:
        """Return facts of up to `limit` live versions of a collection, the oldest first, from a number on.

        Those that their number or their age alone keeps are left out; of the others some may stay too.
        """
        query = _facts(rule).where(
            versions.c.collection_id == collection_id,
            versions.c.state == VersionState.LIVE.value,
            versions.c.number >= first,
        )
        if rule.keep_last and ranks.last_number is not None:
            query = query.where(versions.c.number < ranks.last_number)
        if rule.keep_days:
            query = query.where(versions.c.created_at_ms <= now_ms - rule.keep_days * 86_400_000)
        rows = await connection.execute(query.order_by(versions.c.number).limit(limit))
        return [_facts_row(row) for row in rows]

    async def facts(
        self, connection: AsyncConnection, ids: Sequence[int], rule: RetentionRule | None
    ) -> list[RetentionFacts]:
        """Return facts of those of these rows that are live, by number of row. At most 1,000 at once.

        What is in a collection that goes away as a whole is not among them.
        """
        query = (
            _facts(rule)
            .join(collections, collections.c.id == versions.c.collection_id)
            .where(versions.c.id.in_(ids), versions.c.state == VersionState.LIVE.value, is_there(collections))
        )
        return [_facts_row(row) for row in await connection.execute(query.order_by(versions.c.id))]

    async def due(
        self,
        connection: AsyncConnection,
        entity_id: int,
        scope: Scope,
        now_ms: int,
        after: tuple[int, int] | None,
        limit: int,
    ) -> list[Due]:
        """Return up to `limit` live versions whose time is over, by its end and their rows, after one of them."""
        query = (
            _facts(None)
            .add_columns(
                collections.c.id.label("of_collection"),
                projects.c.name.label("project"),
                collections.c.name.label("collection"),
            )
            .join(collections, collections.c.id == versions.c.collection_id)
            .join(projects, projects.c.id == collections.c.project_id)
            .where(
                versions.c.entity_id == entity_id,
                _IS_LIVE,
                is_there(collections),
                versions.c.expires_at_ms <= now_ms,
                *_in_scope(scope),
            )
        )
        if after is not None:
            here = sa.tuple_(versions.c.expires_at_ms, versions.c.id)
            query = query.where(here > sa.tuple_(*(sa.literal(part, sa.BigInteger) for part in after)))
        rows = await connection.execute(query.order_by(versions.c.expires_at_ms, versions.c.id).limit(limit))
        return [Due(CollectionKey(row.of_collection, row.project, row.collection), _facts_row(row)) for row in rows]

    async def next_ruled(
        self, connection: AsyncConnection, entity_id: int, scope: Scope, first: int
    ) -> CollectionKey | None:
        """Return the first collection for which a rule counts, by row, from one on; None when there is none."""
        is_ruled = (
            sa.select(sa.literal(1))
            .where(
                retention_rules.c.entity_id == entity_id,
                retention_rules.c.project == projects.c.name,
                retention_rules.c.collection.in_([sa.literal(""), collections.c.name]),
            )
            .correlate(projects, collections)
            .exists()
        )
        query = (
            sa.select(collections.c.id, projects.c.name, collections.c.name)
            .join(projects, projects.c.id == collections.c.project_id)
            .where(
                collections.c.entity_id == entity_id,
                collections.c.id >= first,
                projects.c.name != MODEL_REGISTRY,
                is_there(collections),
                is_ruled,
                *_in_scope(scope),
            )
            .order_by(collections.c.id)
            .limit(1)
        )
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else CollectionKey(*row)

    async def entities(self, connection: AsyncConnection, now_ms: int) -> list[str]:
        """Return the names of the entities that have rules, or versions whose time is over."""
        due = sa.select(versions.c.entity_id).where(_IS_LIVE, versions.c.expires_at_ms <= now_ms)
        query = sa.select(entities.c.name).where(sa.or_(entities.c.retention_rule_count > 0, entities.c.id.in_(due)))
        return list((await connection.scalars(query.order_by(entities.c.name))).all())


_FACTS = (
    versions.c.id,
    versions.c.uid,
    versions.c.number,
    versions.c.size_bytes,
    versions.c.created_at_ms,
    versions.c.expires_at_ms,
)


def _facts(rule: RetentionRule | None) -> sa.Select[Any]:
    """Return a SELECT of what RetentionFacts has."""
    value: sa.ColumnElement[Any] = sa.null()
    if rule is not None and rule.keep_best:
        value = (
            sa.select(version_fields.c.number)
            .where(version_fields.c.version_id == versions.c.id, version_fields.c.key == rule.best_key)
            .correlate(versions)
            .scalar_subquery()
        )
    tag: sa.ColumnElement[Any] = sa.null()
    if rule is not None and rule.keep_tags:
        tag = (
            sa.select(sa.func.min(version_tags.c.tag))
            .where(version_tags.c.version_id == versions.c.id, version_tags.c.tag.in_(rule.keep_tags))
            .correlate(versions)
            .scalar_subquery()
        )
    decided = (value.label("value"), tag.label("tag"), _ALIAS.label("alias"), _IS_LINKED.label("is_linked"))
    return sa.select(*_FACTS, *decided).select_from(versions)


def _facts_row(row: sa.Row[Any]) -> RetentionFacts:
    return RetentionFacts(
        id=row.id,
        uid=row.uid,
        number=row.number,
        size_bytes=row.size_bytes,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
        value=row.value,
        tag=row.tag or "",
        alias=row.alias or "",
        is_linked=bool(row.is_linked),
    )


def _in_scope(scope: Scope) -> list[sa.ColumnElement[bool]]:
    terms: list[sa.ColumnElement[bool]] = []
    if scope.project:
        terms.append(projects.c.name == scope.project)
    if scope.collection:
        terms.append(collections.c.name == scope.collection)
    return terms
