"""Engines, transactions and migrations for SQLite and PostgreSQL. Knows no table: each service brings its own.

On SQLite one connection writes and checkpoints, and a few others only read. Versions before 3.51.3 can lose a
transaction when two connections reset the write-ahead log at once; with one that ever checkpoints they cannot.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any
from urllib.parse import quote

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import greenlet_spawn

from lading_server.common.errors import DatabaseAway, DiskLow
from lading_server.common.sqlite_connection import SqliteConnection
from lading_server.common.sqlite_transactions import CannotConnect, SqliteTransactions

_log = logging.getLogger(__name__)

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
# How long SQLite waits for another process (a backup, a person with a shell) to let go of the file.
_BUSY_MILLISECONDS = 5_000
# Each reader is a thread; queries are short, and more threads than this only wait for the interpreter lock.
_READERS = 4
# Far below PostgreSQL's default of 100 connections, so that several replicas of both services fit.
_POSTGRES_CONNECTIONS = 12
# The same number in every process that migrates: two replicas that start together go one after the other.
_MIGRATION_LOCK = 0x4C61_6469_6E67
# serialization_failure and deadlock_detected: PostgreSQL asks for the whole transaction to be run again.
_CONFLICT_STATES = frozenset({"40001", "40P01"})

# What SQLite and PostgreSQL say when there is no space: for the file, for its shared memory; disk_full.
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_POSTGRES_FULL = "53100"

# What SQLite says while another process has the file for longer than is waited for.
_SQLITE_TAKEN = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL})
# admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections; and the class of connection exceptions.
_POSTGRES_AWAY = frozenset({"57P01", "57P02", "57P03", "53300"})
_POSTGRES_CONNECTION_CLASS = "08"

_CONNECT_ERRORS = (SQLAlchemyError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def insert_into(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that can be given ON CONFLICT."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


class DatabaseUnavailable(Exception):
    """The database cannot be opened, reached or brought up to date. The message says what an operator can do."""


@contextmanager
def told_to_callers() -> Iterator[None]:
    """Raise DatabaseAway where the block raises DatabaseUnavailable.

    What that says of SQL, hosts and paths is for the operator: it goes to the log, and to nobody who calls.
    """
    try:
        yield
    except DatabaseUnavailable as error:
        _log.error("a call failed: %s", error, exc_info=error)
        raise DatabaseAway("the server cannot reach its database just now; retry with backoff") from error


class Database:
    """One database, and the two ways to use it: `write` and `read`. Safe for many tasks at once.

    Guarantee: a write that returned is durable; one that raised left nothing. But for DatabaseUnavailable: when the
    connection is lost at the end, nobody knows whether it was committed.
    """

    def __init__(
        self, writer: AsyncEngine, reader: AsyncEngine, name: str, sqlite: SqliteTransactions | None = None
    ) -> None:
        """Use `open_database`.

        Args:
            name: How messages call the database; without its password.
            sqlite: What begins and ends transactions there, over both engines.
        """
        self._writer = writer
        self._reader = reader
        self._sqlite = sqlite
        self._name = name
        # SQLite has one writer. A lock is fair and waits as long as it takes; a pool would give up after a while.
        self._turn: asyncio.Lock | nullcontext[None] = asyncio.Lock() if sqlite is not None else nullcontext()

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._writer.dialect.name

    @property
    def sql_dialect(self) -> sa.Dialect:
        """What compiles statements for this database."""
        return self._writer.dialect

    @property
    def name(self) -> str:
        """How messages call the database."""
        return self._name

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that is committed at the end of the block, or undone if that raises.

        On SQLite writers go one at a time. On PostgreSQL they run together under READ COMMITTED, and nothing is
        repeated here: see `is_conflict`.

        Raises:
            DatabaseUnavailable: No transaction could be begun, or the connection was lost in it.
            DiskLow: There was no space for it. Nothing was written, and the next one may find some.
        """
        async with self._turn:
            try:
                begun = self._sqlite.writing() if self._sqlite is not None else self._writer.begin()
                async with self._transaction(begun) as connection:
                    yield connection
            except DBAPIError as error:
                if not is_disk_full(error):
                    raise
                raise DiskLow(
                    f"{self._name} has no space left, and nothing was changed; free some space or ask the operator, "
                    "then retry"
                ) from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that writes nothing, and sees one moment throughout.

        Raises:
            DatabaseUnavailable: No transaction could be begun, or the connection was lost in it.
        """
        begun = self._sqlite.reading() if self._sqlite is not None else self._reader.begin()
        async with self._transaction(begun) as connection:
            yield connection

    async def fetch(self, query: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Return the rows of one query: what `read` does for several, at a fraction of the cost.

        Args:
            query: Made once and kept: on SQLite its text is remembered for as long as it lives.

        Raises:
            DatabaseUnavailable: There is no connection to be had, or it was lost.
        """
        with self._noticing_losses():
            if self._sqlite is not None:
                try:
                    return await self._sqlite.fetch(query, parameters)
                except CannotConnect as error:
                    raise self._unavailable(error.__cause__ or error) from error
            return await greenlet_spawn(self._fetch, query, parameters)

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that can be given ON CONFLICT."""
        return insert_into(self.dialect, table)

    async def close(self) -> None:
        """Close every connection."""
        if self._sqlite is not None:
            await self._sqlite.close()
        else:
            await self._writer.dispose()

    def _fetch(self, query: sa.Executable, parameters: Mapping[str, Any]) -> Sequence[Any]:
        # One query sees one moment, with a transaction around it or without.
        try:
            connection = self._reader.sync_engine.connect()
        except _CONNECT_ERRORS as error:
            raise self._unavailable(error) from error
        with connection:
            return connection.execute(query, parameters).all()

    @asynccontextmanager
    async def _transaction(self, begun: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
        # Around the commit, too.
        with self._noticing_losses():
            async with AsyncExitStack() as stack:
                try:
                    connection = await stack.enter_async_context(begun)
                except _CONNECT_ERRORS as error:
                    if isinstance(error, DBAPIError) and is_disk_full(error):
                        raise
                    raise self._unavailable(error) from error
                except CannotConnect as error:
                    raise self._unavailable(error.__cause__ or error) from error
                yield connection

    @contextmanager
    def _noticing_losses(self) -> Iterator[None]:
        """Raise DatabaseUnavailable where the block found out that the database is away."""
        try:
            yield
        except DBAPIError as error:
            if not _is_away(error):
                raise
            raise self._unavailable(error) from error

    def _unavailable(self, error: BaseException) -> DatabaseUnavailable:
        return DatabaseUnavailable(_explain(self.dialect, self._name, error))


def open_database(url: str) -> Database:
    """Return the database at `url`, without opening it yet.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host/name`; with
            `+aiosqlite` or `+asyncpg` after the scheme or not.

    Raises:
        DatabaseUnavailable: The URL is none of these, or its directory cannot be used.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # What the error says may be a part of the password: one with an unescaped `@` or `/` looks like a port.
        raise DatabaseUnavailable(
            "the database URL cannot be read; write sqlite:///path/to/file.db or postgresql://user@host/name, and what "
            "is special in a password as %XX"
        ) from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise DatabaseUnavailable(
            f"databases of kind {parsed.drivername!r} are not supported; use a URL that begins with sqlite:/// "
            "or postgresql://"
        )
    parsed = parsed.set(drivername=driver)
    return _open_sqlite(parsed) if driver.startswith("sqlite") else _open_postgres(parsed)


async def migrate(database: Database, script_location: str) -> None:
    """Bring the schema up to date, in one transaction.

    One at a time in a process: Alembic keeps the migration that runs in a global. Several processes may start
    together on PostgreSQL; all but the first find nothing to do.

    Args:
        script_location: The migrations, as `package.module:directory`.

    Raises:
        DatabaseUnavailable: The database cannot be used, or is newer than this program.
    """
    config = Config()
    config.set_main_option("script_location", script_location)
    config.set_main_option("path_separator", "os")

    def upgrade(connection: sa.Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        try:
            await connection.run_sync(upgrade)
        except CommandError as error:
            raise DatabaseUnavailable(
                f"{database.name} was written by a newer version of this program, or belongs to another ({error}); "
                "update the program, or give it a database of its own"
            ) from error
        except DBAPIError as error:
            raise DatabaseUnavailable(
                f"{database.name} could not be brought up to date: {error.orig}; nothing was changed"
            ) from error


def is_conflict(error: DBAPIError) -> bool:
    """Tell whether PostgreSQL undid the transaction because of another one, so that running it again may succeed."""
    return getattr(error.orig, "sqlstate", None) in _CONFLICT_STATES


def is_disk_full(error: DBAPIError) -> bool:
    """Tell whether the database had no space for what it was to write."""
    cause = error.orig
    return (
        getattr(cause, "sqlite_errorcode", None) in _SQLITE_FULL or getattr(cause, "sqlstate", None) == _POSTGRES_FULL
    )


def _is_away(error: DBAPIError) -> bool:
    """Tell whether the connection was lost, or another process has the file: nothing is wrong with what was asked."""
    code, state = getattr(error.orig, "sqlite_errorcode", None), getattr(error.orig, "sqlstate", None)
    if code is not None:
        # The lowest byte is the kind; what is above it says more.
        return code & 0xFF in _SQLITE_TAKEN
    is_state = state is not None and (state in _POSTGRES_AWAY or state.startswith(_POSTGRES_CONNECTION_CLASS))
    return error.connection_invalidated or is_state


def _open_sqlite(url: URL) -> Database:
    if not url.database or url.database == ":memory:":
        raise DatabaseUnavailable("a SQLite database needs a file; write sqlite:///path/to/file.db")
    path = url.database
    directory = os.path.dirname(os.path.abspath(path))
    # Asked here and not left to the driver: when an open fails, its thread outlives the event loop and complains.
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise DatabaseUnavailable(_explain("sqlite", f"database {path}", OSError("unable to open database file")))
    url = URL.create(url.drivername, database=path)
    writer = create_async_engine(
        url,
        async_creator=partial(SqliteConnection.open, path),
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
    )
    reader = create_async_engine(
        url,
        async_creator=partial(_connect_sqlite_reader, path),
        pool_size=_READERS,
        max_overflow=0,
        hide_parameters=True,
    )
    sa.event.listen(writer.sync_engine, "connect", _prepare_sqlite_writer)
    return Database(writer, reader, f"database {path}", SqliteTransactions(writer, reader, _READERS))


def _open_postgres(url: URL) -> Database:
    engine = create_async_engine(
        url,
        pool_size=_POSTGRES_CONNECTIONS,
        max_overflow=0,
        # A server that was restarted leaves dead connections in the pool.
        pool_pre_ping=True,
        hide_parameters=True,
        # Compiling a query takes longer than any of ours runs.
        connect_args={"server_settings": {"application_name": "lading", "jit": "off"}},
    )
    # Of several statements of a read, one goes on where another ended: that is one place only at one moment. READ ONLY,
    # such a transaction never conflicts with another, so nobody has to run it again.
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    # What follows `?` may hold a password too.
    shown = url.set(query={name: value for name, value in url.query.items() if name in ("host", "port")})
    return Database(engine, reader, f"database {shown.render_as_string(hide_password=True)}")


def _prepare_sqlite_writer(connection: Any, _record: object) -> None:
    mode = _set_pragmas(
        connection,
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "synchronous = FULL",
        "foreign_keys = ON",
        "journal_mode = WAL",
    )
    if mode != "wal":
        connection.close()
        raise sqlite3.OperationalError("its file system does not support write-ahead logging; choose a local one")


async def _connect_sqlite_reader(path: str) -> SqliteConnection:
    """Connect to a database that there is, to read. Raises sqlite3.Error."""
    connection = await SqliteConnection.open(f"file:{quote(path)}?mode=ro", uri=True)
    try:
        for pragma in (f"busy_timeout = {_BUSY_MILLISECONDS}", "query_only = ON", "wal_autocheckpoint = 0"):
            await connection.rows(f"PRAGMA {pragma}", ())
    except BaseException:
        await connection.close()
        raise
    return connection


def _set_pragmas(connection: Any, *pragmas: str) -> object:
    """Set pragmas and return what the last one answered."""
    cursor = connection.cursor()
    try:
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        (answer,) = cursor.fetchone()
    except BaseException:
        # The pool forgets a connection whose preparation failed, and its thread would wait for ever.
        connection.close()
        raise
    cursor.close()
    return answer


def _explain(dialect: str, name: str, error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause) or type(cause).__name__
    if dialect == "postgresql":
        return f"{name} cannot be used: {text}; check that the server runs there, the name, the user and the password"
    if "locked" in text:
        return f"{name} is in use by another process; stop that one, or choose another directory"
    if "unable to open" in text:
        return f"{name} cannot be opened; check that its directory exists and that this user may write to it"
    if "readonly" in text:
        return f"{name} cannot be written to; check the owner and permissions of the file and its directory"
    if "not a database" in text:
        return f"{name} is not a SQLite database; move the file away or choose another"
    return f"{name} cannot be used: {text}"
