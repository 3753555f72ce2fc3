"""Every statement that a database is given, whichever way it goes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import sqlalchemy as sa

from lading_server.common.database import Database
from lading_server.common.sqlite_connection import SqliteConnection, SqliteCursor

# What takes a text and its values. Statements of SQLAlchemy's come to the cursor, and those that run often do not.
_WAYS = (
    (SqliteConnection, "rows"),
    (SqliteConnection, "run"),
    (SqliteConnection, "run_later"),
    (SqliteCursor, "execute"),
    (SqliteCursor, "executemany"),
)


class Statement(NamedTuple):
    """A text, and its values as the driver is given them."""

    text: str
    values: Any


@contextmanager
def noted_statements(database: Database) -> Iterator[list[Statement]]:
    """Note statements for the length of the block, in order; on SQLite those of each database of the process."""
    seen: list[Statement] = []
    with ExitStack() as stack:
        if database.dialect == "postgresql":
            _listen(stack, database, seen)
        else:
            for owner, name in _WAYS:
                stack.enter_context(patch.object(owner, name, _noting(getattr(owner, name), seen)))
        yield seen


def _listen(stack: ExitStack, database: Database, seen: list[Statement]) -> None:
    def note(_connection: object, _cursor: object, text: str, values: Any, *_rest: object) -> None:
        seen.append(Statement(text, values))

    event = (database._writer.sync_engine, "before_cursor_execute", note)
    sa.event.listen(*event)
    stack.callback(sa.event.remove, *event)


def _noting(method: Any, seen: list[Statement]) -> Any:
    def noting(self: object, sql: str, values: Any = ()) -> Any:
        seen.append(Statement(sql, values))
        return method(self, sql, values)

    return noting
