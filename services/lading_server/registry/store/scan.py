"""Pages of rows that pass a filter, in an order, at a bounded cost. Knows no table.

Neither way of doing this is always good: to walk an index in order and filter is slow where few rows pass, and to
collect what passes and sort it is slow where many do. So what passes is counted first, up to a bound, and then the
cheaper of the two is done. A walk looks at a bounded number of rows and gives a short page rather than a late one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.page_tokens import check_position, foreign_token

# So many rows are collected and sorted in some ten milliseconds; where more pass, one in two hundred of a million rows
# does, and a walk finds a page of them in the same time. One through rows that lie apart takes longer for each.
_MOST_SORTED = 5_000
_MOST_SORTED_APART = 20_000
# Unless they all lie at the far end. A walk that found too little in so many rows asks once more whether what passes
# can be sorted, now in some hundred milliseconds.
_PATIENCE = 20_000
_MOST_SORTED_LATE = 50_000
# Rows of the first window of a walk for each that is wanted, and the least and the most of a window.
_WINDOW_FACTOR = 2
_MIN_WINDOW = 250
_MAX_WINDOW = 32_000
# What one page looks at: some hundred milliseconds.
_MOST_WALKED = 50_000

Columns = sa.ColumnCollection[str, Any]
Filters = Callable[[Columns], Sequence[sa.ColumnElement[bool]]]
Position = tuple[Any, ...]
"""Where a listing goes on: the number of a stage, and the keys of the last row that was seen in it."""


class Stage(NamedTuple):
    """A part of an order, all of whose rows come before those of the next stage.

    Attributes:
        rows: A SELECT of the rows, with a column `id` and those that filters use.
        bounds: What a walk adds to it, to be in one entity and to begin in the right place of an index.
        filters: Makes the conditions that rows have to pass from the columns of `rows`.
        keys: What the rows are sorted by; together they are unique. None is NULL.
        indexed: How many of the keys, from the first, are in the index that a walk follows.
        descending: Whether all of the keys go down.
        lies_apart: Whether rows that follow each other are far from each other in their table.
        ties: What is added to `rows` where picked ones are sorted, to find what belongs to each.
    """

    rows: sa.Select[Any]
    bounds: Sequence[sa.ColumnElement[bool]]
    filters: Filters
    keys: Sequence[sa.ColumnElement[Any]]
    indexed: int
    descending: bool
    lies_apart: bool = False
    ties: Sequence[sa.ColumnElement[bool]] = ()


class Hit(NamedTuple):
    """A row that was found, and where it stands."""

    row_id: int
    position: Position


class Hits(NamedTuple):
    """A page: what was found, and where the next page begins; None when this is the last."""

    hits: list[Hit]
    next: Position | None


class Scan:
    """One listing.

    Each of `sources` selects ids of rows, of the entity that is meant, and whatever passes the filters is in each.
    """

    def __init__(self, stages: Sequence[Stage], sources: Sequence[sa.Select[Any]] = ()) -> None:
        self._stages = stages
        self._sources = sources

    async def page(self, connection: AsyncConnection, after: Position | None, limit: int) -> Hits:
        """Return up to `limit` rows after a position; fewer where looking for more would take long.

        Args:
            connection: One of `Database.read`: where a window ends is asked after what is in it, of the same moment.

        Raises:
            InvalidPageToken: The position is not one that such a listing has.
        """
        number, keys = self._begin(after)
        most_sorted = _MOST_SORTED_APART if self._stages[0].lies_apart else _MOST_SORTED
        picked = await _fewest(connection, self._sources, most_sorted)
        hits: list[Hit] = []
        window, walked, is_patient = min(max(_WINDOW_FACTOR * limit, _MIN_WINDOW), _MAX_WINDOW), 0, True
        while number < len(self._stages):
            end: Position | None = None
            wanted = limit + 1 - len(hits)
            if picked is not None:
                found = await self._sort(connection, picked, number, keys, wanted)
            else:
                found = await self._walk(connection, number, keys, wanted, window)
                if len(found) < wanted:
                    end = await self._window_end(connection, number, keys, window)
            hits += found
            if len(hits) > limit:
                return Hits(hits[:limit], hits[limit - 1].position)
            if end is None:
                number, keys = number + 1, ()
                continue
            walked += window
            if walked >= _MOST_WALKED:
                return Hits(hits, end)
            keys = end[1:]
            window = min(4 * window, _MAX_WINDOW)
            if is_patient and walked >= _PATIENCE:
                is_patient = False
                picked = await _fewest(connection, self._sources, _MOST_SORTED_LATE)
        return Hits(hits, None)

    def _begin(self, after: Position | None) -> tuple[int, Position]:
        if after is None:
            return 0, ()
        check_position(after[:1], [int])
        number, keys = after[0], after[1:]
        if not 0 <= number < len(self._stages):
            raise foreign_token()
        check_position(keys, [key.type.python_type for key in self._stages[number].keys])
        return number, keys

    async def _sort(
        self, connection: AsyncConnection, source: sa.Select[Any], number: int, after: Position, wanted: int
    ) -> list[Hit]:
        stage = self._stages[number]
        # Materialized, or PostgreSQL may prefer the order to the few rows.
        picked = source.cte("picked").prefix_with("MATERIALIZED")
        rows = _keyed(stage, every_column=False).where(
            stage.rows.selected_columns["id"].in_(sa.select(picked.c.id)),
            *stage.ties,
            *stage.filters(stage.rows.selected_columns),
            *_after(stage, after),
        )
        return await self._hits(connection, number, rows.order_by(*_sorting(stage.keys, stage)).limit(wanted))

    async def _walk(
        self, connection: AsyncConnection, number: int, after: Position, wanted: int, window: int
    ) -> list[Hit]:
        stage = self._stages[number]
        # A subquery with a LIMIT is a wall to both planners: the rows are read in order, and then looked at.
        rows = _in_order(stage, after).limit(window).subquery("walked")
        keys = [rows.c[f"key_{at}"] for at in range(len(stage.keys))]
        query = sa.select(rows.c.id, *keys).where(*stage.filters(rows.c))
        return await self._hits(connection, number, query.order_by(*_sorting(keys, stage)).limit(wanted))

    async def _window_end(
        self, connection: AsyncConnection, number: int, after: Position, window: int
    ) -> Position | None:
        """Return where the last row of a window stands; None when the stage has no further rows."""
        rows = _in_order(self._stages[number], after).subquery("walked")
        keys = [rows.c[f"key_{at}"] for at in range(len(self._stages[number].keys))]
        row = (await connection.execute(sa.select(*keys).limit(1).offset(window - 1))).one_or_none()
        return None if row is None else (number, *row)

    async def _hits(self, connection: AsyncConnection, number: int, query: sa.Select[Any]) -> list[Hit]:
        return [Hit(row[0], (number, *row[1:])) for row in await connection.execute(query)]


async def _fewest(connection: AsyncConnection, sources: Sequence[sa.Select[Any]], most: int) -> sa.Select[Any] | None:
    """Return the source with the fewest rows; None when each has more than `most`, or there is none."""
    best, fewest = None, most + 1
    for source in sources:
        # No source is counted further than the best so far.
        count = sa.select(sa.func.count()).select_from(source.limit(fewest).subquery("counted"))
        rows = (await connection.execute(count)).scalar_one()
        if rows < fewest:
            best, fewest = source, rows
    return best


def exists(table: sa.FromClause, *terms: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return whether `table` has a row for which the terms hold; every other table in them is of the rows filtered."""
    return sa.select(sa.literal(1)).select_from(table).where(*terms).correlate_except(table).exists()


def _keyed(stage: Stage, *, every_column: bool = True) -> sa.Select[Any]:
    keys = [key.label(f"key_{at}") for at, key in enumerate(stage.keys)]
    if every_column:
        return stage.rows.add_columns(*keys)
    return stage.rows.with_only_columns(stage.rows.selected_columns["id"], *keys, maintain_column_froms=True)


def _in_order(stage: Stage, after: Position) -> sa.Select[Any]:
    return _keyed(stage).where(*stage.bounds, *_after(stage, after)).order_by(*_sorting(stage.keys, stage))


def _sorting(keys: Sequence[sa.ColumnElement[Any]], stage: Stage) -> list[sa.ColumnElement[Any]]:
    return [key.desc() if stage.descending else key.asc() for key in keys]


def _after(stage: Stage, position: Position) -> list[sa.ColumnElement[bool]]:
    if not position:
        return []
    values = [sa.literal(value, key.type) for value, key in zip(position, stage.keys, strict=True)]
    here, there = sa.tuple_(*stage.keys), sa.tuple_(*values)
    beyond = here < there if stage.descending else here > there
    if stage.indexed == len(stage.keys):
        return [beyond]
    # Keys of several tables are in no index together; those of the first say where to begin.
    first, start = sa.tuple_(*stage.keys[: stage.indexed]), sa.tuple_(*values[: stage.indexed])
    return [first <= start if stage.descending else first >= start, beyond]
