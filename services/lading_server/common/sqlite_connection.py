"""SQLite for asyncio, with one visit to the connection's thread for each statement, or less. Knows no SQL but BEGIN.

A visit costs two switches of threads, which is several times what a query of one row takes. aiosqlite makes one each
for the cursor, the statement, its rows and the cursor's end, and more around a transaction: nine for a resolve. A
statement whose outcome nobody asks for needs no visit of its own: it goes with the next one, or with the commit.

What SQLAlchemy asks of an aiosqlite connection and its cursors is what these have: see `async_creator` of
`create_async_engine`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import closing
from queue import SimpleQueue
from typing import Any, Self

# Rows that come with their statement: more than nearly all of ours have. Others are fetched when they are asked for.
_ROWS_AT_ONCE = 256

_Work = tuple["asyncio.Future[Any] | None", Callable[[], Any]]
_Step = Callable[[sqlite3.Connection], Any]


class SqliteConnection:
    """A connection and its thread. What it is asked for is done in that order. Transactions are begun by its user."""

    def __init__(self, connection: sqlite3.Connection | None = None) -> None:
        """Use `open`."""
        # SQLAlchemy looks whether it is there before it ends a transaction.
        self._connection = connection
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        # A connection that nobody closed must not keep the process.
        threading.Thread(target=_serve, args=(self._queue,), name="sqlite", daemon=True).start()
        self._begin = ""
        self._is_reading = False
        # Told before the thread is: whoever is cancelled meanwhile does not know what it came to.
        self._is_writing = False
        # What the next visit does first.
        self._standing_out: list[_Step] = []

    @classmethod
    async def open(cls, database: str, *, uri: bool = False) -> Self:
        """Connect. The driver begins no transaction. Arguments and errors as sqlite3.connect has them."""
        made = cls()
        try:
            made._connection = await made.visit(lambda: sqlite3.connect(database, isolation_level=None, uri=uri))
        except BaseException:
            made._queue.put(None)
            raise
        return made

    @property
    def isolation_level(self) -> None:
        """None: see `open`."""

    def begin_reading(self) -> None:
        """Have the next statement begin a transaction that only reads. Its end is not waited for."""
        self._begin = "BEGIN"

    async def begin_writing(self) -> None:
        """Begin a transaction that writes. Nobody else can begin one until it has ended."""
        self._is_writing = True
        # A transaction that reads first and writes later could fail half-way when another process wrote in between.
        await self.visit(self.beginning(lambda connection: _run(connection, "BEGIN IMMEDIATE", ())))

    async def rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """Return all rows of a statement, which are few."""
        rows: list[Any] = await self.visit(self.beginning(lambda connection: _all_rows(connection, sql, parameters)))
        return rows

    async def run(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run a statement that returns no rows, and return how many it changed."""
        return int(await self.visit(self.beginning(lambda connection: _run(connection, sql, parameters))))

    def run_later(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Have a statement run with each of these parameters, before whatever is asked for next.

        Its error is raised by that, a commit too. Where a rollback comes first, it is never run.
        """
        self._standing_out.append(lambda connection: _run_many(connection, sql, parameters))

    def cursor(self) -> SqliteCursor:
        """Return a cursor, which may be awaited or entered."""
        return SqliteCursor(self)

    async def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if not self._ended_reading():
            await self.visit(self.beginning(lambda connection: connection.commit()))
            self._is_writing = False

    async def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        self.undo()

    def undo(self) -> None:
        """Have the transaction undone, if there is one. What is asked for next comes after that."""
        self._standing_out.clear()
        connection = self._connection
        if connection is None or self._ended_reading():
            return
        if self._is_writing or connection.in_transaction:
            self._queue.put((None, connection.rollback))
            self._is_writing = False

    async def create_function(self, *args: Any, **kwargs: Any) -> None:
        """See sqlite3.Connection."""
        connection = self._alive()
        await self.visit(lambda: connection.create_function(*args, **kwargs))

    async def close(self) -> None:
        """Close it when all that was asked for is done. Does nothing when it is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await self.visit(connection.close)
            finally:
                self._queue.put(None)

    def stop(self) -> None:
        """Have it closed, without waiting for that."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._queue.put((None, connection.close))
            self._queue.put(None)

    async def visit(self, function: Callable[[], Any]) -> Any:
        """Return what the function returns in the connection's thread."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put((future, function))
        return await future

    def beginning(self, function: _Step) -> Callable[[], Any]:
        """Return what does this in the thread, after the BEGIN and the statements that stand out."""
        connection = self._alive()
        begin, self._begin = self._begin, ""
        if begin:
            self._is_reading = True
            self._standing_out.insert(0, lambda connection: _run(connection, begin, ()))
        if not self._standing_out:
            return lambda: function(connection)
        steps, self._standing_out = self._standing_out, []

        def all_steps() -> Any:
            for step in steps:
                step(connection)
            return function(connection)

        return all_steps

    def _ended_reading(self) -> bool:
        """End a transaction that only reads, if this is one."""
        if self._begin:
            self._begin = ""
            return True
        if not self._is_reading:
            return False
        self._is_reading = False
        self._queue.put((None, self._alive().rollback))
        return True

    def _alive(self) -> sqlite3.Connection:
        if self._connection is None:
            # SQLAlchemy knows by this text that the connection cannot be used again.
            raise sqlite3.OperationalError("no active connection")
        return self._connection


class SqliteCursor:
    """A statement, its first rows, and a way to the others."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        # There while rows may be left that were not fetched.
        self._open: sqlite3.Cursor | None = None
        self._rows: deque[Any] = deque()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def execute(self, sql: str, parameters: Any = ()) -> Self:
        """Run a statement."""
        return await self._run(lambda cursor: cursor.execute(sql, parameters))

    async def executemany(self, sql: str, parameters: Any) -> Self:
        """Run a statement with each of these parameters."""
        return await self._run(lambda cursor: cursor.executemany(sql, parameters))

    async def fetchone(self) -> Any:
        """Return the next row, or None."""
        rows = await self.fetchmany(1)
        return rows[0] if rows else None

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        """Return the next rows, `size` or `arraysize` of them where so many are left."""
        size = size or self.arraysize
        if len(self._rows) < size:
            await self._fetch(size)
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    async def fetchall(self) -> Sequence[Any]:
        """Return all other rows."""
        await self._fetch(None)
        rows, self._rows = list(self._rows), deque()
        return rows

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (row := await self.fetchone()) is not None:
            yield row

    async def close(self) -> None:
        """Forget the rows. Visits the thread only where some were not fetched."""
        self._rows.clear()
        cursor, self._open = self._open, None
        if cursor is not None:
            await self._connection.visit(cursor.close)

    async def _run(self, start: Callable[[sqlite3.Cursor], object]) -> Self:
        await self.close()

        def run(connection: sqlite3.Connection) -> None:
            cursor = connection.cursor()
            try:
                start(cursor)
            except BaseException:
                # The error's traceback has it: a statement that was not ended would keep the file open with it.
                cursor.close()
                raise
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
            if cursor.description is not None:
                self._take(cursor, _ROWS_AT_ONCE)
            # A DELETE with RETURNING knows how many rows there were when the last was fetched.
            self.rowcount = cursor.rowcount

        await self._connection.visit(self._connection.beginning(run))
        return self

    async def _fetch(self, limit: int | None) -> None:
        """Fetch rows, if there may be more."""
        if (cursor := self._open) is not None:
            await self._connection.visit(lambda: self._take(cursor, limit))

    def _take(self, cursor: sqlite3.Cursor, limit: int | None) -> None:
        """Fetch rows; in the connection's thread. A cursor that has no more is closed."""
        rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        self._rows.extend(rows)
        if limit is None or len(rows) < limit:
            cursor.close()
            self._open = None
        else:
            self._open = cursor


# A statement that was not ended would keep the file open after the connection is closed, for as long as there is a
# cursor of it: in the traceback of an error, too.


def _all_rows(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[Any]:
    with closing(connection.cursor()) as cursor:
        return cursor.execute(sql, parameters).fetchall()


def _run(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> int:
    with closing(connection.cursor()) as cursor:
        return cursor.execute(sql, parameters).rowcount


def _run_many(connection: sqlite3.Connection, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
    with closing(connection.cursor()) as cursor:
        cursor.executemany(sql, parameters)


def _serve(queue: SimpleQueue[_Work | None]) -> None:
    while (work := queue.get()) is not None:
        future, function = work
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            _tell(future, _fail, error)
        else:
            _tell(future, _succeed, result)
        # Otherwise what was asked for last is kept until the next visit.
        del work, future, function


def _tell(future: asyncio.Future[Any] | None, tell: Callable[[asyncio.Future[Any], Any], None], what: object) -> None:
    if future is not None:
        future.get_loop().call_soon_threadsafe(tell, future, what)


def _succeed(future: asyncio.Future[Any], result: object) -> None:
    # Whoever waited may have been cancelled.
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
