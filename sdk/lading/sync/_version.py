"""A version for code without an event loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lading._model import ListedEntry, PathChange, StrPath
from lading._progress import ProgressCallback
from lading._verify import VerifyResult
from lading._version import Version as NativeVersion
from lading.sync._items import Items
from lading.sync._loop import run
from lading.sync._remote_file import RemoteFile


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a collection: what is known of it, and a way to its files. See `lading.Version`.

    Attributes:
        native: The same for code with an event loop. Its methods belong to the background loop.
    """

    uid: str
    entity: str
    project: str
    collection: str
    number: int
    type: str
    digest: str
    size_bytes: int
    file_count: int
    reference_count: int
    description: str
    metadata: Mapping[str, Any] = field(hash=False)
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    created_at: datetime
    created_by: str
    run_id: str
    is_link: bool
    source: str
    source_uid: str
    expires_at: datetime | None
    deleted_at: datetime | None
    purge_at: datetime | None
    native: NativeVersion = field(repr=False, compare=False)

    @classmethod
    def of(cls, version: NativeVersion) -> Version:
        """Return the same version for code without an event loop."""
        names = (item.name for item in fields(cls) if item.name != "native")
        return cls(**{name: getattr(version, name) for name in names}, native=version)

    @property
    def name(self) -> str:
        """Its short name: `digits:v3`."""
        return self.native.name

    @property
    def reference(self) -> str:
        """Its full name, which always means this version: `acme/vision/digits:v3`."""
        return self.native.reference

    @property
    def is_latest(self) -> bool:
        """Whether it was the newest of its collection."""
        return self.native.is_latest

    def __str__(self) -> str:
        return self.reference

    def download(
        self,
        root: StrPath | None = None,
        *,
        prefix: str = "",
        link: Literal["hard"] | None = None,
        on_progress: ProgressCallback | None = None,
    ) -> Path:
        """Write the version's files below `root` and return it. See `lading.Version.download`."""
        return run(self.native.download(root, prefix=prefix, link=link, on_progress=on_progress))

    def files(self, prefix: str = "", fold_directories: bool = False) -> Items[ListedEntry]:
        """Iterate over what the version holds. See `lading.Version.files`."""
        return Items(self.native.files(prefix, fold_directories))

    @contextmanager
    def open(self, path: str) -> Iterator[RemoteFile]:
        """Open a file for reading without downloading it. See `lading.Version.open`."""
        opened = self.native.open(path)
        remote = run(opened.__aenter__())
        try:
            with RemoteFile(remote) as file:
                yield file
        finally:
            run(opened.__aexit__(None, None, None))

    def read_bytes(self, path: str) -> bytes:
        """Return a whole file. See `lading.Version.read_bytes`."""
        return run(self.native.read_bytes(path))

    def verify(self, directory: StrPath) -> VerifyResult:
        """Compare a directory with the version. See `lading.Version.verify`."""
        return run(self.native.verify(directory))

    def diff(self, other: Version) -> Items[PathChange]:
        """Iterate over the paths that differ. See `lading.Version.diff`."""
        return Items(self.native.diff(other.native))


def native_of(reference: str | Version) -> str | NativeVersion:
    """Return what the asynchronous side takes for a reference."""
    return reference.native if isinstance(reference, Version) else reference
