"""Keeping a database that is to be replaced: under another name, beside its successor."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.database import open_database
from lading_server.common.unfinished import sync_directory
from lading_server.maintenance.halves import VERSION_TABLE, Half, Places

# What SQLite has beside a database: the log has transactions that the file lacks.
_SUFFIXES = ("", "-wal", "-shm")


async def is_there(places: Places, half: Half) -> bool:
    """Tell whether the half has a database, whatever is in it. Raises DatabaseUnavailable."""
    path = places.sqlite_path(half)
    if path is not None:
        return path.exists() and path.stat().st_size > 0
    database = open_database(places.url(half))
    try:
        async with database.read() as connection:
            return bool(await _tables(connection, half))
    finally:
        await database.close()


async def move_aside(places: Places, half: Half) -> str:
    """Keep the half's database under another name; return that, or an empty text where there is none."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    path = places.sqlite_path(half)
    if path is not None:
        return _move_files(path, stamp) if path.exists() else ""
    database = open_database(places.url(half))
    try:
        async with database.write() as connection:
            return await move_tables_aside(connection, half, stamp)
    finally:
        await database.close()


async def move_tables_aside(connection: AsyncConnection, half: Half, stamp: str) -> str:
    """Move the half's tables to a schema of their own, in the transaction at hand."""
    tables = await _tables(connection, half)
    if not tables:
        return ""
    schema = f"kept_{half.name}_{stamp.replace('.', '_').lower()}"
    await connection.execute(sa.schema.CreateSchema(schema))
    for table in tables:
        # Names of our own tables, and one that was made here. Indexes and sequences move with their table.
        await connection.exec_driver_sql(f'ALTER TABLE "{table}" SET SCHEMA "{schema}"')
    return f"schema {schema}"


async def _tables(connection: AsyncConnection, half: Half) -> list[str]:
    there = await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names())
    return sorted({*half.metadata.tables, VERSION_TABLE}.intersection(there))


def _move_files(path: Path, stamp: str) -> str:
    kept = path.with_name(f"{path.name}.kept-{stamp}")
    there = [suffix for suffix in _SUFFIXES if os.path.exists(f"{path}{suffix}")]
    for suffix in there:
        # Both names, until all are kept: what is cut off here leaves a database that is whole under one of them.
        os.link(f"{path}{suffix}", f"{kept}{suffix}")
    sync_directory(path.parent)
    # The database first. SQLite throws a log away that has none.
    for suffix in there:
        os.unlink(f"{path}{suffix}")
    sync_directory(path.parent)
    return str(kept)
