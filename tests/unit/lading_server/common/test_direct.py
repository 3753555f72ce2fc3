"""Statements that go past SQLAlchemy on SQLite do what they do on PostgreSQL, where they do not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from lading_server.common.database import Database, open_database
from lading_server.common.direct import count_of, leave, row_of, rows_of
from lading_server.common.sqlite_connection import SqliteConnection
from tests.support.index import DATABASES, database_url

_numbers = sa.table("numbers", sa.column("n", sa.Integer), sa.column("data", sa.LargeBinary))
_ADD = sa.insert(_numbers)
_ADD_THREE = sa.insert(_numbers).values(n=3, data=b"")
_ADD_AND_TELL = sa.insert(_numbers).returning(_numbers.c.n)
_ALL = sa.select(_numbers.c.n, _numbers.c.data, (_numbers.c.n > 1).label("is_large")).order_by(_numbers.c.n)
_SOME = sa.select(_numbers.c.n).where(_numbers.c.n.in_(sa.bindparam("some", expanding=True))).order_by(_numbers.c.n)
_ABOVE_ONE = sa.select(_numbers.c.n).where(_numbers.c.n > 1, _numbers.c.n < sa.bindparam("end"))
_LARGE = sa.select(_numbers.c.n).where((_numbers.c.n > 1) == sa.bindparam("is_large", type_=sa.Boolean))
_DROP = sa.delete(_numbers).where(_numbers.c.n >= sa.bindparam("first"))


def row(n: int) -> dict[str, Any]:
    return {"n": n, "data": bytes([n])}


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with database_url(request.param, tmp_path) as url:
        opened = open_database(url)
        kind = "BLOB" if opened.dialect == "sqlite" else "BYTEA"
        try:
            async with opened.write() as connection:
                await connection.execute(sa.text(f"CREATE TABLE numbers (n INTEGER PRIMARY KEY, data {kind} NOT NULL)"))
            yield opened
        finally:
            await opened.close()


async def kept(database: Database) -> list[int]:
    async with database.read() as connection:
        return [one.n for one in await rows_of(connection, _ALL, {})]


async def test_rows_have_the_names_and_types_of_their_columns(database: Database) -> None:
    async with database.write() as connection:
        await leave(connection, _ADD, [row(1), row(2)])
        first, second = await rows_of(connection, _ALL, {})
        assert (first.n, first.data, first.is_large) == (1, b"\x01", False)
        assert second.is_large is True
        assert (await row_of(connection, _LARGE, {"is_large": False})).n == 1
        assert await row_of(connection, _ABOVE_ONE, {"end": 2}) is None
        assert (await row_of(connection, _ABOVE_ONE, {"end": 3})).n == 2
        assert [one.n for one in await rows_of(connection, _SOME, {"some": [2, 7, 1]})] == [1, 2]
        assert await rows_of(connection, _SOME, {"some": []}) == []
        assert (await row_of(connection, _ADD_AND_TELL, row(9))).n == 9
        assert await count_of(connection, _DROP, {"first": 2}) == 2
    assert [one.n for one in await database.fetch(_ALL, {})] == [1]


async def test_what_was_left_is_there_for_every_later_statement(database: Database) -> None:
    async with database.write() as connection:
        await leave(connection, _ADD, [row(1)])
        assert await connection.scalar(sa.text("SELECT count(*) FROM numbers")) == 1
        await leave(connection, _ADD, [row(2)])
        assert await count_of(connection, _DROP, {"first": 2}) == 1
        await leave(connection, _ADD, [row(3)])
    assert await kept(database) == [1, 3]


async def test_what_was_left_and_fails_undoes_all_of_the_transaction(database: Database) -> None:
    async def write_twice() -> None:
        async with database.write() as connection:
            await leave(connection, _ADD, [row(1)])
            await leave(connection, _ADD, [{"n": 1, "data": b"a secret"}])

    with pytest.raises(IntegrityError) as raised:
        await write_twice()
    assert "secret" not in str(raised.value)
    assert await kept(database) == []
    async with database.write() as connection:
        await leave(connection, _ADD, [row(2)])
    assert await kept(database) == [2]


async def test_what_was_left_goes_with_a_transaction_that_is_given_up(database: Database) -> None:
    async def give_up() -> None:
        async with database.write() as connection:
            await leave(connection, _ADD, [row(1)])
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await give_up()
    async with database.write() as connection:
        await leave(connection, _ADD, [row(2)])
    assert await kept(database) == [2]


async def test_other_parameters_than_the_first_ones_are_a_mistake_and_no_null(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    statement = sa.insert(_numbers)
    try:
        async with database.write() as connection:
            await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY, data BLOB)"))
            await leave(connection, statement, [{"n": 1}])
            with pytest.raises(AssertionError, match="is given"):
                await leave(connection, statement, [{"n": 2, "data": b""}])
    finally:
        await database.close()


async def test_a_transaction_whose_begin_nobody_waited_for_is_undone(tmp_path: Path) -> None:
    """The next one could not begin otherwise. The thread is held up, so that the begin comes after its caller left."""
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    try:
        async with database.write() as connection:
            await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY, data BLOB)"))
            driver = (await connection.get_raw_connection()).driver_connection
        assert isinstance(driver, SqliteConnection)
        go_on = threading.Event()
        held_up = asyncio.create_task(driver.visit(go_on.wait))

        async def write() -> None:
            async with database.write():
                raise AssertionError("a transaction was begun")

        writing = asyncio.create_task(write())
        # As far as it comes before it waits for the thread.
        await asyncio.sleep(0)
        assert driver._is_writing
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        go_on.set()
        await held_up
        async with database.write() as connection:
            await leave(connection, _ADD, [row(1)])
        assert await kept(database) == [1]
    finally:
        await database.close()


async def test_an_error_that_is_kept_keeps_no_file_open(tmp_path: Path) -> None:
    """A cursor in its traceback would, with a statement that was not ended."""
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")

    async def write() -> None:
        async with database.write() as connection:
            await leave(connection, _ADD, [row(1)])
            await rows_of(connection, _ALL, {})
            await leave(connection, _ADD, [row(2)])
            await leave(connection, _ADD, [row(1)])

    async with database.write() as connection:
        await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY, data BLOB)"))
    with pytest.raises(IntegrityError) as raised:
        await write()
    await database.close()
    kept_open = {os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)}
    assert not any("a.db" in name for name in kept_open), raised


@pytest.mark.parametrize("is_write", [True, False])
async def test_a_connection_that_sqlalchemy_has_given_up_is_not_used_again(tmp_path: Path, *, is_write: bool) -> None:
    """As it does when whoever ran a statement through it was cancelled meanwhile."""
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    transaction = database.write if is_write else database.read
    is_running, go_on = asyncio.Event(), threading.Event()
    drivers: list[object] = []

    async def run() -> None:
        async with transaction() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, SqliteConnection)
            drivers.append(driver)
            held_up.append(asyncio.create_task(driver.visit(go_on.wait)))
            is_running.set()
            await connection.execute(_ADD_THREE if is_write else _ALL)

    held_up: list[asyncio.Task[object]] = []
    try:
        async with database.write() as connection:
            await connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY, data BLOB)"))
        running = asyncio.create_task(run())
        await is_running.wait()
        running.cancel()
        # SQLAlchemy waits until the thread has come to closing it.
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        await held_up[0]
        async with transaction() as connection:
            drivers.append((await connection.get_raw_connection()).driver_connection)
            assert (await connection.execute(_ALL)).all() == []
        assert drivers[0] is not drivers[1]
        async with database.write() as connection:
            await leave(connection, _ADD, [row(1)])
        assert await kept(database) == [1]
    finally:
        await database.close()
    for thread in threading.enumerate():
        if thread.name == "sqlite":
            thread.join(timeout=10)
            assert not thread.is_alive()
