"""Trees: entries, the lines of a listing, and a tree's digest. docs/decisions/0001-tree-listing.md has the form."""

from __future__ import annotations

import re
from typing import NamedTuple

from lading_format.digest import DIGEST_BYTES, new_hasher
from lading_format.errors import InvalidDigest, InvalidReference, NotSorted, PathConflict
from lading_format.paths import PathConflicts, check_path

MAX_URI_BYTES = 4096
MAX_CHECKSUM_BYTES = 256

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_PRINTABLE = re.compile(r"[!-~]*")


class FileEntry(NamedTuple):
    """A stored file."""

    path: str
    digest: bytes
    size_bytes: int
    executable: bool


class ReferenceEntry(NamedTuple):
    """A file that lies elsewhere. An empty checksum, or a size of None, is not known."""

    path: str
    uri: str
    checksum: str
    size_bytes: int | None


TreeEntry = FileEntry | ReferenceEntry


def sort_key(path: str) -> bytes:
    """Return what trees are sorted by: the path's UTF-8 bytes."""
    return path.encode()


def check_reference(entry: ReferenceEntry) -> None:
    """Raise InvalidReference unless the entry says where something is."""
    if len(entry.uri) > MAX_URI_BYTES or not _URI.fullmatch(entry.uri):
        raise InvalidReference(
            f"the reference at {entry.path!r} has no usable URI: give a scheme and printable ASCII without spaces, "
            f"at most {MAX_URI_BYTES} bytes; escape the rest with %",
            path=entry.path,
        )
    if len(entry.checksum) > MAX_CHECKSUM_BYTES or not _PRINTABLE.fullmatch(entry.checksum):
        raise InvalidReference(
            f"the reference at {entry.path!r} has no usable checksum: printable ASCII without spaces, "
            f"at most {MAX_CHECKSUM_BYTES} bytes",
            path=entry.path,
        )


def listing_line(entry: TreeEntry) -> bytes:
    """Return the entry's line of the listing whose digest is the tree's.

    For a plain file it is what `b3sum` prints. An executable file has `x` in place of the second space. A reference
    has `ref`, URI and checksum (or `-`) in place of the digest.
    """
    path = entry.path
    escape = ""
    if "\n" in path:
        # As b3sum does it. A path has no backslash, so nothing else needs escaping.
        escape, path = "\\", path.replace("\n", "\\n")
    if isinstance(entry, FileEntry):
        return f"{escape}{entry.digest.hex()} {'x' if entry.executable else ' '}{path}\n".encode()
    return f"{escape}ref {entry.uri} {entry.checksum or '-'}  {path}\n".encode()


class TreeHasher:
    """The digest of a tree whose entries come sorted by path, and its totals.

    Invariant: every entry that was added is right by itself and goes together with those before it.
    """

    def __init__(self) -> None:
        self._hasher = new_hasher()
        self._conflicts = PathConflicts()
        self._last = b""
        self.file_count = 0
        self.reference_count = 0
        self.size_bytes = 0

    def add(self, entry: TreeEntry) -> None:
        """Take the next entry.

        Raises InvalidPath, NotSorted, PathConflict, InvalidDigest, InvalidReference.
        """
        check_path(entry.path)
        key = sort_key(entry.path)
        if key <= self._last:
            self._refuse_order(entry.path, key)
        self._last = key
        self._conflicts.add(entry.path)
        if isinstance(entry, FileEntry):
            if len(entry.digest) != DIGEST_BYTES:
                raise InvalidDigest(f"{entry.path!r} has a digest of {len(entry.digest)} bytes and not {DIGEST_BYTES}")
            self.file_count += 1
            self.size_bytes += entry.size_bytes
        else:
            check_reference(entry)
            self.reference_count += 1
        self._hasher.update(listing_line(entry))

    def finish(self) -> bytes:
        """Return the tree's digest."""
        return self._hasher.digest()

    def _refuse_order(self, path: str, key: bytes) -> None:
        if key == self._last:
            raise PathConflict(f"path {path!r} is in the tree twice; keep one of them", path=path, other=path)
        raise NotSorted(
            f"path {path!r} comes after {self._last.decode()!r} and should come before it; "
            "sort the entries by the UTF-8 bytes of their paths",
            path=path,
        )
