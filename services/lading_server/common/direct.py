"""Statements that are run often, past what SQLAlchemy does at each execution. Knows no table.

SQLAlchemy writes them, as it does all others. On SQLite their text is made once, and then given to the connection
itself: SQLAlchemy's own way there takes several times the processor that SQLite takes for a query of one row. On
PostgreSQL a statement waits for the network, and goes the usual way.

Each function takes a statement that is made once and kept, because its text is remembered for as long as it lives. All
of its parameters have names, and an INSERT has those of the columns that the first rows bring.
"""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.sqlite_connection import SqliteConnection

_Parameters = Mapping[str, Any]
# Its names are known when the statement is.
_row_type: Any = namedtuple


async def rows_of(connection: AsyncConnection, statement: sa.Executable, parameters: _Parameters) -> Sequence[Any]:
    """Return all rows, which are few, with their columns as attributes. Raises DBAPIError."""
    driver = _sqlite(connection)
    if driver is None:
        return (await connection.execute(statement, parameters)).all()
    return await SqliteText.of(statement, connection.dialect, parameters).rows(driver, parameters)


async def row_of(connection: AsyncConnection, statement: sa.Executable, parameters: _Parameters) -> Any:
    """Return the one row, or None. Raises DBAPIError."""
    rows = await rows_of(connection, statement, parameters)
    if len(rows) > 1:
        raise AssertionError("a query for one row found several")
    return rows[0] if rows else None


async def count_of(connection: AsyncConnection, statement: sa.Executable, parameters: _Parameters) -> int:
    """Run a statement and return how many rows it changed. Raises DBAPIError."""
    driver = _sqlite(connection)
    if driver is None:
        return (await connection.execute(statement, parameters)).rowcount
    return await SqliteText.of(statement, connection.dialect, parameters).run(driver, parameters)


async def leave(connection: AsyncConnection, statement: sa.Executable, rows: Sequence[_Parameters]) -> None:
    """Run a statement for each of the rows, all of which have the same parameters.

    Nobody is told what it came to. On SQLite it is run before the next statement or the commit, and its error is the
    error of that; where there is neither, the transaction is undone, and it is never run.

    Raises:
        DBAPIError: Of PostgreSQL.
    """
    driver = _sqlite(connection)
    if driver is None:
        await connection.execute(statement, list(rows))
    else:
        SqliteText.of(statement, connection.dialect, rows[0]).run_later(driver, rows)


async def leave_text(connection: AsyncConnection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """As `leave`, with the text of a statement, which has its parameters in the order of each row."""
    driver = _sqlite(connection)
    if driver is None:
        await connection.exec_driver_sql(sql, list(rows))
    else:
        driver.run_later(sql, rows)


def as_sqlalchemy(error: sqlite3.Error, sql: str) -> BaseException:
    """Return the error as SQLAlchemy would raise it. Parameters are not told: they may be secrets."""
    return DBAPIError.instance(sql, None, error, sqlite3.Error, hide_parameters=True)


# What was made for each statement that still lives. The same for every database of the process.
_made: WeakKeyDictionary[sa.Executable, SqliteText] = WeakKeyDictionary()


class SqliteText:
    """What a statement is on SQLite: its text, the order of its parameters, and what its rows are made of."""

    @classmethod
    def of(cls, statement: sa.Executable, dialect: sa.Dialect, parameters: _Parameters) -> SqliteText:
        """Return the text of a statement, made at the first time. `parameters`: at least their names."""
        made = _made.get(statement)
        if made is None:
            made = _made[statement] = cls(statement, dialect, parameters)
        return made

    def __init__(self, statement: sa.Executable, dialect: sa.Dialect, parameters: _Parameters) -> None:
        """Use `of`."""
        selectable: Any = statement
        compiled = self._compiled = selectable.compile(dialect=dialect, column_keys=list(parameters))
        self._sql = str(compiled)
        self._has_lists = bool(compiled.post_compile_params)
        self._order: Sequence[str] = compiled.positiontup
        self._names = frozenset(self._order)
        # What the statement itself says, where it is no part of the text.
        self._constants = {name: compiled.params[name] for name in self._order if not compiled.binds[name].required}
        columns = selectable.exported_columns
        self._row = _row_type("Row", [column.key for column in columns], rename=True)._make
        to_python = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._to_python = to_python if any(to_python) else None
        # SQLite takes bytes as they are.
        types = {name: compiled.binds[name].type for name in self._order}
        to_sql = {
            name: type_.dialect_impl(dialect).bind_processor(dialect)
            for name, type_ in types.items()
            if not isinstance(type_, sa.LargeBinary)
        }
        self._to_sql = {name: convert for name, convert in to_sql.items() if convert is not None}

    async def rows(self, driver: SqliteConnection, parameters: _Parameters) -> list[Any]:
        """Return all rows. Raises DBAPIError."""
        sql, values = self._values(parameters)
        try:
            rows = await driver.rows(sql, values)
        except sqlite3.Error as error:
            raise as_sqlalchemy(error, sql) from error
        if self._to_python is not None:
            columns = self._to_python
            rows = [
                [value if convert is None else convert(value) for convert, value in zip(columns, row, strict=True)]
                for row in rows
            ]
        return [*map(self._row, rows)]

    async def run(self, driver: SqliteConnection, parameters: _Parameters) -> int:
        """Return how many rows were changed. Raises DBAPIError."""
        sql, values = self._values(parameters)
        try:
            return await driver.run(sql, values)
        except sqlite3.Error as error:
            raise as_sqlalchemy(error, sql) from error

    def run_later(self, driver: SqliteConnection, rows: Sequence[_Parameters]) -> None:
        """See `leave`."""
        if self._has_lists:
            raise AssertionError("a statement with lists has another text for each length")
        driver.run_later(self._sql, [self._values(parameters)[1] for parameters in rows])

    def _values(self, parameters: _Parameters) -> tuple[str, list[Any]]:
        """Return the text and its parameters in order."""
        sql, order = self._sql, self._order
        given = {**self._constants, **parameters} if self._constants else parameters
        if given.keys() != self._names:
            # An INSERT would leave out a column that its first rows did not have.
            raise AssertionError(f"the statement has the parameters {sorted(self._names)} and is given {sorted(given)}")
        if self._to_sql:
            given = {**given, **{name: convert(given[name]) for name, convert in self._to_sql.items()}}
        if self._has_lists:
            expanded = self._compiled.construct_expanded_state(given)
            sql, order, given = expanded.statement, expanded.positiontup, expanded.parameters
        return sql, [given[name] for name in order]


def _sqlite(connection: AsyncConnection) -> SqliteConnection | None:
    """Return the connection itself, where it is one of SQLite."""
    driver: object = connection.sync_connection.connection.driver_connection if connection.sync_connection else None
    return driver if isinstance(driver, SqliteConnection) else None
