"""Finds the files to upload, and their paths in the tree. Reads no content and follows no link."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lading._errors import InvalidArgument, UnsafePath
from lading._local_files import FilesBelow, LocalFile
from lading._model import Reference, StrPath
from lading_format.errors import InvalidPath, PathConflict
from lading_format.paths import PathConflicts, check_path
from lading_format.tree import sort_key

PARTIAL_DIRECTORY = ".lading-partial"
"""Where downloads keep unfinished files, below their root. Never uploaded."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a tree is to be made of.

    Attributes:
        files: Sorted by path.
        references: The same.
        size_bytes: Of all files together.
    """

    files: Sequence[LocalFile]
    references: list[tuple[str, Reference]]
    size_bytes: int


class Patterns:
    """Which paths a caller wants. The same rules as .gitignore has, as far as they are the obvious ones:

    `*` and `?` stop at `/`; `**` does not; a pattern without `/` matches a name at any depth; one with `/` is read
    from the root; a pattern that matches a directory matches everything below it.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = [_compiled(pattern) for pattern in _sequence(include, "include")]
        self._exclude = [_compiled(pattern) for pattern in _sequence(exclude, "exclude")]

    def excludes(self, path: str) -> bool:
        """Whether this file, or directory and everything in it, is to be left out."""
        return bool(self._exclude) and any(pattern.fullmatch(path) for pattern in self._exclude)

    def includes(self, path: str) -> bool:
        """Whether this file is asked for, by itself or through a directory above it."""
        if not self._include:
            return True
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        return any(pattern.fullmatch(candidate) for pattern in self._include for candidate in above)


def scan_directory(root: StrPath, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Source:
    """Return the files below `root`.

    Args:
        root: A directory. It may itself be a link.
        include: Patterns of what to take; empty for everything. See Patterns.
        exclude: Patterns of what to leave out, even where `include` asks for it.

    Raises:
        InvalidArgument: `root` is no directory, or a name in it cannot be a tree's path.
        UnsafePath: There is a link, a socket or a device that `exclude` does not leave out. Links are refused even
            where they stay inside `root`: a tree has none, and a silent copy would surprise whoever downloads it.
    """
    start = os.fspath(root)
    if not os.path.isdir(start):
        raise InvalidArgument(f"{start!r} is not a directory. To upload single files, give a mapping of paths to them.")
    patterns = Patterns(include, exclude)
    packed: list[bytes] = []
    waiting = [(start, "")]
    while waiting:
        directory, prefix = waiting.pop()
        waiting += _scan_one(directory, prefix, patterns, packed)
    files = FilesBelow(start, packed)
    _check(files.paths())
    return Source(files, [], files.size_bytes)


def scan_mapping(entries: Mapping[str, StrPath | Reference]) -> Source:
    """Return the files and references that a caller listed by tree path. Links to files are followed: they were named.

    Raises:
        InvalidArgument: A path breaks the rules of a tree, or what it maps to is not a file.
    """
    files: list[LocalFile] = []
    references: list[tuple[str, Reference]] = []
    ordered = sorted(entries, key=_key)
    _check(ordered)
    for path in ordered:
        entry = entries[path]
        if isinstance(entry, Reference):
            references.append((path, entry))
            continue
        if isinstance(entry, LocalFile):
            # As it was found then: what was changed since is found out when it is read.
            files.append(entry._replace(path=path))
            continue
        location = os.path.realpath(entry)
        try:
            status = os.stat(location)
        except OSError as error:
            raise InvalidArgument(f"{path!r} cannot be uploaded: {error.strerror}: {os.fspath(entry)!r}.") from error
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"{path!r} maps to {os.fspath(entry)!r}, which is not a regular file.")
        files.append(LocalFile.of(path, location, status))
    return Source(files, references, sum(file.size_bytes for file in files))


def _scan_one(directory: str, prefix: str, patterns: Patterns, packed: list[bytes]) -> list[tuple[str, str]]:
    """Add one directory's files; return its directories."""
    below: list[tuple[str, str]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            path = prefix + entry.name
            if path == PARTIAL_DIRECTORY or patterns.excludes(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append((entry.path, f"{path}/"))
            elif entry.is_file(follow_symlinks=False):
                if patterns.includes(path):
                    packed.append(_pack(path, entry.stat(follow_symlinks=False)))
            elif patterns.includes(path):
                what = "a symbolic link" if entry.is_symlink() else "neither a file nor a directory"
                raise UnsafePath(
                    f"{entry.path!r} is {what}, which a tree cannot hold. Exclude it (exclude=[{path!r}]), "
                    "or replace it by the file that it stands for."
                )
    return below


def _pack(path: str, status: os.stat_result) -> bytes:
    try:
        return FilesBelow.pack(path, status)
    except UnicodeEncodeError as error:
        raise _not_utf8(path) from error


def _key(path: str) -> bytes:
    try:
        return sort_key(path)
    except UnicodeEncodeError as error:
        raise _not_utf8(path) from error


def _not_utf8(path: str) -> InvalidArgument:
    return InvalidArgument(f"The name {path!r} is not UTF-8. Rename it, or exclude it.")


def _check(paths: Iterable[str]) -> None:
    """Raise unless these sorted paths can be one tree."""
    conflicts = PathConflicts()
    try:
        for path in paths:
            check_path(path)
            conflicts.add(path)
    except (InvalidPath, PathConflict) as error:
        raise InvalidArgument(error.message, reason=error.reason, metadata=error.metadata) from error


def _sequence(patterns: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(patterns, str):
        raise InvalidArgument(f"{name} is a sequence of patterns: write {name}=[{patterns!r}].")
    return patterns


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression for one pattern; it matches a path or the directory above it."""
    body = pattern.rstrip("/")
    anchored = "/" in body
    body = body.lstrip("/")
    # The last alternative matches any character, so that the tokens are the whole pattern.
    expression = "".join([_translated(token) for token in _TOKEN.findall(body)])
    return re.compile(expression if anchored else f"(?:.*/)?{expression}", re.DOTALL)


_TOKEN = re.compile(r"\*\*/|/\*\*$|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)


def _translated(token: str) -> str:
    fixed = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    if token in fixed:
        return fixed[token]
    if len(token) > 2 and token[0] == "[" and token[-1] == "]":
        negated = token[1] == "!"
        return f"[{'^' if negated else ''}{re.escape(token[2 if negated else 1 : -1]).replace(chr(92) + '-', '-')}]"
    return re.escape(token)
