"""What a backup says of itself, and whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from lading_server.common.unfinished import write_durably
from lading_server.maintenance.halves import HALVES, Half, MaintenanceRefused

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class FileOfBackup:
    """One of the files: the moment that it shows, the revision of its schema, and its digest."""

    taken_at_ms: int
    schema: str
    size_bytes: int
    blake3: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a backup that its files do not say by themselves.

    `trash_seconds` is for how long the server kept what was collected, and `revision` that of the last event.
    """

    store_id: str
    server_version: str
    revision: int
    trash_seconds: float
    files: dict[str, FileOfBackup]

    def write(self, directory: Path) -> None:
        """Write it, durably: with it the backup is complete."""
        content = {"format": _FORMAT, **asdict(self)}
        write_durably(directory / MANIFEST, json.dumps(content, indent=2).encode() + b"\n")

    def age_seconds(self, now: float) -> float:
        """Return how old the older of the files is."""
        return now - min(file.taken_at_ms for file in self.files.values()) / 1000


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of a backup. Raises MaintenanceRefused where there is none that can be used."""
    try:
        content: dict[str, Any] = json.loads((directory / MANIFEST).read_text())
        if content.pop("format") != _FORMAT:
            raise MaintenanceRefused(f"{directory} was made by a newer version of this program; update it")
        files = {name: FileOfBackup(**file) for name, file in content.pop("files").items()}
        manifest = Manifest(files=files, **content)
    except FileNotFoundError as error:
        raise MaintenanceRefused(f"{directory} is no backup: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MaintenanceRefused(f"{directory / MANIFEST} cannot be read: {error}; take another backup") from error
    if set(files) != {half.name for half in HALVES}:
        raise MaintenanceRefused(f"{directory} has not both databases; take another backup")
    return manifest


def check_files(directory: Path, manifest: Manifest) -> None:
    """Raise MaintenanceRefused unless the files are what the manifest says, and of a schema that is known here."""
    for half in HALVES:
        file = manifest.files[half.name]
        if file.schema not in half.revisions():
            raise MaintenanceRefused(
                f"{directory} was made by version {manifest.server_version}, which is newer; update this program"
            )
        path = directory / half.file_name
        if not path.exists() or digest_of(path) != file.blake3:
            raise MaintenanceRefused(f"{path} is not what was backed up: its digest is another; take another backup")


def complete_backups(directory: Path) -> Iterator[Path]:
    """Yield the complete backups in a directory of them, the oldest first."""
    for path in sorted(directory.iterdir()):
        if not path.name.startswith(".") and (path / MANIFEST).exists():
            yield path


def describe(half: Half, file: Path, schema: str, taken_at_ms: int) -> FileOfBackup:
    """Return what the manifest says of a file."""
    return FileOfBackup(taken_at_ms, schema, file.stat().st_size, digest_of(file))


def digest_of(path: Path) -> str:
    """Return what `b3sum` prints of a file."""
    return blake3().update_mmap(path).hexdigest() if path.stat().st_size else blake3().hexdigest()
