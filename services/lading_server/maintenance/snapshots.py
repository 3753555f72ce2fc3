"""A database at one moment, as a SQLite file, while others write to it; and such a file into PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import migrate, open_database
from lading_server.common.unfinished import sync_file
from lading_server.maintenance.aside import move_tables_aside
from lading_server.maintenance.halves import VERSION_TABLE, Half, MaintenanceRefused, Places

# Rows that are in memory at once.
_ROWS = 1000


async def take_snapshot(places: Places, half: Half, target: Path) -> None:
    """Write the half's database as it is at one moment to a new file, durably.

    Raises:
        MaintenanceRefused: There is no database, or one of another version of this program.
        DatabaseUnavailable, sqlite3.Error, OSError: It cannot be read, or the file not be written.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    path = places.sqlite_path(half)
    if path is not None:
        _copy_sqlite(path, target)
    else:
        await _copy_from_postgres(places.url(half), half, target)
    sync_file(target)


async def put_snapshot(source: Path, url: str, half: Half) -> None:
    """Write a snapshot into PostgreSQL. Tables that are there are moved aside, also by the next try after a crash.

    Raises:
        DatabaseUnavailable: The database cannot be used, or the snapshot is newer than this program.
    """
    await _bring_up_to_date(source, half)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    database = open_database(url)
    try:
        async with database.write() as connection:
            await move_tables_aside(connection, half, stamp)
        await migrate(database, half.migrations)
        with _opened(source) as reading:
            async with database.write() as connection:
                for table in reversed(half.metadata.sorted_tables):
                    await connection.execute(sa.delete(table))
                for table in half.metadata.sorted_tables:
                    for rows in reading.execute(_all_of(table)).partitions(_ROWS):
                        await connection.execute(sa.insert(table), [_named(table, row) for row in rows])
                    await _continue_numbering(connection, table)
    finally:
        await database.close()


def schema_revision(file: Path) -> str:
    """Return the revision of the schema of a snapshot."""
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
        return str(connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()[0])  # noqa: S608


def _copy_sqlite(path: Path, target: Path) -> None:
    """Copy with SQLite's backup, in one step: that sees one moment, and keeps no writer out.

    A connection that may only read never checkpoints, not even when it is the last one to be closed.
    """
    if not path.exists():
        raise MaintenanceRefused(f"there is no database {path}; give the --data of the server")
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source:
        source.execute("PRAGMA query_only = ON")
        source.execute("PRAGMA wal_autocheckpoint = 0")
        with closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")


async def _copy_from_postgres(url: str, half: Half, target: Path) -> None:
    await _bring_up_to_date(target, half)
    database = open_database(url)
    try:
        async with database.read() as connection:
            # All tables are read as they are at the first query.
            await connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await _check_revision(connection, half, database.name)
            with _opened(target) as writing:
                for table in reversed(half.metadata.sorted_tables):
                    writing.execute(sa.delete(table))
                for table in half.metadata.sorted_tables:
                    result = await connection.stream(_all_of(table))
                    async for rows in result.partitions(_ROWS):
                        writing.execute(sa.insert(table), [_named(table, row) for row in rows])
                writing.commit()
    finally:
        await database.close()


async def _check_revision(connection: AsyncConnection, half: Half, name: str) -> None:
    there = await connection.run_sync(lambda sync: sa.inspect(sync).has_table(VERSION_TABLE))
    if not there:
        raise MaintenanceRefused(f"{name} has nothing of the {half.name}; give the URL that the server has")
    revision = await connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    if revision != half.revisions()[0]:
        raise MaintenanceRefused(
            f"{name} was written by another version of this program; run the backup with the server's version"
        )


async def _bring_up_to_date(file: Path, half: Half) -> None:
    """Have the file's schema be the newest. Leaves one file."""
    database = open_database(f"sqlite:///{file.absolute()}")
    try:
        await migrate(database, half.migrations)
    finally:
        await database.close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def _opened(file: Path) -> Iterator[sa.Connection]:
    """Open a file that is nobody else's. It blocks, which disturbs nobody: this program does nothing beside."""
    engine = sa.create_engine(f"sqlite:///{file.absolute()}")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _all_of(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    # By key: a version that another points at is written before it.
    return sa.select(table).order_by(*table.primary_key.columns)


def _named(table: sa.Table, row: sa.Row[tuple[object, ...]]) -> dict[str, object]:
    return dict(zip(table.c.keys(), row, strict=True))


async def _continue_numbering(connection: AsyncConnection, table: sa.Table) -> None:
    """Have PostgreSQL number the next row after those that were written with their numbers."""
    column = table.autoincrement_column
    if column is None:
        return
    sequence = await connection.scalar(sa.select(sa.func.pg_get_serial_sequence(table.name, column.name)))
    last = await connection.scalar(sa.select(sa.func.max(column)))
    if sequence is not None and last is not None:
        await connection.execute(sa.select(sa.func.setval(sequence, last)))
