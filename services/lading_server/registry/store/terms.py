"""What conditions mean in SQL: as filters of rows, and as the rows for which one of them holds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from lading_server.registry.store.conditions import Condition, Field, Operator
from lading_server.registry.store.scan import Columns, exists
from lading_server.registry.store.schema import (
    aliases,
    collections,
    projects,
    runs,
    version_fields,
    version_tags,
    versions,
)

_COMPARE: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}
# Conditions that are about a version's collection.
COLLECTION_TERMS = frozenset({Field.PROJECT, Field.NAME, Field.TYPE, Field.KIND})
# Conditions that compare a column of the version itself.
VERSION_COLUMNS = {
    Field.CREATED: "created_at_ms",
    Field.EXPIRES: "expires_at_ms",
    Field.NUMBER: "number",
    Field.SIZE: "size_bytes",
    Field.FILES: "file_count",
    Field.CREATOR: "created_by",
}
# Those of the above that have an index of their entity.
_INDEXED = (Field.CREATOR, Field.SIZE, Field.CREATED)

# Names of their own: the order may have the same tables, and a condition is not about its rows.
_collection = collections.alias("its_collection")
_tag = version_tags.alias("its_tag")
_alias = aliases.alias("its_alias")
_field = version_fields.alias("its_field")
_run = runs.alias("its_run")


def compare(column: sa.ColumnElement[Any], condition: Condition) -> sa.ColumnElement[bool]:
    """Return the comparison that a condition asks for."""
    if condition.operator is Operator.HOLDS:
        return holds(column, str(condition.value))
    result: sa.ColumnElement[bool] = _COMPARE[condition.operator](column, condition.value)
    return result


def holds(name: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    """Return whether a name holds a text in any case.

    Names are ASCII. So is what is folded here, and not by the database, which may know more letters.
    """
    folded = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    return sa.func.lower(name).contains(folded, autoescape=True)


def collection_terms(entity_id: int, conditions: Sequence[Condition], columns: Columns) -> list[sa.ColumnElement[bool]]:
    """Return those of the conditions that are about a collection; `columns` are those of its row."""
    terms = []
    for condition in conditions:
        if condition.field is Field.PROJECT:
            named = sa.select(projects.c.id).where(
                projects.c.entity_id == entity_id, projects.c.name == condition.value
            )
            project = named.correlate(None).scalar_subquery()
            if condition.operator is Operator.EQUAL:
                terms.append(columns["project_id"] == project)
            else:
                # There may be no such project, and then every collection is in another.
                terms.append(columns["project_id"].is_distinct_from(project))
        elif condition.field in COLLECTION_TERMS:
            terms.append(compare(columns[condition.field.value], condition))
    return terms


def version_filters(entity_id: int, conditions: Sequence[Condition], columns: Columns) -> list[sa.ColumnElement[bool]]:
    """Return a filter for each condition.

    Args:
        columns: Those of `VERSION_COLUMNS`, and `id`, `collection_id`, `run_id` and `bearer_id`, which is the id of the
            version that has the metadata.
    """
    terms: list[sa.ColumnElement[bool]] = []
    in_collection = collection_terms(entity_id, conditions, _collection.c)
    if in_collection:
        terms.append(exists(_collection, _collection.c.id == columns["collection_id"], *in_collection))
    for one in conditions:
        match one.field:
            case Field.TAG:
                found = exists(_tag, _tag.c.version_id == columns["id"], _tag.c.tag == one.value)
            case Field.ALIAS:
                found = exists(_alias, _alias.c.version_id == columns["id"], _alias.c.alias == one.value)
            case Field.RUN:
                found = exists(_run, _run.c.id == columns["run_id"], _run.c.name == one.value)
            case Field.METADATA:
                terms.append(exists(_field, _field.c.version_id == columns["bearer_id"], *_metadata_terms(one)))
                continue
            case field if field in VERSION_COLUMNS:
                terms.append(compare(columns[VERSION_COLUMNS[field]], one))
                continue
            case _:
                continue
        terms.append(found if one.operator is Operator.EQUAL else ~found)
    return terms


def _metadata_terms(condition: Condition) -> list[sa.ColumnElement[bool]]:
    value = _field.c.text if isinstance(condition.value, str) else _field.c.number
    return [_field.c.key == condition.key, compare(value, condition)]


def version_sources(entity_id: int, conditions: Sequence[Condition]) -> list[sa.Select[Any]]:
    """Return, for each condition that has an index, a SELECT of the `id` of every version for which it holds.

    All are versions of the entity; they may have been deleted.
    """
    sources: list[sa.Select[Any]] = []
    for one in conditions:
        if one.field is Field.TAG and one.operator is Operator.EQUAL:
            tagged = sa.select(_tag.c.version_id.label("id"))
            sources.append(tagged.where(_tag.c.entity_id == entity_id, _tag.c.tag == one.value))
        elif one.field is Field.ALIAS and one.operator is Operator.EQUAL:
            pointed = sa.select(_alias.c.version_id.label("id"))
            sources.append(pointed.where(_alias.c.entity_id == entity_id, _alias.c.alias == one.value))
        elif one.field is Field.RUN and one.operator is Operator.EQUAL:
            logged = sa.select(versions.c.id).join(_run, _run.c.id == versions.c.run_id)
            sources.append(logged.where(_run.c.entity_id == entity_id, _run.c.name == one.value))
        elif one.field is Field.METADATA:
            sources.append(_with_metadata(entity_id, one))
    for field in _INDEXED:
        terms = [compare(versions.c[VERSION_COLUMNS[field]], one) for one in conditions if one.field is field]
        if terms:
            sources.append(sa.select(versions.c.id).where(versions.c.entity_id == entity_id, *terms))
    in_collection = collection_terms(entity_id, conditions, _collection.c)
    if in_collection:
        held = sa.select(versions.c.id).join(_collection, _collection.c.id == versions.c.collection_id)
        sources.append(held.where(_collection.c.entity_id == entity_id, *in_collection))
    return sources


def _with_metadata(entity_id: int, condition: Condition) -> sa.Select[Any]:
    terms = [_field.c.entity_id == entity_id, *_metadata_terms(condition)]
    own = sa.select(_field.c.version_id.label("id")).where(*terms)
    linked = sa.select(versions.c.id).join(_field, _field.c.version_id == versions.c.source_id).where(*terms)
    both = own.union_all(linked).subquery("with_metadata")
    return sa.select(both.c.id)
