"""Writes below one directory and never outside of it, whatever the paths say and whatever links lie there.

Paths are followed one directory at a time, each opened without following links, and everything is done relative to
what was opened: nobody can swap a directory for a link in between.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from types import TracebackType

from lading._errors import AlreadyExists, UnsafePath
from lading._model import StrPath
from lading._scan import PARTIAL_DIRECTORY

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, so that a fifo that took a file's place does not stop us.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPY_BYTES = 8 << 20
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{16}\.new")
# Nobody writes for so long to a file, or is so long about to name it, without the file's time being set again.
_ABANDONED_SECONDS = 3600


class SafeRoot:
    """A directory that is written below. A context manager; safe for many threads at once.

    Args:
        root: The directory; created if missing. It may itself be a link: the caller named it.
    """

    def __init__(self, root: StrPath) -> None:
        self.name = os.fspath(root)
        os.makedirs(self.name, exist_ok=True)
        self.fd = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._partial_fd: int | None = None

    def __enter__(self) -> SafeRoot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._partial_fd is not None:
            # It stays when something in it can be continued, or another download holds its lock.
            with contextlib.suppress(OSError):
                fcntl.flock(self._partial_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rmdir(PARTIAL_DIRECTORY, dir_fd=self.fd)
            os.close(self._partial_fd)
        os.close(self.fd)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there at all."""
        with os.scandir(self.fd) as entries:
            return next(entries, None) is None

    @property
    def device(self) -> int:
        """The file system that it is on."""
        return os.fstat(self.fd).st_dev

    @property
    def partial_fd(self) -> int:
        """The directory of unfinished files. Opened by `open_partial`."""
        if self._partial_fd is None:
            raise RuntimeError("open_partial comes first")
        return self._partial_fd

    def open_partial(self) -> None:
        """Make and open the directory of unfinished files; remove what killed downloads left there for nobody.

        Raises:
            UnsafePath: A link is in its place.
        """
        while self._partial_fd is None:
            fd = open_directory(self.fd, PARTIAL_DIRECTORY, self._shown(PARTIAL_DIRECTORY), create=True)
            # Who removes it locks it first. A file system without locks leaves it to be removed by hand.
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_SH)
            if os.fstat(fd).st_nlink:
                self._partial_fd = fd
                self.clear_abandoned()
            else:
                os.close(fd)

    def clear_abandoned(self, now_seconds: float | None = None) -> None:
        """Remove files without a name of their own that a process that was killed left. Nobody continues those.

        By the time of their last change of any kind: such a file may be a new name of an old one of the cache.
        """
        now = time.time() if now_seconds is None else now_seconds
        with contextlib.suppress(OSError), os.scandir(self.partial_fd) as files:
            for file in files:
                if not _TEMPORARY_NAME.fullmatch(file.name):
                    continue
                with contextlib.suppress(OSError):
                    if now - file.stat(follow_symlinks=False).st_ctime > _ABANDONED_SECONDS:
                        os.unlink(file.name, dir_fd=self.partial_fd)

    def create_temporary(self, executable: bool) -> tuple[int, str]:
        """Make a file without a name of its own yet; return its descriptor and what it is called until then."""
        name = self.temporary_name()
        return os.open(name, _NEW_FILE_FLAGS, _mode(executable), dir_fd=self.partial_fd), name

    def temporary_name(self) -> str:
        """Return a name for a file of `partial_fd` that has none of its own yet."""
        return f"{secrets.token_hex(8)}.new"

    def open_part(self, name: str, executable: bool) -> int:
        """Open an unfinished file for reading and writing; create it if it is not there.

        Raises:
            UnsafePath: Something other than a file is in its place.
        """
        shown = self._shown(f"{PARTIAL_DIRECTORY}/{name}")
        try:
            fd = os.open(name, _PART_FLAGS, _mode(executable), dir_fd=self.partial_fd)
        except OSError as error:
            raise _unsafe(self.partial_fd, name, shown, error) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UnsafePath(f"{shown!r} is not a regular file. Remove it, then download again.")
        return fd

    def discard(self, name: str) -> None:
        """Remove an unfinished file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.partial_fd)

    def discard_opened(self, fd: int, name: str) -> None:
        """Remove an unfinished file, if it is still the one that is open as `fd`. The name may be another's by now."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=self.partial_fd, follow_symlinks=False)):
                os.unlink(name, dir_fd=self.partial_fd)

    def cursor(self) -> Cursor:
        """Return a way to places in the tree. For one thread at a time."""
        return Cursor(self)

    def _shown(self, path: str) -> str:
        return os.path.join(self.name, path)


class Cursor:
    """Goes from directory to directory below a root; keeps the last one open. A context manager.

    Takes paths that `lading_format.paths.check_path` let pass.
    """

    def __init__(self, root: SafeRoot) -> None:
        self._root = root
        self._directory = ""
        self._fd = root.fd

    def __enter__(self) -> Cursor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of the regular file at `path`; None when nothing is there.

        Raises:
            UnsafePath: There is a link or a device, there or on the way.
            AlreadyExists: A directory is where a file should be, or the other way round.
        """
        directory, _, name = path.rpartition("/")
        if not self._enter(directory, create=False):
            return None
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise _obstacle(status.st_mode, self._shown(path), wanted="a file")
        return status

    def open_existing(self, path: str) -> int:
        """Open for reading what `status` found. Raises UnsafePath, or OSError when it is gone."""
        directory, _, name = path.rpartition("/")
        if not self._enter(directory, create=False):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._shown(path))
        try:
            return os.open(name, _READ_FLAGS, dir_fd=self._fd)
        except OSError as error:
            raise _unsafe(self._fd, name, self._shown(path), error) from error

    def place(self, temporary_name: str, path: str) -> None:
        """Give a finished file its name, in place of the file that had it; make the directories above.

        Raises:
            UnsafePath: There is a link on the way.
            AlreadyExists: A directory has the name.
        """
        directory, _, name = path.rpartition("/")
        self._enter(directory, create=True)
        try:
            os.rename(temporary_name, name, src_dir_fd=self._root.partial_fd, dst_dir_fd=self._fd)
        except IsADirectoryError as error:
            raise _obstacle(stat.S_IFDIR, self._shown(path), wanted="a file") from error

    def link(self, path: str, directory_fd: int, new_name: str) -> None:
        """Give a file of the tree a name in another directory too. Raises OSError where that cannot be.

        Whose file it is when somebody put another one in its place meanwhile, nobody knows.
        """
        directory, _, name = path.rpartition("/")
        if not self._enter(directory, create=False):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._shown(path))
        os.link(name, new_name, src_dir_fd=self._fd, dst_dir_fd=directory_fd, follow_symlinks=False)

    def write(self, data: bytes | memoryview, path: str, *, executable: bool) -> None:
        """Write a whole small file and give it its name."""
        self._make(lambda fd: write_all(fd, data), path, executable)

    def copy(self, source_fd: int, size_bytes: int, path: str, *, executable: bool) -> None:
        """Write a copy of an open file and give it its name. Shares the blocks where the file system can."""
        self._make(lambda fd: _copy_all(source_fd, fd, size_bytes), path, executable)

    def _make(self, fill: Callable[[int], None], path: str, executable: bool) -> None:
        fd, temporary_name = self._root.create_temporary(executable)
        try:
            try:
                fill(fd)
            finally:
                os.close(fd)
            self.place(temporary_name, path)
        except BaseException:
            self._root.discard(temporary_name)
            raise

    def _enter(self, directory: str, *, create: bool) -> bool:
        """Make `directory` the one that is open; return False when it is not there and is not to be made."""
        if directory == self._directory:
            return True
        self._leave()
        if not directory:
            return True
        fd = self._root.fd
        done = ""
        for part in directory.split("/"):
            done = f"{done}/{part}" if done else part
            try:
                below = open_directory(fd, part, self._shown(done), create=create)
            except FileNotFoundError:
                if create:
                    raise
                return False
            finally:
                if fd != self._root.fd:
                    os.close(fd)
            fd = below
        self._fd = fd
        self._directory = directory
        return True

    def _leave(self) -> None:
        if self._directory:
            os.close(self._fd)
        self._fd = self._root.fd
        self._directory = ""

    def _shown(self, path: str) -> str:
        return os.path.join(self._root.name, path)


def open_directory(parent_fd: int, name: str, shown: str, *, create: bool) -> int:
    """Open a directory by its name in another, following no link.

    Args:
        parent_fd: The other directory.
        name: One part of a path.
        shown: The whole path, for messages.
        create: Make it when it is missing; else that is FileNotFoundError.

    Raises:
        UnsafePath: It is a link.
        AlreadyExists: It is a file.
    """
    try:
        try:
            return os.open(name, _DIRECTORY_FLAGS, dir_fd=parent_fd)
        except FileNotFoundError:
            if not create:
                raise
        # Another thread may be faster.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o777, dir_fd=parent_fd)
        return os.open(name, _DIRECTORY_FLAGS, dir_fd=parent_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unsafe(parent_fd, name, shown, error, wanted="a directory") from error


def make_executable(fd: int, executable: bool) -> None:
    """Set or clear the right to execute for all who may read; leave the other rights as they are."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    wanted = mode | (mode & 0o444) >> 2 if executable else mode & ~0o111
    if wanted != mode:
        os.fchmod(fd, wanted)


def _mode(executable: bool) -> int:
    """What `open` takes: the process's umask is subtracted by the system."""
    return 0o755 if executable else 0o644


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of it, from the file's position on."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy_all(source_fd: int, fd: int, size_bytes: int) -> None:
    offset = 0
    try:
        while offset < size_bytes:
            copied_bytes = os.copy_file_range(source_fd, fd, size_bytes - offset, offset)
            if not copied_bytes:
                break
            offset += copied_bytes
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while offset < size_bytes:
        data = os.pread(source_fd, min(_COPY_BYTES, size_bytes - offset), offset)
        if not data:
            raise OSError(errno.EIO, "a file became shorter while it was copied")
        write_all(fd, data)
        offset += len(data)


def _unsafe(parent_fd: int, name: str, shown: str, error: OSError, wanted: str = "a file") -> Exception:
    """Return what is to be raised when `name` could not be opened: an obstacle if there is one, else the error."""
    if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
        return error
    try:
        return _obstacle(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode, shown, wanted)
    except OSError:
        return error


def _obstacle(mode: int, shown: str, wanted: str) -> AlreadyExists | UnsafePath:
    if stat.S_ISLNK(mode):
        return UnsafePath(f"{shown!r} is a symbolic link, and downloads never write through one. Remove it first.")
    if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "a file"
        return AlreadyExists(
            f"{shown!r} is {what} where the tree has {wanted}. Remove it, or choose another directory."
        )
    return UnsafePath(f"{shown!r} is a device, a pipe or a socket. Remove it, or choose another directory.")
