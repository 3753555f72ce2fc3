"""Rules of aliases: their rows and events, and what has to be read to hold moves against them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import AliasRule, JsonObject, Qualities
from lading_server.registry.store.schema import (
    VersionState,
    alias_rules,
    aliases,
    collections,
    entities,
    projects,
    version_tags,
    versions,
)

# No tag has one.
_SEPARATOR = ","

_COLUMNS = (
    alias_rules.c.project,
    alias_rules.c.collection,
    alias_rules.c.alias,
    alias_rules.c.is_protected,
    alias_rules.c.required_tags,
    alias_rules.c.required_metadata,
)

_source = versions.alias("source")


async def list_rules(connection: AsyncConnection, entity_id: int, project: str = "") -> list[AliasRule]:
    """Return an entity's rules, of one project or of all, sorted by project, collection and alias."""
    query: sa.Select[Any] = sa.select(*_COLUMNS).where(alias_rules.c.entity_id == entity_id)
    if project:
        query = query.where(alias_rules.c.project == project)
    rows = await connection.execute(
        query.order_by(alias_rules.c.project, alias_rules.c.collection, alias_rules.c.alias)
    )
    return [_rule(row) for row in rows]


async def find_rules(change: Change, project: str, collection: str, names: Collection[str]) -> list[AliasRule]:
    """Return the rules for aliases of a collection: its own, and those for all of its project. They add up.

    Asks nothing where the entity has no rules, which the change knows since it began.
    """
    if not names or not change.has_alias_rules:
        return []
    query: sa.Select[Any] = sa.select(*_COLUMNS).where(
        alias_rules.c.entity_id == change.entity_id,
        alias_rules.c.project == project,
        alias_rules.c.collection.in_(("", collection)),
        alias_rules.c.alias.in_(sorted(set(names))),
    )
    rows = await change.connection.execute(query.order_by(alias_rules.c.alias, alias_rules.c.collection))
    return [_rule(row) for row in rows]


async def find_relying_rules(change: Change, version_id: int) -> list[tuple[int, AliasRule]]:
    """Return the rules of aliases that point at a version, or at a link to it, each with the row that is pointed at."""
    if not change.has_alias_rules:
        return []
    here = (
        sa.select(versions.c.id)
        .where(sa.or_(versions.c.id == version_id, versions.c.source_id == version_id))
        .where(versions.c.state == VersionState.LIVE.value)
    )
    query: sa.Select[Any] = (
        sa.select(aliases.c.version_id, *_COLUMNS)
        .select_from(aliases)
        .join(collections, collections.c.id == aliases.c.collection_id)
        .join(projects, projects.c.id == collections.c.project_id)
        .join(alias_rules, alias_rules.c.alias == aliases.c.alias)
        .where(
            aliases.c.version_id.in_(here),
            alias_rules.c.entity_id == change.entity_id,
            alias_rules.c.project == projects.c.name,
            alias_rules.c.collection.in_([sa.literal(""), collections.c.name]),
        )
        .order_by(alias_rules.c.project, alias_rules.c.collection, alias_rules.c.alias)
    )
    return [(row.version_id, _rule(row)) for row in await change.connection.execute(query)]


async def find_qualities(change: Change, ids: Collection[int]) -> Mapping[int, Qualities]:
    """Return what rules may require of these versions, by the numbers of their rows, as the change has made it."""
    tags = (
        sa.select(sa.func.aggregate_strings(version_tags.c.tag, _SEPARATOR))
        .where(version_tags.c.version_id.in_([versions.c.id, versions.c.source_id]))
        .correlate(versions)
        .scalar_subquery()
    )
    query = (
        sa.select(
            versions.c.id,
            tags.label("tags"),
            sa.func.coalesce(_source.c.metadata, versions.c.metadata).label("metadata"),
        )
        .outerjoin_from(versions, _source, _source.c.id == versions.c.source_id)
        .where(versions.c.id.in_(sorted(set(ids))))
    )
    return {
        row.id: Qualities(frozenset((row.tags or "").split(_SEPARATOR)) - {""}, json.loads(row.metadata))
        for row in await change.connection.execute(query)
    }


async def put_rule(change: Change, rule: AliasRule, before: AliasRule | None) -> None:
    """Keep a rule, in place of the one before it. Makes no event where nothing is different."""
    if rule == before:
        return
    values = {
        "is_protected": rule.is_protected,
        "required_tags": json.dumps(rule.required_tags),
        "required_metadata": json.dumps(rule.required_metadata),
    }
    if before is None:
        new = sa.insert(alias_rules).values(
            entity_id=change.entity_id,
            project=rule.project,
            collection=rule.collection,
            alias=rule.alias,
            **values,
        )
        await change.connection.execute(new)
        await _count(change, 1)
    else:
        await change.connection.execute(sa.update(alias_rules).where(_is(change, rule)).values(values))
    change.add_event(
        "alias_rule.set",
        rule.project,
        collection=rule.collection,
        before=_told(before),
        after=_told(rule),
    )


async def drop_rule(change: Change, project: str, collection: str, alias: str) -> None:
    """Take a rule away. Makes no event where there is none."""
    named = _is(change, AliasRule(project, collection, alias))
    query: sa.Select[Any] = sa.select(*_COLUMNS).where(named)
    row = (await change.connection.execute(query)).one_or_none()
    if row is not None:
        await change.connection.execute(sa.delete(alias_rules).where(named))
        await _count(change, -1)
        change.add_event("alias_rule.deleted", project, collection=collection, before=_told(_rule(row)))


async def _count(change: Change, difference: int) -> None:
    mine = sa.update(entities).where(entities.c.id == change.entity_id)
    await change.connection.execute(mine.values(alias_rule_count=entities.c.alias_rule_count + difference))


def _is(change: Change, rule: AliasRule) -> sa.ColumnElement[bool]:
    return sa.and_(
        alias_rules.c.entity_id == change.entity_id,
        alias_rules.c.project == rule.project,
        alias_rules.c.collection == rule.collection,
        alias_rules.c.alias == rule.alias,
    )


def _rule(row: sa.Row[Any]) -> AliasRule:
    return AliasRule(
        row.project,
        row.collection,
        row.alias,
        row.is_protected,
        _names(row.required_tags),
        _names(row.required_metadata),
    )


def _names(text: str) -> tuple[str, ...]:
    names: Sequence[str] = json.loads(text)
    return tuple(names)


def _told(rule: AliasRule | None) -> JsonObject | None:
    if rule is None:
        return None
    return {
        "alias": rule.alias,
        "protected": rule.is_protected,
        "required_tags": list(rule.required_tags),
        "required_metadata": list(rule.required_metadata),
    }
