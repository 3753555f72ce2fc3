"""Engines and transactions: who writes, what is undone, and what an operator is told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from lading_server.common import database as module
from lading_server.common.database import Database, DatabaseUnavailable, open_database
from tests.support.index import DATABASES, database_url

ADD = sa.text("INSERT INTO numbers VALUES (:n)")
ALL = sa.text("SELECT n FROM numbers ORDER BY n")


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with database_url(request.param, tmp_path) as url:
        opened = open_database(url)
        try:
            async with opened.write() as connection:
                await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
            yield opened
        finally:
            await opened.close()


async def numbers(database: Database) -> list[int]:
    async with database.read() as connection:
        return list((await connection.scalars(ALL)).all())


async def test_a_write_is_committed_whole_or_not_at_all(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(ADD, [{"n": 1}, {"n": 2}])

    async def write_twice(first: int, second: int) -> None:
        async with database.write() as connection:
            await connection.execute(ADD, {"n": first})
            await connection.execute(ADD, {"n": second})

    with pytest.raises(IntegrityError):
        await write_twice(3, 1)
    assert await numbers(database) == [1, 2]


async def test_what_is_not_committed_is_not_read(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(ADD, {"n": 1})
        assert await numbers(database) == []
    assert await numbers(database) == [1]


async def test_a_read_sees_one_moment_whatever_is_committed_meanwhile(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(ADD, {"n": 1})
    async with database.read() as reader:
        assert (await reader.scalars(ALL)).all() == [1]
        async with database.write() as connection:
            await connection.execute(ADD, {"n": 2})
        assert (await reader.scalars(ALL)).all() == [1]
    assert await numbers(database) == [1, 2]


async def test_who_reads_cannot_write_and_leaves_no_trace_of_it_to_who_writes_next(database: Database) -> None:
    with pytest.raises(DBAPIError, match=r"read-?only"):
        async with database.read() as reader:
            await reader.execute(ADD, {"n": 1})
    async with database.write() as connection:
        await connection.execute(ADD, {"n": 2})
    assert await numbers(database) == [2]


async def test_a_cancelled_write_is_undone_and_the_next_one_goes_on(database: Database) -> None:
    written = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.write() as connection:
            await connection.execute(ADD, {"n": 1})
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.write() as connection:
        await connection.execute(ADD, {"n": 2})
    assert await numbers(database) == [2]


async def test_fifty_writers_and_readers_at_once_all_get_their_turn(database: Database) -> None:
    async def write(n: int) -> None:
        async with database.write() as connection:
            await connection.execute(ADD, {"n": n})
        assert n in await numbers(database)

    await asyncio.gather(*(write(n) for n in range(50)))
    assert await numbers(database) == list(range(50))


async def test_errors_do_not_show_the_values_that_were_written(database: Database) -> None:
    with pytest.raises(IntegrityError) as raised:
        async with database.write() as connection:
            await connection.execute(ADD, [{"n": 918_273_645}, {"n": 1}, {"n": 1}])
    assert "918273645" not in str(raised.value)


async def test_sqlite_syncs_every_commit_and_only_the_writer_checkpoints(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    try:
        async with database.write() as connection:

            async def pragma(name: str) -> object:
                return await connection.scalar(sa.text(f"PRAGMA {name}"))

            assert await pragma("journal_mode") == "wal"
            assert await pragma("synchronous") == 2
            assert await pragma("foreign_keys") == 1
            await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
        async with database.read() as reader:
            assert await reader.scalar(sa.text("PRAGMA wal_autocheckpoint")) == 0
            with pytest.raises(OperationalError, match="readonly"):
                await reader.execute(ADD, {"n": 1})
    finally:
        await database.close()
    # Whoever closed last was the writer, so everything is in the file.
    assert not (tmp_path / "a.db-wal").exists()


async def test_a_path_may_have_any_character(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? ü"
    path.mkdir()
    database = open_database(sa.URL.create("sqlite", database=str(path / "a.db")).render_as_string())
    try:
        async with database.write() as connection:
            await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
        assert await numbers(database) == []
    finally:
        await database.close()


async def _told(url: str) -> str:
    database = open_database(url)
    try:
        with pytest.raises(DatabaseUnavailable) as raised:
            async with database.write():
                raise AssertionError("a transaction was begun")
        return str(raised.value)
    finally:
        await database.close()


def test_a_missing_directory_is_told_with_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"nowhere/a\.db cannot be opened; check that its directory exists"):
        open_database(f"sqlite:///{tmp_path / 'nowhere' / 'a.db'}")


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"This is not a database. " * 100)
    assert "is not a SQLite database" in await _told(f"sqlite:///{tmp_path / 'a.db'}")


async def test_a_locked_database_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUSY_MILLISECONDS", 10)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    try:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        assert "in use by another process" in await _told(f"sqlite:///{tmp_path / 'a.db'}")
    finally:
        other.close()


async def test_a_postgresql_that_hangs_up_in_a_transaction_is_unavailable_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    hang_up = sa.text("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database_url("postgresql", tmp_path) as url:
        database = open_database(url)
        try:
            with pytest.raises(DatabaseUnavailable):
                async with database.write() as connection:
                    await connection.execute(hang_up)
            with pytest.raises(DatabaseUnavailable):
                async with database.read() as connection:
                    await connection.execute(hang_up)
            with pytest.raises(DatabaseUnavailable):
                await database.fetch(hang_up, {})
            assert (await database.fetch(sa.select(sa.literal(1)), {}))[0][0] == 1
        finally:
            await database.close()


@pytest.mark.parametrize(
    ("code", "is_away"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_CORRUPT, False),
    ],
)
async def test_a_file_that_another_process_has_is_unavailable_and_a_bad_disk_is_not(
    tmp_path: Path, code: int, is_away: bool
) -> None:
    driver_error = sqlite3.OperationalError("as SQLite says")
    driver_error.sqlite_errorcode = code
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    try:
        with pytest.raises(DatabaseUnavailable if is_away else OperationalError):
            async with database.write():
                raise OperationalError("COMMIT", None, driver_error)
    finally:
        await database.close()


async def test_a_postgresql_that_is_not_there_is_told_without_the_password(tmp_path: Path) -> None:
    message = await _told(f"postgresql://me:secret@/name?host={tmp_path}")
    assert "check that the server runs there" in message
    assert "secret" not in message


@pytest.mark.parametrize("url", ["", "a.db", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_a_url_of_no_use_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="sqlite:///"):
        open_database(url)
