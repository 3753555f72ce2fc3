"""Which runs used and logged which versions, asked for many at once."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import Database
from lading_server.registry.store.rows import RunRow, VersionRow
from lading_server.registry.store.runs import run_row, select_runs
from lading_server.registry.store.schema import VersionState, run_inputs, run_outputs, runs, versions
from lading_server.registry.store.versions import brief, select_versions, version_row

_LIVE = versions.c.state == VersionState.LIVE.value


class RunEdge(NamedTuple):
    """A run and a version that it used, or logged, by the numbers of their rows."""

    run_id: int
    version_id: int


class LineageQueries:
    """Follows edges of many nodes at once. Safe for many tasks; each call uses the connection that it is given.

    Nodes are numbers of rows. Answers are sorted, without repetition, at most `most`; deleted versions are never in
    them, whatever a run did with them.
    """

    def __init__(self, database: Database) -> None:
        self._dialect = database.dialect
        self._versions = brief(select_versions())
        self._runs = brief(select_runs())

    async def runs_that_logged(self, connection: AsyncConnection, version_ids: Collection[int], most: int) -> list[int]:
        """Return the runs that logged any of these versions."""
        return await self._runs_of(connection, run_outputs, version_ids, most)

    async def runs_that_used(self, connection: AsyncConnection, version_ids: Collection[int], most: int) -> list[int]:
        """Return the runs that used any of these versions."""
        return await self._runs_of(connection, run_inputs, version_ids, most)

    async def used_by(self, connection: AsyncConnection, run_ids: Collection[int], most: int) -> list[int]:
        """Return the versions that any of these runs used."""
        return await self._versions_of(connection, run_inputs, run_ids, most)

    async def logged_by(self, connection: AsyncConnection, run_ids: Collection[int], most: int) -> list[int]:
        """Return the versions that any of these runs logged."""
        return await self._versions_of(connection, run_outputs, run_ids, most)

    async def with_links(self, connection: AsyncConnection, version_ids: Collection[int], most: int) -> list[int]:
        """Return these versions, the sources of those that are links, and every link to any of them."""
        wanted = self._table(version_ids)
        origin = sa.func.coalesce(versions.c.source_id, versions.c.id).label("id")
        origins = sa.select(origin).join(wanted, wanted.c.value == versions.c.id).distinct().cte("origins")
        sources = sa.select(versions.c.id).join(origins, origins.c.id == versions.c.id).where(_LIVE)
        links = sa.select(versions.c.id).join(origins, origins.c.id == versions.c.source_id).where(_LIVE)
        either = sources.union(links).subquery()
        query = sa.select(either.c.id).order_by(either.c.id).limit(most)
        return list((await connection.scalars(query)).all())

    async def edges_used(
        self, connection: AsyncConnection, run_ids: Collection[int], version_ids: Collection[int], most: int
    ) -> list[RunEdge]:
        """Return which of these runs used which of these versions."""
        return await self._edges(connection, run_inputs, run_ids, version_ids, most)

    async def edges_logged(
        self, connection: AsyncConnection, run_ids: Collection[int], version_ids: Collection[int], most: int
    ) -> list[RunEdge]:
        """Return which of these runs logged which of these versions."""
        return await self._edges(connection, run_outputs, run_ids, version_ids, most)

    async def versions(self, connection: AsyncConnection, version_ids: Collection[int]) -> dict[int, VersionRow]:
        """Return versions without card and metadata, by the number of their row."""
        wanted = self._table(version_ids)
        rows = await connection.execute(self._versions.join(wanted, wanted.c.value == versions.c.id))
        return {row.id: version_row(row) for row in rows}

    async def runs(self, connection: AsyncConnection, run_ids: Collection[int]) -> dict[int, RunRow]:
        """Return runs without config and summary, by the number of their row."""
        wanted = self._table(run_ids)
        rows = await connection.execute(self._runs.join(wanted, wanted.c.value == runs.c.id))
        return {row.id: run_row(row) for row in rows}

    async def _runs_of(
        self, connection: AsyncConnection, edges: sa.Table, version_ids: Collection[int], most: int
    ) -> list[int]:
        wanted = self._table(version_ids)
        query = sa.select(edges.c.run_id).join(wanted, wanted.c.value == edges.c.version_id).distinct()
        return list((await connection.scalars(query.order_by(edges.c.run_id).limit(most))).all())

    async def _versions_of(
        self, connection: AsyncConnection, edges: sa.Table, run_ids: Collection[int], most: int
    ) -> list[int]:
        wanted = self._table(run_ids)
        query = (
            sa.select(edges.c.version_id)
            .join(wanted, wanted.c.value == edges.c.run_id)
            .join(versions, versions.c.id == edges.c.version_id)
            .where(_LIVE)
            .distinct()
        )
        return list((await connection.scalars(query.order_by(edges.c.version_id).limit(most))).all())

    async def _edges(
        self,
        connection: AsyncConnection,
        edges: sa.Table,
        run_ids: Collection[int],
        version_ids: Collection[int],
        most: int,
    ) -> list[RunEdge]:
        of_runs, of_versions = self._table(run_ids, "of_runs"), self._table(version_ids, "of_versions")
        query = (
            sa.select(edges.c.run_id, edges.c.version_id)
            .join(of_runs, of_runs.c.value == edges.c.run_id)
            .where(edges.c.version_id.in_(sa.select(of_versions.c.value)))
            .order_by(edges.c.run_id, edges.c.version_id)
            .limit(most)
        )
        return [RunEdge(*row) for row in await connection.execute(query)]

    def _table(self, ids: Collection[int], name: str = "wanted") -> sa.FromClause:
        """Return a table with one column, `value`, made of numbers that are passed in as one parameter."""
        column = sa.column("value", sa.BigInteger)
        if self._dialect == "postgresql":
            array = sa.bindparam(None, list(ids), type_=postgresql.ARRAY(sa.BigInteger))
            return sa.func.unnest(array).table_valued(column, name=name).render_derived()
        return sa.func.json_each(json.dumps(list(ids))).table_valued(column, name=name)
