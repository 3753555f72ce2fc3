"""The command line of this package: what `lading backup`, `lading restore` and `lading rebuild-index` become."""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from lading_format.errors import ReasonedError
from lading_server.common.database import DatabaseUnavailable
from lading_server.common.settings import Settings
from lading_server.ingest.packs.local import StoreLocked
from lading_server.ingest.rebuild.report import Findings, Report
from lading_server.maintenance.backup import make_backup
from lading_server.maintenance.halves import MaintenanceRefused, Places
from lading_server.maintenance.rebuild import rebuild_index
from lading_server.maintenance.restore import restore_backup, warning_of

EXIT_OK, EXIT_FAILED, EXIT_DAMAGED, EXIT_INTERRUPTED = 0, 1, 4, 130
_PROGRESS_SECONDS = 5.0

_ERRORS = (
    MaintenanceRefused,
    StoreLocked,
    DatabaseUnavailable,
    ReasonedError,
    SQLAlchemyError,
    sqlite3.Error,
    OSError,
)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run a command; return the exit code."""
    options = _parser(environment).parse_args(arguments)
    places = Places(Path(options.data), options.database_url, options.registry_database_url)
    try:
        return int(asyncio.run(options.run(options, places)))
    except _ERRORS as error:
        sys.stderr.write(f"lading {options.command}: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write(f"lading {options.command}: interrupted; run it again\n")
        return EXIT_INTERRUPTED


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lading", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    for name, text in (
        ("data", "data directory of the server"),
        ("database_url", "ingest's database, if it is in PostgreSQL"),
        ("registry_database_url", "the registry's database, if it is in PostgreSQL"),
    ):
        variable = f"LADING_{name.upper()}"
        default = environment.get(variable, getattr(Settings, name))
        metavar = name.rpartition("_")[2].upper()
        # The default is not shown: it may hold a password.
        shared.add_argument(
            f"--{name.replace('_', '-')}", metavar=metavar, default=default, help=f"{text} [{variable}]"
        )
    backup = commands.add_parser(
        "backup",
        parents=[shared],
        allow_abbrev=False,
        help="back the databases up while the server serves",
        description="Back both databases up, into a new directory below DIR, while the server serves. Not the packs.",
    )
    backup.add_argument("directory", metavar="DIR", help="where backups are kept")
    backup.add_argument("--keep", metavar="N", type=_count, default=0, help="remove older ones than the last N")
    backup.set_defaults(run=_backup)
    restore = commands.add_parser(
        "restore",
        parents=[shared],
        allow_abbrev=False,
        help="put a backup in the place of lost databases",
        description="Put a backup in the place of lost databases. Stop the server first.",
    )
    restore.add_argument("directory", metavar="DIR", help="a backup, or where backups are kept: the newest one")
    restore.add_argument(
        "--force", action="store_true", help="keep databases that are there under other names; take an old backup"
    )
    restore.set_defaults(run=_restore)
    rebuild = commands.add_parser(
        "rebuild-index",
        parents=[shared],
        allow_abbrev=False,
        help="make ingest's database from the packs",
        description="Make ingest's database from the packs, every record verified. Stop the server first.",
    )
    what = rebuild.add_mutually_exclusive_group()
    what.add_argument("--catch-up", action="store_true", help="keep the database that is there; add what it lacks")
    what.add_argument("--force", action="store_true", help="keep it under another name and make another")
    rebuild.add_argument(
        "--trust-recipes", action="store_true", help="do not read files of many chunks once more for their digest"
    )
    rebuild.set_defaults(run=_rebuild)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of backups: write 1 or more")
    return int(text)


async def _backup(options: argparse.Namespace, places: Places) -> int:
    sys.stdout.write(f"{await make_backup(Path(options.directory), places, keep=options.keep)}\n")
    return EXIT_OK


async def _restore(options: argparse.Namespace, places: Places) -> int:
    report = await restore_backup(
        Path(options.directory), places, force=options.force, on_progress=_progress("lading restore")
    )
    warning = warning_of(Path(options.directory), time.time())
    if warning:
        sys.stdout.write(f"Note: {warning}.\n")
    return _told(report, "The backup is restored, and knows all packs.")


async def _rebuild(options: argparse.Namespace, places: Places) -> int:
    report = await rebuild_index(
        places,
        catch_up=options.catch_up,
        force=options.force,
        trusts_recipes=options.trust_recipes,
        on_progress=_progress("lading rebuild-index"),
    )
    return _told(report, "The index knows all packs.")


def _progress(command: str) -> Callable[[Report], None]:
    """Return what writes a line now and then."""
    written = time.monotonic()

    def write(report: Report) -> None:
        nonlocal written
        if time.monotonic() - written >= _PROGRESS_SECONDS:
            written = time.monotonic()
            left = report.packs - report.packs_known
            sys.stderr.write(
                f"{command}: {report.packs_adopted:,} of {left:,} packs, {report.read_bytes / 1e9:,.1f} GB, "
                f"{report.blobs:,} blobs, {report.trees:,} trees\n"
            )

    return write


def _told(report: Report, done: str) -> int:
    """Say what it came to; return the exit code."""
    sys.stdout.write(
        f"{done} {report.packs:,} packs, {report.packs_known:,} of them known before: "
        f"{report.chunks:,} chunks and pages, {report.blobs:,} blobs and {report.trees:,} trees were read.\n"
        "Pins are not in packs: with the next start the server pins again what the registry keeps, and it collects "
        "nothing before that.\n"
    )
    for findings, what in (
        (report.lost_packs, "packs are lost"),
        (report.damaged_records, "records are damaged"),
        (report.damaged_blobs, "blobs are not whole"),
        (report.damaged_trees, "trees are not whole"),
    ):
        _list(findings, what)
    return EXIT_OK if report.is_whole else EXIT_DAMAGED


def _list(findings: Findings, what: str) -> None:
    if findings.count:
        sys.stdout.write(f"{findings.count:,} {what}; uploading the same content again heals it:\n")
        sys.stdout.writelines(f"  {text}\n" for text in findings.named)
        if findings.count > len(findings.named):
            sys.stdout.write(f"  and {findings.count - len(findings.named):,} more\n")
