"""Backups of a server that works, and restoring them: every version that a restored registry has reads back whole."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import lading
from lading_server.common.database import DatabaseUnavailable
from lading_server.common.unfinished import read_unfinished, refuse_unfinished
from lading_server.maintenance.backup import make_backup
from lading_server.maintenance.halves import HALVES, REGISTRY, MaintenanceRefused, Places
from lading_server.maintenance.manifest import read_manifest
from lading_server.maintenance.restore import REVISION_GAP, restore_backup
from tests.support.command_line import CommandLine
from tests.support.postgres import create_database, drop_database
from tests.support.server import running_server

SEED = 20261125
WRITERS, BACKUPS, KILLS = 8, 2, 5


@pytest.fixture
async def two_databases() -> AsyncIterator[tuple[str, str]]:
    urls = await create_database(), await create_database()
    try:
        yield urls
    finally:
        for url in urls:
            await drop_database(url)


async def write_versions(target: str, writer: int, rng: random.Random, told: asyncio.Event, where: Path) -> None:
    """Log versions of a collection of one's own until told to stop; they share content with those of others."""
    shared = [random.Random(number).randbytes(30_000) for number in range(20)]
    async with lading.Client(target, entity="acme") as client:
        for number in count():
            root = where / f"{writer}-{number}"
            root.mkdir(parents=True)
            (root / "large").write_bytes(b"".join(rng.sample(shared, 8)) * 5 + rng.randbytes(1000))
            for small in range(5):
                (root / f"small-{small}").write_bytes(rng.choice(shared)[: rng.randrange(3000)])
            await client.put(root, f"w{writer}", type="dataset")
            if told.is_set():
                return


async def check_versions(target: str, registry: Path, where: Path) -> int:
    """Read every version of a registry back whole, from the server over it; return how many there are."""
    query = "SELECT c.name, v.number FROM versions v JOIN collections c ON c.id = v.collection_id"
    with closing(sqlite3.connect(registry)) as connection:
        names = connection.execute(query).fetchall()
    async with lading.Client(target, entity="acme") as client:
        for name, number in names:
            # Verified against the version's digest.
            version = await client.version(f"{name}:v{number}")
            await version.download(where / f"{name}-{number}")
    return len(names)


def rows_of(path: Path, *, but: str = "") -> dict[str, list[Any]]:
    """Return all rows of a database, but the revision that a restore moves on; and without one column."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {}
        for table in tables:
            if table not in ("revisions", "alembic_version"):
                names = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")') if row[1] != but]
                columns = ", ".join(f'"{name}"' for name in names)
                rows[table] = sorted(map(repr, connection.execute(f'SELECT {columns} FROM "{table}"')))
        return rows


async def test_a_backup_that_eight_writers_disturb_has_every_version_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {SEED}")
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    cli = CommandLine(tmp_path / "home")
    data, backups = tmp_path / "server/data", tmp_path / "backups"
    made: list[str] = []
    with running_server(data) as server:
        told = asyncio.Event()
        writing = [
            asyncio.create_task(write_versions(server.target, n, random.Random(SEED + n), told, tmp_path / "from"))
            for n in range(WRITERS)
        ]
        for _ in range(BACKUPS):
            told_by = await asyncio.to_thread(cli, "backup", str(backups), "--data", str(data))
            made.append(told_by.strip())
        told.set()
        await asyncio.gather(*writing)
        assert server.terminate() == 0
    counts = []
    for number, backup in enumerate(made):
        # The machine is lost but for its packs.
        restored = tmp_path / f"restored-{number}/data"
        shutil.copytree(data / "packs", restored / "packs")
        told_by = cli("restore", backup, "--data", str(restored))
        assert "knows all packs" in told_by
        with running_server(restored) as server:
            counts.append(await check_versions(server.target, Path(backup) / "registry.db", tmp_path / f"to-{number}"))
            # Its revisions go on after any that a watcher may have seen.
            await write_versions(server.target, 99, random.Random(SEED), told, tmp_path / f"more-{number}")
        with closing(sqlite3.connect(restored / "registry.db")) as registry:
            (first,) = registry.execute("SELECT min(revision) FROM events WHERE collection = 'w99'").fetchone()
        assert first > read_manifest(Path(backup)).revision + REVISION_GAP
    assert counts == sorted(counts)
    assert counts[-1] > 0


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home")


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a server that took a few versions and was stopped."""
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    data = tmp_path / "server/data"
    with running_server(data) as server:
        told = asyncio.Event()
        told.set()
        await write_versions(server.target, 1, random.Random(SEED), told, tmp_path / "from")
        assert server.terminate() == 0
    return data


async def test_a_backup_is_for_its_owner_alone_and_the_oldest_are_removed(served: Path, tmp_path: Path) -> None:
    moments = iter(range(1_800_000_000, 1_900_000_000))
    backups = tmp_path / "backups"
    made = [await make_backup(backups, Places(served), keep=2, clock=lambda: next(moments)) for _ in range(4)]
    assert sorted(path.name for path in backups.iterdir() if path.name[0] != ".") == [path.name for path in made[2:]]
    for path in [backups, made[-1], *made[-1].iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    manifest = json.loads((made[-1] / "manifest.json").read_text())
    assert manifest["files"]["registry"]["taken_at_ms"] < manifest["files"]["ingest"]["taken_at_ms"]
    assert manifest["trash_seconds"] == 2 * 86400
    for half in HALVES:
        assert rows_of(made[-1] / half.file_name) == rows_of(served / half.file_name)


async def test_a_clock_that_was_ahead_costs_no_backup_and_is_told(served: Path, tmp_path: Path) -> None:
    backups, now = tmp_path / "backups", 1_800_000_000.0
    ahead = await make_backup(backups, Places(served), keep=1, clock=lambda: now + 7200)
    with pytest.raises(MaintenanceRefused, match="named after a later moment than now"):
        await make_backup(backups, Places(served), keep=1, clock=lambda: now)
    assert [path for path in backups.iterdir() if path.name[0] != "."] == [ahead]
    # Nobody knows how old it is.
    with pytest.raises(MaintenanceRefused, match=r"2\.0 hours from now.*--force"):
        await restore_backup(ahead, Places(tmp_path / "restored"), clock=lambda: now)
    shutil.move(ahead, tmp_path / "ahead")
    made = await make_backup(backups, Places(served), keep=1, clock=lambda: now)
    assert [path for path in backups.iterdir() if path.name[0] != "."] == [made]


async def test_a_backup_never_takes_the_log_of_a_database_away(served: Path, tmp_path: Path) -> None:
    path = served / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        # As a server leaves it that was killed: the last changes are in the log alone.
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE revisions SET revision = 4711")
        shutil.copy(path, tmp_path / "crashed.db")
        shutil.copy(f"{path}-wal", tmp_path / "crashed.db-wal")
    os.replace(tmp_path / "crashed.db", path)
    os.replace(tmp_path / "crashed.db-wal", f"{path}-wal")
    before = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    backup = await make_backup(tmp_path / "backups", Places(served))
    assert read_manifest(backup).revision == 4711
    assert (path.read_bytes(), Path(f"{path}-wal").read_bytes()) == before


async def test_what_is_there_is_kept_and_a_damaged_backup_is_refused(served: Path, tmp_path: Path) -> None:
    backup = await make_backup(tmp_path / "backups", Places(served))
    before = {half: rows_of(served / half.file_name) for half in HALVES}
    with pytest.raises(MaintenanceRefused, match="--force"):
        await restore_backup(backup, Places(served))
    assert not list(served.glob("*restoring*"))
    await restore_backup(tmp_path / "backups", Places(served), force=True)
    for half in HALVES:
        (kept,) = served.glob(f"{half.file_name}.kept-*Z")
        assert rows_of(kept) == before[half]
    assert rows_of(served / "registry.db") == before[REGISTRY]
    content = bytearray((backup / "ingest.db").read_bytes())
    content[100] ^= 1
    (backup / "ingest.db").write_bytes(content)
    with pytest.raises(MaintenanceRefused, match="its digest is another"):
        await restore_backup(backup, Places(served), force=True)


async def test_a_backup_older_than_the_trash_is_restored_only_when_that_is_said(served: Path, tmp_path: Path) -> None:
    backup = await make_backup(tmp_path / "backups", Places(served))
    empty = Places(tmp_path / "empty")
    with pytest.raises(MaintenanceRefused, match=r"72\.0 hours old.*--force"):
        await restore_backup(backup, empty, clock=lambda: time.time() + 3 * 86400)
    await restore_backup(backup, empty, force=True, clock=lambda: time.time() + 3 * 86400)
    assert rows_of(empty.data / "registry.db") == rows_of(served / "registry.db")


async def test_a_backup_moves_a_store_to_postgresql_and_back(
    served: Path, tmp_path: Path, two_databases: tuple[str, str], cli: CommandLine
) -> None:
    in_postgres = Places(served, *two_databases)
    # Only the names: the packs stay where they are.
    flags = ["--database-url", in_postgres.database_url, "--registry-database-url", in_postgres.registry_database_url]
    backup = await make_backup(tmp_path / "backups", Places(served))
    await restore_backup(backup, in_postgres)
    back = await make_backup(tmp_path / "backups", in_postgres)
    assert rows_of(back / "registry.db") == rows_of(backup / "registry.db")
    with running_server(served, *flags) as server:
        assert await check_versions(server.target, backup / "registry.db", tmp_path / "to") == 1
        told = asyncio.Event()
        told.set()
        # Its rows are numbered after those that came with their numbers.
        await write_versions(server.target, 2, random.Random(2), told, tmp_path / "more")
        assert server.terminate() == 0
    last = await make_backup(tmp_path / "backups", in_postgres)
    again = Places(tmp_path / "again")
    shutil.copytree(served / "packs", again.data / "packs")
    await restore_backup(last, again)
    with running_server(again.data) as server:
        assert await check_versions(server.target, last / "registry.db", tmp_path / "to-again") == 2


async def test_a_restore_that_is_killed_leaves_nothing_or_what_the_next_one_finishes(
    served: Path, tmp_path: Path, cli: CommandLine
) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    backup = await make_backup(tmp_path / "backups", Places(served))
    before = rows_of(served / "ingest.db")
    kills = 0
    for number in range(KILLS):
        data = tmp_path / f"killed-{number}"
        shutil.copytree(served / "packs", data / "packs")
        process = cli.start("restore", str(backup), "--data", str(data))
        # The moment is what has appeared by then; with nothing of it, the command is killed as it ends its start.
        stage = data / rng.choice(["lock", "registry.restoring", "unfinished.json", "registry.db", "ingest.db-wal"])
        while process.poll() is None and not stage.exists():
            continue
        process.kill()
        kills += process.wait() != 0
        process.communicate()
        if read_unfinished(data):
            with pytest.raises(DatabaseUnavailable, match="lading restore"):
                refuse_unfinished(data)
        await restore_backup(backup, Places(data))
        assert read_unfinished(data) == {}
        after = rows_of(data / "ingest.db")
        assert {table: after[table] for table in ("pins", "blobs", "trees", "chunks")} == {
            table: before[table] for table in ("pins", "blobs", "trees", "chunks")
        }
        assert rows_of(data / "registry.db") == rows_of(served / "registry.db")
    assert kills


async def test_a_server_starts_over_an_index_that_was_made_from_packs_once_it_is_whole(
    served: Path, tmp_path: Path, cli: CommandLine
) -> None:
    # How often something was referred to is not in the packs.
    before = rows_of(served / "ingest.db", but="generation")
    (served / "ingest.db").unlink()
    process = cli.start("rebuild-index", "--data", str(served))
    while process.poll() is None and not (served / "unfinished.json").exists():
        continue
    process.kill()
    process.communicate()
    assert read_unfinished(served)
    with pytest.raises(AssertionError, match="`lading rebuild-index` was interrupted"), running_server(served):
        pass
    assert "the server pins again what the registry keeps" in cli("rebuild-index", "--data", str(served))
    after = rows_of(served / "ingest.db", but="generation")
    assert {table: after[table] for table in ("blobs", "chunks", "usage")} == {
        table: before[table] for table in ("blobs", "chunks", "usage")
    }
    with running_server(served) as server:
        assert await check_versions(server.target, served / "registry.db", tmp_path / "to") == 1
