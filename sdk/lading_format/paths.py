"""What a path of a tree may be, and which paths do not go together. Checked on the way in and on the way out."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from xxhash import xxh3_128_digest

from lading_format.errors import InvalidPath, NotSorted, PathConflict

# Linux allows 4,096 for a whole path and 255 for a part; this leaves room for where a tree is put.
MAX_PATH_BYTES = 1024

# Every path that breaks no rule but perhaps the one about length. Surrogates are what UTF-8 cannot say.
_VALID = re.compile(
    r"(?![A-Za-z]:)(?!\.\.?(?:/|\Z))[^/\\\0\ud800-\udfff]++(?:/(?!\.\.?(?:/|\Z))[^/\\\0\ud800-\udfff]++)*+\Z"
)
_DRIVE = re.compile(r"[A-Za-z]:")
# Up to so many characters a path cannot be too long: UTF-8 has at most four bytes for one.
_SURELY_SHORT = MAX_PATH_BYTES // 4
# What a message shows of a path. Two paths with their escapes have to fit the 8 KiB that gRPC allows for metadata.
_SHOWN_CHARACTERS = 200

# Names that are kept as they are, to tell both of two that conflict: about 12 MiB. Others take 18 bytes.
_EXACT_NAMES = 1 << 16
_BUCKETS = 1 << 16


def check_path(path: str) -> None:
    """Raise InvalidPath unless `path` may stand in a tree.

    Relative, `/`-separated, UTF-8, at most MAX_PATH_BYTES; no empty, `.` or `..` part, no NUL, no backslash, no drive.
    """
    if _VALID.match(path) and (len(path) <= _SURELY_SHORT or len(path.encode()) <= MAX_PATH_BYTES):
        return
    rule = _broken_rule(path)
    raise InvalidPath(f"path {shown(path)} cannot be in a tree: {rule}", path=_printable(path), rule=rule)


def _broken_rule(path: str) -> str:
    if not path:
        return "it is empty"
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if size_bytes > MAX_PATH_BYTES:
        return f"it has {size_bytes} bytes and may have {MAX_PATH_BYTES}"
    if "\0" in path:
        return "it has a NUL character"
    if "\\" in path:
        return "it has a backslash; separate parts with /"
    if path.startswith("/"):
        return "it is absolute; make it relative"
    if _DRIVE.match(path):
        return "it begins with a drive; make it relative"
    if "" in path.split("/"):
        return "it has an empty part; write one / between parts and none at the end"
    return "it has a . or .. part"


def _printable(path: str) -> str:
    return path[:MAX_PATH_BYTES].encode(errors="replace").decode()


def shown(path: str) -> str:
    """Return a path as messages have it: quoted, and cut if it is long."""
    return repr(path) if len(path) <= _SHOWN_CHARACTERS else f"{path[:_SHOWN_CHARACTERS]!r}…"


def fold(name: str) -> str:
    """Return the form in which names are equal that some file systems take for one.

    Canonical caseless matching, definition D145 of the Unicode standard: NFD, casefold, NFD. NFC in place of the last
    step would do as well; without the first, a name with a mark that has a case of its own (U+0345) would be missed.
    Letters that Unicode added after the interpreter was made fold to themselves.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class _Directory(NamedTuple):
    """A directory in which at least two names were seen, while more may come."""

    prefix: str
    names: dict[str, str]


class PathConflicts:
    """Finds, among paths that come sorted by their bytes, two that cannot be in one tree.

    These are: the same path twice; a file and a directory of one name; and names of files or directories that differ
    only by case or normalization, so that on some systems one would overwrite the other. Two paths conflict exactly
    if somewhere two names *in one directory* do, and the paths of a directory come together. So names are kept while
    their directory is open, and only where it has two. There are at most two for each path, however deep it is.

    Memory: about 12 MiB for the first 65,536 names of open directories, kept as they are; 18 bytes a name beyond them,
    kept as hash of 128 bits: two names of which neither is among those kept are told as one path and its folded form.
    """

    def __init__(self) -> None:
        self._last = ""
        self._files: list[str] = []
        self._open: list[_Directory] = []
        self._exact_left = _EXACT_NAMES
        self._hashed: list[bytearray] = []

    def add(self, path: str) -> None:
        """Take the next path. It has passed `check_path`.

        Raises:
            NotSorted: It should come before the one before it.
            PathConflict: With `path` and `other`, the files or directories that conflict.
        """
        last = self._last
        # Code points sort as their UTF-8 bytes do.
        if path <= last:
            raise _out_of_order(path, last)
        self._last = path
        self._check_file(path)
        directories = self._open
        while directories and not path.startswith(directories[-1].prefix):
            self._exact_left += len(directories.pop().names)
        if not last:
            return
        if directories:
            directory = directories[-1]
            begin = len(directory.prefix)
            name = path[begin:].partition("/")[0]
            if name != last[begin:].partition("/")[0]:
                self._note(directory, name)
                return
        self._branch(path, last)

    def _check_file(self, path: str) -> None:
        """Raise if a file before this one is a directory of it.

        `_files` are the files of which the next path could be in a directory of that name: each begins the one after
        it. Only the last can be one: if an earlier one were, the last would have been refused.
        """
        files = self._files
        while files and not path.startswith(files[-1]):
            files.pop()
        if files:
            file = files[-1]
            if path[len(file)] == "/":
                raise PathConflict(
                    f"path {shown(file)} is a file, and {shown(path)} needs a directory of that name; rename one",
                    path=path,
                    other=file,
                )
        files.append(path)

    def _branch(self, path: str, last: str) -> None:
        """Open the directory in which this path is the first to leave the way of the last one."""
        parts, last_parts = path.split("/"), last.split("/")
        depth = next(depth for depth, (new, old) in enumerate(zip(parts, last_parts, strict=False)) if new != old)
        prefix = "".join([f"{part}/" for part in parts[:depth]])
        directory = _Directory(prefix, {})
        self._open.append(directory)
        self._note(directory, last_parts[depth])
        self._note(directory, parts[depth])

    def _note(self, directory: _Directory, name: str) -> None:
        """Keep a name that is new in its directory."""
        folded = fold(name)
        other = directory.names.get(folded)
        if other is not None:
            path, other = directory.prefix + name, directory.prefix + other
            raise PathConflict(
                f"paths {shown(other)} and {shown(path)} differ only by case or Unicode normalization, and are one "
                "on some systems; rename one",
                path=path,
                other=other,
            )
        if not self._hashed and self._exact_left:
            directory.names[folded] = name
            self._exact_left -= 1
        else:
            self._note_hash(directory, name, folded)

    def _note_hash(self, directory: _Directory, name: str, folded: str) -> None:
        key = xxh3_128_digest((directory.prefix + folded).encode())
        if not self._hashed:
            self._hashed = [bytearray() for _ in range(_BUCKETS)]
        bucket = self._hashed[key[0] << 8 | key[1]]
        # A match that begins within another key is as unlikely as two equal keys, 2^-128, so it is not told apart.
        if bucket.find(key) >= 0:
            path, other = directory.prefix + name, directory.prefix + folded
            raise PathConflict(
                f"path {shown(path)} and one before it differ only by case or Unicode normalization (both fold to "
                f"{shown(other)}), and are one on some systems; rename one",
                path=path,
                other=other,
            )
        bucket += key


def _out_of_order(path: str, last: str) -> NotSorted | PathConflict:
    if path == last:
        return PathConflict(f"path {shown(path)} is in the tree twice; keep one of them", path=path, other=path)
    return NotSorted(
        f"path {shown(path)} comes after {shown(last)} and should come before it; "
        "sort the entries by the UTF-8 bytes of their paths",
        path=path,
    )
