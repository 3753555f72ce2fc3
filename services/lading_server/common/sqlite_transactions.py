"""Transactions of SQLite over connections that stay open: one that writes, and a few that only read.

SQLAlchemy runs the statements. To check a connection out of its pool, begin, commit and check it in takes it five times
as long as SQLite needs, so to it each connection is in one transaction for good, and the real ones are begun and ended
here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lading_server.common.direct import SqliteText, as_sqlalchemy
from lading_server.common.sqlite_connection import SqliteConnection


class CannotConnect(Exception):
    """There is no connection to read with. Its cause says why."""


class _Opened(NamedTuple):
    """A connection as SQLAlchemy has it, and what is below."""

    connection: AsyncConnection
    driver: SqliteConnection

    @property
    def is_lost(self) -> bool:
        """Whether SQLAlchemy has given it up, as it does when whoever ran a statement was cancelled meanwhile."""
        return self.connection.invalidated


class SqliteTransactions:
    """Begins and ends them. Safe for many tasks at once, but for two writers: those take turns before they come."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, readers: int) -> None:
        """`reader` gives `readers` connections at the same time, `writer` one. Nobody else may use these engines."""
        self._writer_engine = writer
        self._reader_engine = reader
        self._writer: _Opened | None = None
        self._turns = asyncio.Semaphore(readers)
        # The reader that was used last is the last, with pages that it still knows.
        self._idle: list[_Opened] = []
        self._is_closed = False

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Give the connection that writes, in a transaction that is committed at the end of the block or undone.

        Raises:
            SQLAlchemyError: Entering or leaving failed. Nothing was written.
        """
        opened = self._writer = self._writer or await _open(self._writer_engine)
        try:
            await _told(opened.driver.begin_writing(), "BEGIN")
            yield opened.connection
            await _told(opened.driver.commit(), "COMMIT")
        except BaseException:
            opened.driver.undo()
            if opened.is_lost:
                self._writer = None
                await opened.connection.close()
            raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection that sees one moment throughout. Raises CannotConnect."""
        async with self._reader() as opened:
            opened.driver.begin_reading()
            try:
                yield opened.connection
            finally:
                opened.driver.undo()

    async def fetch(self, query: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Return the rows of a query that is made once and kept. It sees one moment without a transaction, too.

        Raises:
            CannotConnect: There is no connection.
            DBAPIError: The query failed.
        """
        async with self._reader() as opened:
            return await SqliteText.of(query, self._reader_engine.dialect, parameters).rows(opened.driver, parameters)

    async def close(self) -> None:
        """Close every connection. Readers go first: whoever closes last checkpoints, and that must be the writer."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().connection.close()
        await self._reader_engine.dispose()
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.connection.close()
        await self._writer_engine.dispose()

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[_Opened]:
        async with self._turns:
            opened = self._idle.pop() if self._idle else await self._connected()
            try:
                yield opened
            finally:
                if self._is_closed or opened.is_lost:
                    await opened.connection.close()
                else:
                    # Whoever was cancelled left a query in its queue, and the next one waits for that.
                    self._idle.append(opened)

    async def _connected(self) -> _Opened:
        try:
            return await _open(self._reader_engine)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise CannotConnect from error


async def _open(engine: AsyncEngine) -> _Opened:
    connection = await engine.connect()
    # It would begin with the first statement otherwise, and Alembic would end what was not begun by it.
    await connection.begin()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    return _Opened(connection, driver)


async def _told(work: Any, sql: str) -> None:
    """Wait for a step of the driver. Raises DBAPIError."""
    try:
        await work
    except sqlite3.Error as error:
        raise as_sqlalchemy(error, sql) from error
