"""What the SDK takes and returns: plain values that know no protocol."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lading._progress import Progress

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that Lading names but does not hold.

    Attributes:
        uri: Where it is: `s3://bucket/key`. Printable ASCII without spaces.
        checksum: What the other side calls its content: an ETag, `sha256:…`. Empty when not known.
        size_bytes: Its size, if known.
    """

    uri: str
    checksum: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TreeInfo:
    """A tree's name and totals.

    Attributes:
        digest: `b3:<64 hex>`, the `b3sum` of the tree's sorted `b3sum` listing.
        file_count: How many entries are files.
        reference_count: How many entries are references.
        size_bytes: The sum of the files' sizes; references are not counted.
    """

    digest: str
    file_count: int
    reference_count: int
    size_bytes: int


class EntryKind(Enum):
    """What a path of a tree is."""

    FILE = "file"
    REFERENCE = "reference"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """One line of a listing.

    Attributes:
        path: The path; that of a directory ends with `/`.
        kind: What it is. Directories are listed only with `fold_directories`.
        digest: A file's `b3:<64 hex>`; else empty.
        size_bytes: The size; None for directories and where a reference's is not known.
        executable: Whether a file may be executed.
        uri: Where a reference's bytes are; else empty.
        checksum: A reference's checksum, if it has one.
    """

    path: str
    kind: EntryKind
    digest: str = ""
    size_bytes: int | None = None
    executable: bool = False
    uri: str = ""
    checksum: str = ""


class ChangeKind(Enum):
    """How a path differs between two trees."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class PathChange:
    """One path that differs: what it was (None when added) and what it is (None when removed)."""

    path: str
    kind: ChangeKind
    before: ListedEntry | None
    after: ListedEntry | None


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A stored file's digest `b3:<64 hex>`, size and number of chunks."""

    digest: str
    size_bytes: int
    chunk_count: int


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What UploadFile stored: the digest, the size, and how many bytes the entity did not have before."""

    digest: str
    size_bytes: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server is: its version, and its limits by name (bytes, seconds or a count; the name ends with which)."""

    server_version: str
    limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an entity stores.

    Attributes:
        used_bytes: Of its content, each chunk once, with what frames it.
        limit_bytes: How much that may be; None for any amount.
    """

    used_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class UploadResult:
    """A tree that is stored.

    Attributes:
        tree: Its digest and totals.
        already_present: Whether the entity had it before.
        transfer: What travelled and what was spared.
    """

    tree: TreeInfo
    already_present: bool
    transfer: Progress


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """A tree that is on disk.

    Attributes:
        root: The directory that holds it.
        references: Entries that lie elsewhere and were not fetched.
        transfer: What travelled and what was there.
    """

    root: Path
    references: tuple[ListedEntry, ...]
    transfer: Progress
