"""The migrations make the schema that the code is written for, on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from lading_server.common.database import Database, DatabaseUnavailable, migrate, open_database
from lading_server.ingest.index.schema import metadata
from lading_server.ingest.index.store import MIGRATIONS
from tests.support.index import DATABASES, database_url


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with database_url(request.param, tmp_path) as url:
        opened = open_database(url)
        try:
            yield opened
        finally:
            await opened.close()


def differences(connection: sa.Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


async def test_the_migrated_schema_is_the_one_that_the_code_describes(database: Database) -> None:
    await migrate(database, MIGRATIONS)
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_comparison_would_tell_a_difference(database: Database) -> None:
    await migrate(database, MIGRATIONS)
    async with database.write() as connection:
        await connection.execute(sa.text("DROP TABLE upload_chunks"))
        await connection.execute(sa.text("ALTER TABLE packs ADD COLUMN surprise TEXT"))
    async with database.read() as connection:
        kinds = [difference[0] for difference in await connection.run_sync(differences)]  # type: ignore[index]
    assert sorted(kinds) == ["add_table", "remove_column"]


async def test_checks_and_storage_of_the_migrated_tables_are_those_of_the_code(tmp_path: Path) -> None:
    """What the comparison above does not look at: CHECK constraints and WITHOUT ROWID, as SQLite writes them down."""
    migrated, described = (open_database(f"sqlite:///{tmp_path / name}") for name in ("migrated.db", "described.db"))
    try:
        await migrate(migrated, MIGRATIONS)
        async with described.write() as connection:
            await connection.run_sync(metadata.create_all)
        assert await _statements(migrated) == await _statements(described)
    finally:
        await migrated.close()
        await described.close()


async def _statements(database: Database) -> dict[str, set[str]]:
    query = sa.text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'")
    async with database.read() as connection:
        rows = (await connection.execute(query)).all()
    # Constraints may stand in another order.
    return {name: {line.strip().rstrip(",") for line in sql.splitlines()} for name, sql in rows}


async def test_migrating_again_changes_nothing(database: Database) -> None:
    await migrate(database, MIGRATIONS)
    await migrate(database, MIGRATIONS)
    async with database.read() as connection:
        assert (await connection.scalars(sa.text("SELECT version_num FROM alembic_version"))).all() == ["0005"]


async def test_a_database_from_a_newer_program_is_refused_and_left_alone(database: Database) -> None:
    await migrate(database, MIGRATIONS)
    async with database.write() as connection:
        await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseUnavailable, match="newer version"):
        await migrate(database, MIGRATIONS)
    async with database.read() as connection:
        assert (await connection.scalars(sa.text("SELECT version_num FROM alembic_version"))).all() == ["9999"]
