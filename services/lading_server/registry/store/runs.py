"""Runs, and which versions they used and logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.common.registry_errors import RunNotFound
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import RunRow
from lading_server.registry.store.schema import (
    RunState,
    VersionState,
    entities,
    projects,
    run_inputs,
    run_outputs,
    runs,
    versions,
)


def select_runs() -> sa.Select[Any]:
    """Return a SELECT of the columns that `run_row` takes, of all runs; add conditions to it.

    `runs` and `projects` of the schema can be used in these.
    """
    return (
        sa.select(
            runs.c.id,
            runs.c.entity_id,
            projects.c.name.label("project"),
            runs.c.name.label("run"),
            runs.c.display_name,
            runs.c.job_type,
            runs.c.state,
            runs.c.config,
            runs.c.summary,
            runs.c.created_at_ms,
            runs.c.heartbeat_at_ms,
            runs.c.ended_at_ms,
            runs.c.created_by,
        )
        .select_from(runs)
        .join(projects, projects.c.id == runs.c.project_id)
    )


def run_row(row: sa.Row[Any]) -> RunRow:
    """Return one row of `select_runs`."""
    return RunRow(
        id=row.id,
        entity_id=row.entity_id,
        project=row.project,
        run=row.run,
        name=row.display_name,
        job_type=row.job_type,
        state=RunState(row.state),
        config=row.config,
        summary=row.summary,
        created_at_ms=row.created_at_ms,
        heartbeat_at_ms=row.heartbeat_at_ms,
        ended_at_ms=row.ended_at_ms,
        created_by=row.created_by,
    )


async def find_run(connection: AsyncConnection, entity_id: int | None, run: str) -> int:
    """Return the number of a run's row.

    Args:
        entity_id: None when nothing was ever stored for the entity.

    Raises:
        RunNotFound: The entity has no such run.
    """
    query = sa.select(runs.c.id).where(runs.c.entity_id == entity_id, runs.c.name == run)
    number: int | None = await connection.scalar(query)
    if number is None:
        raise run_not_found(run)
    return number


def run_not_found(run: str) -> RunNotFound:
    """Return the error for a run that the entity does not have."""
    return RunNotFound(f"there is no run {run}; check the id and the entity, or create it", run_id=run)


class Beat(NamedTuple):
    """A run that was heard of: the number of its row, and its state."""

    run_id: int
    state: RunState


class SilentRun(NamedTuple):
    """A run that counts as crashed now, and when it was last heard of."""

    project: str
    run: str
    heartbeat_at_ms: int


class RunQueries:
    """Finds and changes runs. Safe for many tasks at once; each call uses the connection that it is given."""

    def __init__(self, database: Database) -> None:
        self._database = database
        named = (runs.c.entity_id == sa.bindparam("of_entity"), runs.c.name == sa.bindparam("run"))
        self._by_name = select_runs().where(*named)
        self._beat = (
            sa.update(runs)
            .where(*named, runs.c.state != RunState.CRASHED.value)
            .values(heartbeat_at_ms=_later(sa.bindparam("now_ms", type_=sa.BigInteger)))
            .returning(runs.c.id, runs.c.state)
        )

    async def get(self, connection: AsyncConnection, entity_id: int | None, run: str) -> RunRow | None:
        """Return a run, or None when the entity has no such run.

        Args:
            entity_id: None when nothing was ever stored for the entity.
        """
        row = (await connection.execute(self._by_name, {"of_entity": entity_id, "run": run})).one_or_none()
        return None if row is None else run_row(row)

    async def find(self, connection: AsyncConnection, entity_id: int | None, run: str) -> RunRow:
        """Return a run. Raises RunNotFound."""
        row = await self.get(connection, entity_id, run)
        if row is None:
            raise run_not_found(run)
        return row

    async def by_ids(self, connection: AsyncConnection, ids: Sequence[int]) -> dict[int, RunRow]:
        """Return those of these rows that are there, by the number of their row. At most 1,000 at once."""
        rows = await connection.execute(select_runs().where(runs.c.id.in_(ids)))
        return {row.id: run_row(row) for row in rows}

    async def add(
        self, change: Change, project_id: int, run: str, *, display_name: str, job_type: str, config: str
    ) -> None:
        """Add a run that is running. The caller knows that the entity has none of this id."""
        await change.connection.execute(
            sa.insert(runs).values(
                entity_id=change.entity_id,
                project_id=project_id,
                name=run,
                display_name=display_name,
                job_type=job_type,
                state=RunState.RUNNING.value,
                config=config,
                summary="{}",
                created_at_ms=change.now_ms,
                heartbeat_at_ms=change.now_ms,
                created_by=change.caller.principal,
            )
        )

    async def save(self, change: Change, row: RunRow) -> None:
        """Keep what may change of a run: state, config, summary and the times. Its state is only changed by changes."""
        await change.connection.execute(
            sa.update(runs)
            .where(runs.c.id == row.id)
            .values(
                state=row.state.value,
                config=row.config,
                summary=row.summary,
                heartbeat_at_ms=_later(sa.literal(row.heartbeat_at_ms, sa.BigInteger)),
                ended_at_ms=row.ended_at_ms,
            )
        )

    async def beat(self, connection: AsyncConnection, entity_id: int, run: str, now_ms: int) -> Beat | None:
        """Keep that a run was heard of; None when it is not there, or counts as crashed, which only a change may end.

        It locks the run's row and nothing else, so runs that beat do not wait for changes.
        """
        found = await connection.execute(self._beat, {"of_entity": entity_id, "run": run, "now_ms": now_ms})
        row = found.one_or_none()
        return None if row is None else Beat(row.id, RunState(row.state))

    async def entities_with_silent_runs(self, connection: AsyncConnection, before_ms: int) -> list[str]:
        """Return the entities that have running runs which were not heard of since `before_ms`."""
        query = (
            sa.select(entities.c.name)
            .join(runs, runs.c.entity_id == entities.c.id)
            .where(runs.c.state == RunState.RUNNING.value, runs.c.heartbeat_at_ms < before_ms)
            .distinct()
        )
        return list((await connection.scalars(query)).all())

    async def mark_crashed(self, change: Change, before_ms: int, most: int) -> list[SilentRun]:
        """Mark runs of the change's entity that were not heard of since `before_ms`, at most so many, and return them.

        One statement that looks again at what it changes: a run that beats meanwhile is left alone.
        """
        silent = sa.and_(
            runs.c.entity_id == change.entity_id,
            runs.c.state == RunState.RUNNING.value,
            runs.c.heartbeat_at_ms < before_ms,
        )
        some = sa.select(runs.c.id).where(silent).order_by(runs.c.heartbeat_at_ms).limit(most)
        marked = await change.connection.execute(
            sa.update(runs)
            .where(silent, runs.c.id.in_(some))
            .values(state=RunState.CRASHED.value, ended_at_ms=runs.c.heartbeat_at_ms)
            .returning(runs.c.project_id, runs.c.name, runs.c.heartbeat_at_ms)
        )
        rows = marked.all()
        if not rows:
            return []
        named = sa.select(projects.c.id, projects.c.name).where(projects.c.entity_id == change.entity_id)
        names = {row.id: row.name for row in await change.connection.execute(named)}
        return sorted(SilentRun(names[row.project_id], row.name, row.heartbeat_at_ms) for row in rows)

    async def use(self, change: Change, run_id: int, version_id: int) -> bool:
        """Keep that a run used a version. False when that was known."""
        new = self._database.insert(run_inputs).values(run_id=run_id, version_id=version_id, used_at_ms=change.now_ms)
        added = await change.connection.execute(new.on_conflict_do_nothing(index_elements=["run_id", "version_id"]))
        return added.rowcount > 0

    async def inputs(self, connection: AsyncConnection, run_id: int, most: int) -> list[int]:
        """Return the versions that a run used and that are live, in the order of first use."""
        return await _versions_of(connection, run_inputs, run_inputs.c.used_at_ms, run_id, most)

    async def outputs(self, connection: AsyncConnection, run_id: int, most: int) -> list[int]:
        """Return the versions that a run logged and that are live, in the order of first logging."""
        return await _versions_of(connection, run_outputs, run_outputs.c.logged_at_ms, run_id, most)


def _later(now_ms: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return when a run was last heard of: who waited for a turn does not take back what others wrote meanwhile."""
    return sa.case((runs.c.heartbeat_at_ms > now_ms, runs.c.heartbeat_at_ms), else_=now_ms)


async def _versions_of(
    connection: AsyncConnection, edges: sa.Table, time_ms: sa.ColumnElement[int], run_id: int, most: int
) -> list[int]:
    query = (
        sa.select(edges.c.version_id)
        .join(versions, versions.c.id == edges.c.version_id)
        .where(edges.c.run_id == run_id, versions.c.state == VersionState.LIVE.value)
        .order_by(time_ms, edges.c.version_id)
        .limit(most)
    )
    return list((await connection.scalars(query)).all())
