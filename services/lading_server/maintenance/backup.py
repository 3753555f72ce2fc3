"""Making a backup while the server serves: the registry first, then ingest."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lading_server.common.unfinished import sync_directory
from lading_server.ingest.index.notes import TRASH_NOTE
from lading_server.maintenance.halves import HALVES, INGEST, REGISTRY, MaintenanceRefused, Places
from lading_server.maintenance.manifest import FileOfBackup, Manifest, complete_backups, describe
from lading_server.maintenance.snapshots import schema_revision, take_snapshot

_MAKING, _REMOVING = ".making-", ".removing-"


async def make_backup(
    directory: Path, places: Places, *, keep: int = 0, clock: Callable[[], float] = time.time
) -> Path:
    """Back both databases up into a new directory below `directory`, and return that.

    A version that is in it has its pin in it: the registry is read first, and a pin comes before its version.

    Args:
        keep: How many complete ones to keep, this one included; 0 for all.

    Raises:
        MaintenanceRefused: Another backup is being made there, or there is nothing to back up.
        DatabaseUnavailable, sqlite3.Error, OSError: It cannot be made. What was there before stays.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(directory):
        for left in directory.glob(f"{_MAKING}*"):
            shutil.rmtree(left)
        for left in directory.glob(f"{_REMOVING}*"):
            shutil.rmtree(left)
        name = datetime.fromtimestamp(clock(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        making, made = directory / f"{_MAKING}{name}", directory / name
        for other in complete_backups(directory):
            # By their names the newest is restored, and the oldest are removed.
            if other.name >= name:
                raise MaintenanceRefused(
                    f"{other} is named after a later moment than now: the clock is wrong, or was; set it right, or "
                    "move that backup elsewhere"
                )
        making.mkdir(mode=0o700)
        files: dict[str, FileOfBackup] = {}
        for half in HALVES:
            file = making / half.file_name
            taken_at_ms = int(clock() * 1000)
            await take_snapshot(places, half, file)
            files[half.name] = describe(half, file, schema_revision(file), taken_at_ms)
        _manifest(making, files).write(making)
        sync_directory(making)
        making.rename(made)
        sync_directory(directory)
        _remove_old(directory, keep)
    return made


def _manifest(making: Path, files: dict[str, FileOfBackup]) -> Manifest:
    with closing(sqlite3.connect(making / INGEST.file_name)) as ingest:
        store = ingest.execute("SELECT hex(store_id) FROM store").fetchone()
        trash = ingest.execute(
            "SELECT json_extract(value, '$.trash_seconds') FROM maintenance WHERE name = ?", (TRASH_NOTE,)
        ).fetchone()
    with closing(sqlite3.connect(making / REGISTRY.file_name)) as registry:
        (revision,) = registry.execute("SELECT revision FROM revisions").fetchone()
    return Manifest(
        store_id=store[0].lower() if store else "",
        server_version=version("lading"),
        revision=revision,
        trash_seconds=float(trash[0]) if trash else 0.0,
        files=files,
    )


def _remove_old(directory: Path, keep: int) -> None:
    if keep:
        for old in list(complete_backups(directory))[:-keep]:
            # Under its name it is complete or gone.
            removing = directory / f"{_REMOVING}{old.name}"
            old.rename(removing)
            shutil.rmtree(removing)
        sync_directory(directory)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Make backups in a directory one at a time. Raises MaintenanceRefused."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise MaintenanceRefused(f"another backup is being made in {directory}; wait for its end") from error
    finally:
        os.close(descriptor)
