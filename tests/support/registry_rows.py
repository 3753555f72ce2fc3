"""A registry to test with, on either database, and rows that the commit flow would make."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lading_server.common.callers import Caller
from lading_server.common.settings import Settings
from lading_server.registry.domain.registry import Registry, run_registry
from lading_server.registry.domain.runs import NewRun
from lading_server.registry.store.entities import ensure_project
from lading_server.registry.store.runs import find_run
from lading_server.registry.store.schema import (
    CollectionKind,
    VersionState,
    aliases,
    collections,
    events,
    run_outputs,
    versions,
)
from lading_server.registry.store.store import RegistryStore
from tests.support.index import FakeClock, database_url
from tests.support.registry import PinsInMemory

ACME = Caller("acme", "ann")
MODELS = "model-registry"


@dataclass(frozen=True)
class Made:
    """A version that was put into the tables."""

    id: int
    uid: bytes
    project: str
    collection: str
    number: int

    @property
    def name(self) -> str:
        """What requests call it."""
        return f"{self.project}/{self.collection}:v{self.number}"


@asynccontextmanager
async def opened_registry(
    kind: str, directory: Path, clock: FakeClock, settings: Settings | None = None
) -> AsyncIterator[Registry]:
    """Give a registry over an empty database."""
    async with database_url(kind, directory) as url:
        store = await RegistryStore.open(url, clock=clock)
        try:
            async with run_registry(settings or Settings(), store, PinsInMemory()) as registry:
                yield registry
        finally:
            await store.close()


async def new_version(
    registry: Registry,
    name: str,
    *,
    type_name: str = "dataset",
    caller: Caller = ACME,
    source: Made | None = None,
    aliased: tuple[str, ...] = (),
    description: str = "",
) -> Made:
    """Add a version of `project/collection`; one with a source is a link."""
    project, _, collection = name.partition("/")
    async with registry.store.change(caller) as change:
        project_id = await ensure_project(change, project)
        kind = CollectionKind.SEQUENCE if source is None else CollectionKind.PORTFOLIO
        connection = change.connection
        query = sa.select(collections).where(collections.c.project_id == project_id, collections.c.name == collection)
        row = (await connection.execute(query)).one_or_none()
        stamps = {"entity_id": change.entity_id, "created_at_ms": change.now_ms, "created_by": "ann"}
        if row is None:
            new = sa.insert(collections).values(
                **stamps,
                project_id=project_id,
                name=collection,
                kind=kind.value,
                type=type_name,
                description="",
                next_number=0,
                version_count=0,
                updated_at_ms=change.now_ms,
            )
            row = (await connection.execute(new.returning(collections))).one()
        uid = os.urandom(16)
        added = sa.insert(versions).values(
            **stamps,
            uid=uid,
            collection_id=row.id,
            number=row.next_number,
            state=VersionState.LIVE.value,
            tree_digest=os.urandom(32),
            file_count=1,
            reference_count=0,
            size_bytes=1,
            description=description,
            metadata="{}",
            source_id=None if source is None else source.id,
        )
        version_id = (await connection.execute(added.returning(versions.c.id))).scalar_one()
        await connection.execute(
            sa.update(collections).where(collections.c.id == row.id).values(next_number=row.next_number + 1)
        )
        for alias in aliased:
            values = {"collection_id": row.id, "alias": alias, "entity_id": change.entity_id, "version_id": version_id}
            await connection.execute(sa.insert(aliases).values(values))
        return Made(version_id, uid, project, collection, row.next_number)


async def new_run(registry: Registry, run: str, *, caller: Caller = ACME, config: str = "") -> str:
    """Create a run and return its id."""
    await registry.runs.create(caller, NewRun("digits", run, "", "train", config), "")
    return run


async def use(registry: Registry, run: str, version: Made) -> None:
    """Let a run use a version."""
    await registry.lineage.use_version(ACME, run, version.name, "", "")


async def log(registry: Registry, run: str, version: Made) -> None:
    """Let a run log a version."""
    async with registry.store.change(ACME) as change:
        run_id = await find_run(change.connection, change.entity_id, run)
        await change.connection.execute(
            sa.insert(run_outputs).values(run_id=run_id, version_id=version.id, logged_at_ms=change.now_ms)
        )


async def delete(registry: Registry, version: Made) -> None:
    """Hide a version."""
    async with registry.store.database.write() as connection:
        await connection.execute(
            sa.update(versions).where(versions.c.id == version.id).values(state=VersionState.DELETED.value)
        )


async def events_of(registry: Registry, *kinds: str) -> list[dict[str, Any]]:
    """Return what happened, in order: everything, or of these kinds. `before` and `after` are parsed, or None."""
    async with registry.store.database.read() as connection:
        rows = (await connection.execute(sa.select(events).order_by(events.c.revision))).mappings().all()
    return [
        {**row, "before": _parsed(row["before"]), "after": _parsed(row["after"])}
        for row in rows
        if not kinds or row["kind"] in kinds
    ]


def _parsed(text: str) -> Any:
    return json.loads(text) if text else None
