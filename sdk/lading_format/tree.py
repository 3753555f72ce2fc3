"""Trees: entries, the lines of a listing, and a tree's digest. docs/decisions/0001-tree-listing.md has the form."""

from __future__ import annotations

import re
from typing import NamedTuple

from lading_format.digest import DIGEST_BYTES, new_hasher
from lading_format.errors import InvalidDigest, InvalidReference
from lading_format.paths import PathConflicts, check_path, shown

# An object store's longest key, 1,024 bytes, takes three times that when every byte is escaped; and room for a query.
MAX_URI_BYTES = 4096
# A SHA-512 in hexadecimal has 128.
MAX_CHECKSUM_BYTES = 256

# A scheme has two letters at least: with one, it is the drive of a Windows path.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[!-~]+")
_CHECKSUM = re.compile(r"(?!-\Z)[!-~]*")
_ESCAPED = re.compile(r"[\n\r]")
# Lines that are hashed at once: a call of the hasher costs more than a line.
_LINES = 512


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
    """Return what trees are sorted by: the path's UTF-8 bytes. Raises UnicodeEncodeError where it has none."""
    return path.encode()


def check_reference(entry: ReferenceEntry) -> None:
    """Raise InvalidReference unless the entry says where something is.

    The URI has a scheme and is printable ASCII without spaces, at most MAX_URI_BYTES. So is the checksum, at most
    MAX_CHECKSUM_BYTES; it may be empty, but not `-`, which a listing has for an empty one.
    """
    if len(entry.uri) > MAX_URI_BYTES or not _URI.fullmatch(entry.uri):
        raise _unusable(
            entry,
            f"has no usable URI: give a scheme and printable ASCII without spaces, at most {MAX_URI_BYTES} bytes; "
            "escape the rest with %",
        )
    if len(entry.checksum) > MAX_CHECKSUM_BYTES or not _CHECKSUM.fullmatch(entry.checksum):
        raise _unusable(
            entry,
            "has no usable checksum: printable ASCII without spaces and not just `-`, at most "
            f"{MAX_CHECKSUM_BYTES} bytes; leave it empty if none is known",
        )
    if entry.size_bytes is not None and entry.size_bytes < 0:
        raise _unusable(entry, f"has a size of {entry.size_bytes} bytes; leave it out if none is known")


def _unusable(entry: ReferenceEntry, what: str) -> InvalidReference:
    return InvalidReference(f"the reference at {shown(entry.path)} {what}", path=entry.path)


def listing_line(entry: TreeEntry) -> bytes:
    """Return the entry's line of the listing whose digest is the tree's.

    For a plain file it is what `b3sum` prints. An executable file has `x` in place of the second space. A reference
    has `ref`, URI and checksum (or `-`) in place of the digest.
    """
    path = entry.path
    escape = ""
    if _ESCAPED.search(path):
        # As b3sum 1.5.5 and later do it. A path has no backslash, so nothing else needs escaping.
        escape, path = "\\", path.replace("\n", "\\n").replace("\r", "\\r")
    if isinstance(entry, FileEntry):
        return f"{escape}{entry.digest.hex()} {'x' if entry.executable else ' '}{path}\n".encode()
    return f"{escape}ref {entry.uri} {entry.checksum or '-'}  {path}\n".encode()


class TreeHasher:
    """The digest of a tree whose entries come sorted by path, and its totals.

    Invariant: every entry that was added is right by itself and goes together with those before it.

    Attributes:
        file_count: Files so far.
        reference_count: References so far.
        size_bytes: The sum of the files' sizes. References are not counted.
    """

    def __init__(self) -> None:
        self._hasher = new_hasher()
        self._lines: list[bytes] = []
        self._conflicts = PathConflicts()
        self.file_count = 0
        self.reference_count = 0
        self.size_bytes = 0

    def add(self, entry: TreeEntry) -> None:
        """Take the next entry.

        Raises:
            InvalidPath: Its path breaks a rule.
            NotSorted: It should come before the one before it.
            PathConflict: Its path does not go together with one before it.
            InvalidDigest: Its digest is not 32 bytes long.
            InvalidReference: It does not say where something is.
        """
        path = entry.path
        check_path(path)
        self._conflicts.add(path)
        if isinstance(entry, FileEntry):
            if len(entry.digest) != DIGEST_BYTES:
                raise InvalidDigest(f"{shown(path)} has a digest of {len(entry.digest)} bytes and not {DIGEST_BYTES}")
            self.file_count += 1
            self.size_bytes += entry.size_bytes
        else:
            check_reference(entry)
            self.reference_count += 1
        self._lines.append(listing_line(entry))
        if len(self._lines) == _LINES:
            self._hash_lines()

    def finish(self) -> bytes:
        """Return the tree's digest, 32 bytes."""
        self._hash_lines()
        return self._hasher.digest()

    def _hash_lines(self) -> None:
        self._hasher.update(b"".join(self._lines))
        self._lines.clear()
