"""Word in the data directory of work on the databases that has begun and not ended. No server starts over it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lading_server.common.database import DatabaseUnavailable

_NAME = "unfinished.json"


def read_unfinished(data: Path) -> dict[str, str]:
    """Return what was begun in the directory: `command` and whatever it needs to go on. Empty where nothing was."""
    try:
        note: dict[str, str] = json.loads((data / _NAME).read_text())
    except FileNotFoundError:
        return {}
    return note


def write_unfinished(data: Path, note: Mapping[str, str]) -> None:
    """Remember durably that something has begun."""
    write_durably(data / _NAME, json.dumps(note).encode())


def finish(data: Path) -> None:
    """Forget it."""
    with suppress(FileNotFoundError):
        os.unlink(data / _NAME)
    sync_directory(data)


def refuse_unfinished(data: Path) -> None:
    """Raise DatabaseUnavailable where a command has to be finished first."""
    note = read_unfinished(data)
    if note:
        raise DatabaseUnavailable(
            f"`{note['command']}` was interrupted, and the databases of {data} are not whole; run it again to its end"
        )


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, for its owner alone, under its name only when all of it is durable."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    _sync(path, os.O_RDONLY | os.O_CLOEXEC)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
