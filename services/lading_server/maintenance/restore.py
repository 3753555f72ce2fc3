"""Putting a backup in the place of databases that were lost, and bringing it up to the packs that are there."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from lading_server.common.unfinished import finish, read_unfinished, sync_directory, sync_file, write_unfinished
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.rebuild.report import Report
from lading_server.maintenance.aside import is_there, move_aside
from lading_server.maintenance.halves import HALVES, REGISTRY, Half, MaintenanceRefused, Places
from lading_server.maintenance.manifest import (
    MANIFEST,
    Manifest,
    check_files,
    complete_backups,
    digest_of,
    read_manifest,
)
from lading_server.maintenance.rebuild import bring_up_to_packs
from lading_server.maintenance.snapshots import put_snapshot

COMMAND = "lading restore"
# Revisions that a restored registry leaves out. Whoever watches it may have seen some that came after the backup, and
# none may be given twice with another meaning. More than any server makes between two backups: a thousand a second for
# eleven days. There is room for nine thousand million restores, and for nine million where numbers are doubles.
REVISION_GAP = 1_000_000_000


async def restore_backup(
    directory: Path,
    places: Places,
    *,
    force: bool = False,
    clock: Callable[[], float] = time.time,
    on_progress: Callable[[Report], None] | None = None,
) -> Report:
    """Restore a backup, or the newest one of a directory of them; or finish what an earlier call began.

    Cut off at any moment, it leaves either nothing, or what the same call finishes; no server starts in between.

    Args:
        force: Keep databases that are there under other names, and take a backup that is older than the trash window.

    Raises:
        MaintenanceRefused: There are databases; the backup is damaged, too old or too new; other work is unfinished.
        StoreLocked: A server has the directory.
        DatabaseUnavailable, ReasonedError, OSError: To be done again when that is mended.
    """
    directory = _newest(directory)
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    with closing(LocalPackStorage(places.data)) as storage:
        note = read_unfinished(places.data)
        identity = digest_of(directory / MANIFEST)
        if note and note.get("backup") != identity:
            raise MaintenanceRefused(f"`{note['command']}` was interrupted; run that again first, to its end")
        if not note:
            if not force:
                await _refuse(manifest, places, clock())
            for half in HALVES:
                _prepare(directory, places, half)
            # From here on nothing but this backup is wanted, and whatever is in its way is moved aside.
            write_unfinished(places.data, {"command": f"{COMMAND} {directory.absolute()}", "backup": identity})
        for half in HALVES:
            await _place(places, half)
        report = await bring_up_to_packs(places, storage, on_progress=on_progress)
        finish(places.data)
        return report


def warning_of(directory: Path, now: float) -> str:
    """Return what restoring a backup may cost, if it is too old; see `restore_backup`."""
    return _trash_warning(read_manifest(_newest(directory)), now)


def _trash_warning(manifest: Manifest, now: float) -> str:
    """Return what a backup may cost that is older than the trash was kept; empty where it is not."""
    age_seconds = manifest.age_seconds(now)
    if age_seconds < 0:
        return (
            f"the backup says that it was made {-age_seconds / 3600:.1f} hours from now: the clock is wrong, or was, "
            "and nobody knows how old it is; versions that were deleted since may have lost content, for good"
        )
    if age_seconds <= manifest.trash_seconds:
        return ""
    return (
        f"the backup is {age_seconds / 3600:.1f} hours old, and the server kept what was collected for "
        f"{manifest.trash_seconds / 3600:.1f}: versions that were deleted since may have lost content, for good; "
        "the others have all of theirs"
    )


async def _refuse(manifest: Manifest, places: Places, now: float) -> None:
    """Raise MaintenanceRefused where somebody has to say that it is meant."""
    for half in HALVES:
        if await is_there(places, half):
            raise MaintenanceRefused(
                f"the {half.name} has a database; --force keeps it under another name and restores the backup"
            )
    warning = _trash_warning(manifest, now)
    if warning:
        raise MaintenanceRefused(f"{warning}; take a newer one, or restore it with --force")


def _newest(directory: Path) -> Path:
    if (directory / MANIFEST).exists() or not directory.is_dir():
        return directory
    backups = list(complete_backups(directory))
    return backups[-1] if backups else directory


def _waiting(places: Places, half: Half) -> Path:
    """Where a half's file waits until it is placed. While it is there it was not."""
    return places.data / f"{half.name}.restoring"


def _prepare(directory: Path, places: Places, half: Half) -> None:
    waiting = _waiting(places, half)
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{waiting}{suffix}")
    os.close(os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    shutil.copyfile(directory / half.file_name, waiting)
    if half is REGISTRY:
        with closing(sqlite3.connect(waiting)) as registry, registry:
            registry.execute("UPDATE revisions SET revision = revision + ?", (REVISION_GAP,))
    sync_file(waiting)
    sync_directory(waiting.parent)


async def _place(places: Places, half: Half) -> None:
    waiting, path = _waiting(places, half), places.sqlite_path(half)
    if not waiting.exists():
        return
    if path is None:
        await put_snapshot(waiting, places.url(half), half)
        waiting.unlink()
    else:
        await move_aside(places, half)
        # The database may be elsewhere than the data.
        if path.parent.stat().st_dev == waiting.parent.stat().st_dev:
            waiting.replace(path)
        else:
            beside = path.with_name(waiting.name)
            shutil.copyfile(waiting, beside)
            beside.chmod(0o600)
            sync_file(beside)
            beside.replace(path)
            sync_directory(path.parent)
            waiting.unlink()
        sync_directory(path.parent)
    sync_directory(waiting.parent)
