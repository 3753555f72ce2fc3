"""What is about to become a version: files, references and what is said of them, gathered before any of it is sent."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from lading._errors import AlreadyExists, InvalidArgument, NotFound, format_errors
from lading._json import plain_object
from lading._local_files import LocalFile
from lading._model import Reference, StrPath
from lading._scan import scan_directory, scan_mapping
from lading_format.names import check_collection, check_type
from lading_format.paths import check_path, fold


class Artifact:
    """A version in the making: log it with `run.log_artifact`, or put it with a client.

    Making one reads and writes nothing. Adding a file notes its size and time, and reads it only when the artifact is
    logged: a file that was changed after it was added is FileChanged then, never content that nobody chose.

    For one thread at a time. An artifact can be logged more than once, and be added to in between; what is logged is
    what it holds at that moment.

    Attributes:
        name: The collection that it becomes a version of.
        type: The collection's type, `dataset`, `model`; empty to take that of the collection, which is there then.
        description: Its card, in Markdown.
        metadata: What else is to be known of it; a JSON object. Changing it changes what is logged next.
    """

    def __init__(
        self,
        name: str,
        *,
        type: str,  # noqa: A002 - the word of the whole trade
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an artifact without content.

        Raises:
            InvalidArgument: `name` or `type` breaks its rules, or `metadata` is not a JSON object.
        """
        with format_errors():
            self.name = check_collection("", name)
            self.type = check_type(type) if type else ""
        self.description = description
        self.metadata: dict[str, Any] = dict(metadata or {})
        plain_object(self.metadata, "metadata")
        self._entries: dict[str, LocalFile | Reference] = {}
        self._names = _Names()
        self._staging: Path | None = None
        self._staged = 0

    def entries(self) -> Mapping[str, StrPath | Reference]:
        """Return paths of the tree, in the order of adding, and the local file or the Reference for each: a copy."""
        return dict(self._entries)

    @classmethod
    def of(cls, path: StrPath, name: str | None = None, type: str | None = None) -> Artifact:  # noqa: A002
        """Return an artifact of one file, or of what is below a directory.

        Args:
            path: The file or the directory.
            name: The collection. Default: the last part of `path`.
            type: As in the constructor.

        Raises:
            InvalidArgument: There is neither, or a name breaks its rules.
            UnsafePath: As in `add_dir`.
        """
        location = os.path.abspath(path)
        artifact = cls(name if name is not None else os.path.basename(location), type=type or "")
        if os.path.isdir(location):
            artifact.add_dir(location)
        else:
            artifact.add_file(location)
        return artifact

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"<lading.Artifact {self.name!r} of type {self.type!r} with {len(self)} entries>"

    def add_file(self, path: StrPath, name: str | None = None) -> None:
        """Add a file. A link to a file is followed.

        Args:
            path: The file.
            name: Its path in the artifact. Default: the last part of `path`.

        Raises:
            InvalidArgument: There is no such file, or `name` cannot be a path of a tree.
            AlreadyExists: The artifact has that path, or one that does not go together with it.
        """
        target = name if name is not None else os.path.basename(os.fspath(path))
        self._names.check(target)
        (found,) = scan_mapping({target: path}).files
        self._add(target, found)

    def add_dir(
        self, path: StrPath, name: str | None = None, *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        """Add the files below a directory. All of them, or none when one cannot be added.

        Args:
            path: The directory.
            name: The directory of the artifact that they come to lie in. Default: its root.
            include: Only files that match one of these patterns, or are below a directory that does. `*` and `?`
                stop at `/`, `**` does not; a pattern without `/` matches a name at any depth.
            exclude: Nothing that matches one of these patterns.

        Raises:
            InvalidArgument: There is no such directory, or a name cannot be a path of a tree.
            UnsafePath: There is a link, a pipe, a socket or a device that `exclude` does not leave out.
            AlreadyExists: The artifact has one of the paths, or one that does not go together with it.
        """
        prefix = f"{name.rstrip('/')}/" if name else ""
        added: list[str] = []
        try:
            for found in scan_directory(path, include=include, exclude=exclude).files:
                self._add(prefix + found.path, found)
                added.append(prefix + found.path)
        except BaseException:
            for target in added:
                self._remove(target)
            raise

    def add_reference(
        self, uri: str, name: str | None = None, *, checksum: str = "", size_bytes: int | None = None
    ) -> None:
        """Add a file that lies elsewhere and stays there. Nothing is fetched, and nothing is checked.

        Args:
            uri: Where it is: `s3://bucket/key`.
            name: Its path in the artifact. Default: the last part of `uri`.
            checksum: What the other side calls its content: an ETag, `sha256:…`.
            size_bytes: Its size, if known.

        Raises:
            InvalidArgument: `name` cannot be a path of a tree.
            AlreadyExists: The artifact has that path, or one that does not go together with it.
        """
        target = name if name is not None else uri.rstrip("/").rpartition("/")[2]
        self._add(target, Reference(uri, checksum, size_bytes))

    @contextmanager
    def new_file(
        self, name: str, mode: Literal["w", "wb", "x", "xb"] = "w", *, encoding: str | None = None
    ) -> Iterator[IO[Any]]:
        """Open a new file for writing; it is added when the block ends without an exception.

        It lies in a private temporary directory, which goes away with the artifact.

        Args:
            name: Its path in the artifact.
            mode: `w` for text, `wb` for bytes.
            encoding: Of text. Default: UTF-8.

        Raises:
            InvalidArgument: `name` cannot be a path of a tree, or the mode does not write a new file.
            AlreadyExists: The artifact has that path, or one that does not go together with it.
        """
        if mode not in {"w", "wb", "x", "xb"}:
            raise InvalidArgument(f"new_file writes a new file: mode is 'w' or 'wb', not {mode!r}.")
        self._names.check(name)
        location = self._new_location()
        try:
            with location.open(mode, encoding=None if "b" in mode else encoding or "utf-8") as file:
                yield file
            self.add_file(location, name)
        except BaseException:
            location.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Take out a file or a reference; or, of a directory's name, everything below it. No file is deleted.

        Raises:
            NotFound: The artifact has no such path.
        """
        below = f"{name.rstrip('/')}/"
        found = [name] if name in self._entries else [path for path in self._entries if path.startswith(below)]
        if not found:
            raise NotFound(f"The artifact {self.name!r} has nothing at {name!r}; `entries()` lists what it has.")
        for path in found:
            self._remove(path)

    def _add(self, path: str, entry: LocalFile | Reference) -> None:
        self._names.add(path)
        self._entries[path] = entry

    def _remove(self, path: str) -> None:
        self._names.remove(path)
        del self._entries[path]

    def _new_location(self) -> Path:
        """Return a name for a file of our own."""
        if self._staging is None:
            self._staging = Path(tempfile.mkdtemp(prefix="lading-"))
            weakref.finalize(self, _remove_staging, self._staging, os.getpid())
        self._staged += 1
        return self._staging / f"{self._staged:06}"


class _Names:
    """The paths of one artifact, which come in any order, and the directories above them.

    The rules are those of `lading_format.paths.PathConflicts`, which needs them sorted.
    """

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._directories: dict[str, tuple[str, int]] = {}

    def check(self, path: str) -> None:
        """Raise unless `path` can be added."""
        with format_errors():
            check_path(path)
        folded = fold(path)
        if folded in self._files:
            raise AlreadyExists(_conflict(path, self._files[folded]))
        if folded in self._directories:
            raise AlreadyExists(_conflict(path, f"{self._directories[folded][0]}/"))
        for directory in _above(path):
            key = fold(directory)
            if key in self._files:
                raise AlreadyExists(_conflict(path, self._files[key]))
            if key in self._directories and self._directories[key][0] != directory:
                raise AlreadyExists(_conflict(path, f"{self._directories[key][0]}/"))

    def add(self, path: str) -> None:
        """Take a path, or raise what `check` raises."""
        self.check(path)
        self._files[fold(path)] = path
        for directory in _above(path):
            key = fold(directory)
            self._directories[key] = (directory, self._directories.get(key, ("", 0))[1] + 1)

    def remove(self, path: str) -> None:
        """Forget a path that was added."""
        del self._files[fold(path)]
        for directory in _above(path):
            key = fold(directory)
            _, count = self._directories.pop(key)
            if count > 1:
                self._directories[key] = (directory, count - 1)


def _above(path: str) -> Iterator[str]:
    """Yield the directories above a path, the outermost first."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _conflict(path: str, other: str) -> str:
    if path == other:
        return f"The artifact has {path!r} already. Remove it first, or choose another name."
    if path.startswith(f"{other}/"):
        return f"{other!r} is a file of the artifact, and {path!r} needs a directory of that name. Rename one."
    if other == f"{path}/":
        return f"{path!r} is a directory of the artifact. Choose another name for the file."
    return (
        f"{path!r} and {other!r}, which the artifact has, differ only by case or Unicode normalization, and are one on "
        "some systems. Rename one."
    )


def _remove_staging(staging: Path, pid: int) -> None:
    # A fork copies the artifact, and with it the finalizer; the directory is the parent's.
    if os.getpid() == pid:
        shutil.rmtree(staging, ignore_errors=True)
