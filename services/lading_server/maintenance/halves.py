"""The two databases, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from lading_server.common.database import open_database
from lading_server.ingest.index.schema import metadata as ingest_tables
from lading_server.ingest.index.store import MIGRATIONS as INGEST_MIGRATIONS
from lading_server.registry.store.schema import metadata as registry_tables
from lading_server.registry.store.store import MIGRATIONS as REGISTRY_MIGRATIONS

VERSION_TABLE = "alembic_version"


class MaintenanceRefused(Exception):
    """What was asked for cannot be done, or not without being told so twice. The message says what to do."""


class Half(NamedTuple):
    """A service, as far as its database goes."""

    name: str
    metadata: sa.MetaData
    migrations: str

    @property
    def file_name(self) -> str:
        """How its SQLite file is called, in a data directory and in a backup."""
        return f"{self.name}.db"

    def revisions(self) -> list[str]:
        """Return the revisions of its schema that this program knows, the newest first."""
        config = Config()
        config.set_main_option("script_location", self.migrations)
        config.set_main_option("path_separator", "os")
        return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


REGISTRY = Half("registry", registry_tables, REGISTRY_MIGRATIONS)
INGEST = Half("ingest", ingest_tables, INGEST_MIGRATIONS)
# The registry first: every version that its snapshot has then has its pin in the other one.
HALVES = (REGISTRY, INGEST)


@dataclass(frozen=True)
class Places:
    """Where everything of a server is. Empty URLs stand for SQLite in the data directory."""

    data: Path
    database_url: str = ""
    registry_database_url: str = ""

    def url(self, half: Half) -> str:
        """Return what `open_database` takes."""
        given = self.database_url if half is INGEST else self.registry_database_url
        return given or f"sqlite:///{self.data.absolute() / half.file_name}"

    def sqlite_path(self, half: Half) -> Path | None:
        """Return the file of the half's database, or None where it is in PostgreSQL."""
        try:
            url = make_url(self.url(half))
        except (ArgumentError, ValueError):
            # It says what is wrong, without the password.
            open_database(self.url(half))
            raise
        return Path(url.database or "") if url.drivername.startswith("sqlite") else None
