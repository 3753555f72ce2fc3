"""Rules of retention: their rows and events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import JsonObject, RetentionRule
from lading_server.registry.store.schema import entities, retention_rules

_COLUMNS = tuple(retention_rules.c[name] for name in RetentionRule._fields)
# That of a collection comes before that of its project, whose collection is empty.
_FIND = (
    sa.select(*_COLUMNS)
    .where(
        retention_rules.c.entity_id == sa.bindparam("entity"),
        retention_rules.c.project == sa.bindparam("of_project"),
        retention_rules.c.collection.in_(("", sa.bindparam("of_collection"))),
    )
    .order_by(retention_rules.c.collection.desc())
    .limit(1)
)


async def list_rules(connection: AsyncConnection, entity_id: int, project: str = "") -> list[RetentionRule]:
    """Return an entity's rules, of one project or of all, sorted by project and collection."""
    query: sa.Select[Any] = sa.select(*_COLUMNS).where(retention_rules.c.entity_id == entity_id)
    if project:
        query = query.where(retention_rules.c.project == project)
    rows = await connection.execute(query.order_by(retention_rules.c.project, retention_rules.c.collection))
    return [_rule(row) for row in rows]


async def find_rule(connection: AsyncConnection, entity_id: int, project: str, collection: str) -> RetentionRule | None:
    """Return the rule that counts for a collection: its own, or that of its project; None where there is neither."""
    names = {"entity": entity_id, "of_project": project, "of_collection": collection}
    row = (await connection.execute(_FIND, names)).one_or_none()
    return None if row is None else _rule(row)


async def put_rule(change: Change, rule: RetentionRule, before: RetentionRule | None) -> RetentionRule:
    """Keep a rule, in place of the one before it, and return it with who set it and when.

    Makes no event, and keeps who and when, where nothing else is different.
    """
    if before is not None and rule == before._replace(set_at_ms=rule.set_at_ms, set_by=rule.set_by):
        return before
    rule = rule._replace(set_at_ms=change.now_ms, set_by=change.caller.principal)
    values = rule._asdict() | {"keep_tags": json.dumps(rule.keep_tags)}
    if before is None:
        await change.connection.execute(sa.insert(retention_rules).values(entity_id=change.entity_id, **values))
        await _count(change, 1)
    else:
        mine = _is(change, rule.project, rule.collection)
        await change.connection.execute(sa.update(retention_rules).where(mine).values(values))
    change.add_event(
        "retention_rule.set", rule.project, collection=rule.collection, before=_told(before), after=_told(rule)
    )
    return rule


async def drop_rule(change: Change, project: str, collection: str) -> None:
    """Take a rule away. Makes no event where there is none."""
    mine = _is(change, project, collection)
    query: sa.Select[Any] = sa.select(*_COLUMNS).where(mine)
    row = (await change.connection.execute(query)).one_or_none()
    if row is not None:
        await change.connection.execute(sa.delete(retention_rules).where(mine))
        await _count(change, -1)
        change.add_event("retention_rule.deleted", project, collection=collection, before=_told(_rule(row)))


async def _count(change: Change, difference: int) -> None:
    mine = sa.update(entities).where(entities.c.id == change.entity_id)
    await change.connection.execute(mine.values(retention_rule_count=entities.c.retention_rule_count + difference))


def _is(change: Change, project: str, collection: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        retention_rules.c.entity_id == change.entity_id,
        retention_rules.c.project == project,
        retention_rules.c.collection == collection,
    )


def _rule(row: sa.Row[Any]) -> RetentionRule:
    rule = RetentionRule(*tuple(row))
    tags: Sequence[str] = json.loads(row.keep_tags)
    return rule._replace(keep_tags=tuple(tags))


def _told(rule: RetentionRule | None) -> JsonObject | None:
    """Return what an event says of a rule: the parts that it has."""
    if rule is None:
        return None
    parts = rule._asdict()
    for name in ("project", "collection", "set_at_ms", "set_by"):
        del parts[name]
    return {name: list(part) if isinstance(part, tuple) else part for name, part in parts.items() if part}
