"""Rows of versions for lists and searches, put into the tables, and what a search of them should find."""

from __future__ import annotations

import operator
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from lading_format.names import MODEL_REGISTRY
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.conditions import Condition, Field, Operator
from lading_server.registry.store.schema import (
    CollectionKind,
    RunState,
    VersionState,
    aliases,
    collection_tags,
    collections,
    projects,
    runs,
    version_fields,
    version_tags,
    versions,
)

Fields = dict[str, float | str]

_VALUES: tuple[float | str, ...] = (0.5, 1.0, 1.5, -2.0, "true", "false", "Torch", "torch", "é")


@dataclass
class Sample:
    """A version to put into the tables, and the numbers that it got there."""

    project: str = "digits"
    collection: str = "mnist"
    type: str = "dataset"
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    fields: Fields = field(default_factory=dict)
    creator: str = "ann"
    run: str = ""
    created_at_ms: int = 1_800_000_000_000
    size_bytes: int = 1
    file_count: int = 1
    description: str = ""
    metadata: str = "{}"
    source: Sample | None = None
    state: VersionState = VersionState.LIVE
    row_id: int = 0
    collection_id: int = 0
    number: int = 0

    @property
    def name(self) -> str:
        """`project/collection:vN`."""
        return f"{self.project}/{self.collection}:v{self.number}"

    @property
    def kind(self) -> CollectionKind:
        """That of its collection."""
        return CollectionKind.PORTFOLIO if self.project == MODEL_REGISTRY else CollectionKind.SEQUENCE

    @property
    def borne(self) -> Fields:
        """The metadata that it has: a link has that of its source."""
        return self.fields if self.source is None else self.source.fields


async def put(registry: Registry, *samples: Sample, entity: str = "acme") -> None:
    """Add versions, in this order, with their projects, collections and runs."""
    entity_id = await registry.store.entities.ensure(entity, 0)
    async with registry.store.database.write() as connection:
        for one in samples:
            project_id = await _ensure(connection, projects, entity_id=entity_id, name=one.project)
            one.collection_id = await _ensure(
                connection,
                collections,
                entity_id=entity_id,
                project_id=project_id,
                name=one.collection,
                new={
                    "kind": one.kind.value,
                    "type": one.type,
                    "description": "",
                    "next_number": 0,
                    "version_count": 0,
                    "updated_at_ms": one.created_at_ms,
                    "created_by": one.creator,
                    "created_at_ms": one.created_at_ms,
                },
            )
            run_id = None
            if one.run:
                details = {"state": RunState.RUNNING.value, "heartbeat_at_ms": 0, "project_id": project_id}
                texts = dict.fromkeys(("display_name", "job_type", "config", "summary", "created_by"), "")
                run_id = await _ensure(
                    connection, runs, entity_id=entity_id, name=one.run, new={**details, **texts, "created_at_ms": 0}
                )
            counted = (
                sa.update(collections)
                .where(collections.c.id == one.collection_id)
                .values(next_number=collections.c.next_number + 1, version_count=collections.c.version_count + 1)
                .returning(collections.c.next_number)
            )
            one.number = (await connection.execute(counted)).scalar_one() - 1
            new = sa.insert(versions).values(
                uid=os.urandom(16),
                entity_id=entity_id,
                collection_id=one.collection_id,
                number=one.number,
                state=one.state.value,
                tree_digest=os.urandom(32),
                file_count=one.file_count,
                reference_count=0,
                size_bytes=one.size_bytes,
                description=one.description,
                metadata=one.metadata,
                created_at_ms=one.created_at_ms,
                created_by=one.creator,
                run_id=run_id,
                source_id=None if one.source is None else one.source.row_id,
            )
            one.row_id = (await connection.execute(new.returning(versions.c.id))).scalar_one()
            await _describe(connection, entity_id, one)


async def _ensure(connection: Any, table: sa.Table, *, new: dict[str, Any] | None = None, **key: Any) -> int:
    found = await connection.scalar(
        sa.select(table.c.id).where(*(table.c[name] == value for name, value in key.items()))
    )
    if found is None:
        values = {**key, **(new or {"created_at_ms": 0})}
        found = (await connection.execute(sa.insert(table).values(**values).returning(table.c.id))).scalar_one()
    return int(found)


async def _describe(connection: Any, entity_id: int, one: Sample) -> None:
    of = {"entity_id": entity_id, "version_id": one.row_id}
    for tag in one.tags:
        await connection.execute(sa.insert(version_tags).values(**of, tag=tag))
    for alias in one.aliases:
        its = aliases.c.collection_id == one.collection_id, aliases.c.alias == alias
        await connection.execute(sa.delete(aliases).where(*its))
        await connection.execute(sa.insert(aliases).values(**of, collection_id=one.collection_id, alias=alias))
    for key, value in one.fields.items():
        text, number = (value, None) if isinstance(value, str) else (None, value)
        await connection.execute(sa.insert(version_fields).values(**of, key=key, text=text, number=number))


async def tag_collection(registry: Registry, one: Sample, *tags: str) -> None:
    """Give the collection of a version tags."""
    async with registry.store.database.write() as connection:
        entity_id = sa.select(collections.c.entity_id).where(collections.c.id == one.collection_id).scalar_subquery()
        for tag in tags:
            row = {"collection_id": one.collection_id, "tag": tag, "entity_id": entity_id}
            await connection.execute(sa.insert(collection_tags).values(**row))


def random_samples(source: random.Random, count: int) -> list[Sample]:
    """Return versions in which every condition holds for some and not for others."""
    samples: list[Sample] = []
    for at in range(count):
        name = source.choice(["bert", "BERT-large", "res_net", "digits", "dig_ts"])
        # Aliases are put where no later version of the collection takes them away: each is one version's.
        one = Sample(
            project=source.choice(["digits", "vision", "Audio"]),
            collection=name,
            type="model" if name.startswith("B") else "dataset",
            tags=tuple(source.sample(["approved", "old", "team:a"], source.randrange(3))),
            aliases=(f"a{at}",) if source.random() < 0.2 else (),
            creator=source.choice(["ann", "bob"]),
            run=source.choice(["", "", "run-1", "run-2"]),
            created_at_ms=1_800_000_000_000 + source.randrange(20) * 86_400_000,
            size_bytes=source.randrange(8),
            file_count=source.randrange(4),
            state=VersionState.DELETED if source.random() < 0.1 else VersionState.LIVE,
        )
        one.fields = {key: source.choice(_VALUES) for key in ("accuracy", "a.b") if source.random() < 0.7}
        if samples and source.random() < 0.2:
            linked = source.choice(samples)
            one = Sample(
                project=MODEL_REGISTRY,
                collection=source.choice(["Digit Reader", "Digit"]),
                type="model",
                tags=one.tags,
                aliases=one.aliases,
                created_at_ms=one.created_at_ms,
                size_bytes=linked.size_bytes,
                source=linked if linked.source is None else linked.source,
                state=one.state,
            )
        samples.append(one)
    return samples


_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQUAL: operator.eq,
    Operator.NOT_EQUAL: operator.ne,
    Operator.LESS: operator.lt,
    Operator.LESS_OR_EQUAL: operator.le,
    Operator.GREATER: operator.gt,
    Operator.GREATER_OR_EQUAL: operator.ge,
}


def matches(one: Sample, conditions: Sequence[Condition]) -> bool:
    """Tell what the protocol says of a version, without SQL."""
    return one.state is VersionState.LIVE and all(_holds(one, condition) for condition in conditions)


def _holds(one: Sample, condition: Condition) -> bool:
    if condition.field is Field.METADATA:
        value = one.borne.get(condition.key)
        is_comparable = value is not None and isinstance(value, str) == isinstance(condition.value, str)
        return is_comparable and _COMPARE[condition.operator](value, condition.value)
    if condition.field in (Field.TAG, Field.ALIAS):
        has = condition.value in (one.tags if condition.field is Field.TAG else one.aliases)
        return has == (condition.operator is Operator.EQUAL)
    actual = {
        Field.PROJECT: one.project,
        Field.NAME: one.collection,
        Field.TYPE: one.type,
        Field.KIND: one.kind.value,
        Field.CREATOR: one.creator,
        Field.RUN: one.run,
        Field.CREATED: one.created_at_ms,
        Field.NUMBER: one.number,
        Field.SIZE: one.size_bytes,
        Field.FILES: one.file_count,
    }[condition.field]
    if condition.operator is Operator.HOLDS:
        return str(condition.value).lower() in str(actual).lower()
    return _COMPARE[condition.operator](actual, condition.value)
