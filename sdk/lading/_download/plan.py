"""What a listing asks for. Pure: refuses listings that are unsafe, inconsistent, or not those of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lading._errors import IntegrityError, UnsafePath
from lading._model import EntryKind, ListedEntry
from lading._scan import PARTIAL_DIRECTORY
from lading_format.digest import format_digest, parse_digest
from lading_format.errors import FormatError, InvalidPath, PathConflict
from lading_format.tree import FileEntry, ReferenceEntry, TreeHasher


@dataclass(frozen=True, slots=True)
class Target:
    """A place where a blob is wanted."""

    path: str
    executable: bool


@dataclass(slots=True, eq=False)
class Wanted:
    """A blob that is wanted, and the places still without it: the first of them has the smallest path."""

    digest: bytes
    size_bytes: int
    targets: list[Target]


class Plan:
    """Takes a tree's listing, page by page.

    Args:
        tree_digest: The tree that was asked for, `b3:<64 hex>`.
        prefix: What was asked for of it. With one, the listing cannot be compared with the tree's digest.
    """

    def __init__(self, tree_digest: str, prefix: str) -> None:
        self.references: list[ListedEntry] = []
        self.size_bytes = 0
        self.file_count = 0
        self._tree_digest = tree_digest
        self._prefix = prefix
        self._hasher = TreeHasher()
        self._wanted: dict[bytes, Wanted] = {}

    def add(self, entries: Sequence[ListedEntry]) -> None:
        """Take the next page.

        Raises:
            UnsafePath: A path breaks the rules, collides with another, or is that of the SDK's own directory.
            IntegrityError: The listing is unsorted, has paths that were not asked for, or contradicts itself.
        """
        for entry in entries:
            try:
                self._add(entry)
            except (InvalidPath, PathConflict) as error:
                raise UnsafePath(
                    f"Nothing was written, for the server lists what cannot be: {error.message}",
                    reason=error.reason,
                    metadata=error.metadata,
                ) from error
            except FormatError as error:
                raise IntegrityError(f"Nothing was written, for the server's listing is wrong: {error}") from error
            if entry.path.split("/", 1)[0] == PARTIAL_DIRECTORY:
                raise UnsafePath(f"The tree has {entry.path!r}: {PARTIAL_DIRECTORY} is for unfinished files.")
            if not entry.path.startswith(self._prefix):
                raise IntegrityError(f"The server lists {entry.path!r}, which does not begin with {self._prefix!r}.")

    def finish(self) -> list[Wanted]:
        """Return what is wanted, in the order of the listing.

        Raises:
            IntegrityError: The listing is not that of the tree.
        """
        if not self._prefix:
            actual = format_digest(self._hasher.finish())
            if actual != self._tree_digest:
                raise IntegrityError(
                    f"Nothing was written, for the server sent the listing of {actual}, not of {self._tree_digest}."
                )
        return list(self._wanted.values())

    def _add(self, entry: ListedEntry) -> None:
        if entry.kind is EntryKind.REFERENCE:
            self._hasher.add(ReferenceEntry(entry.path, entry.uri, entry.checksum, entry.size_bytes))
            self.references.append(entry)
            return
        if entry.kind is not EntryKind.FILE or entry.size_bytes is None:
            raise IntegrityError(f"The server lists {entry.path!r} as a {entry.kind.value} or without a size.")
        digest = parse_digest(entry.digest)
        self._hasher.add(FileEntry(entry.path, digest, entry.size_bytes, entry.executable))
        wanted = self._wanted.setdefault(digest, Wanted(digest, entry.size_bytes, []))
        if wanted.size_bytes != entry.size_bytes:
            raise IntegrityError(f"The server lists {entry.digest} with two sizes. Nothing was written.")
        wanted.targets.append(Target(entry.path, entry.executable))
        self.size_bytes += entry.size_bytes
        self.file_count += 1
