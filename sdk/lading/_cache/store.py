"""The directory of a cache.

    LADING_CACHE_DIR/content-1/<2 hex>/<64 hex>             a blob
    LADING_CACHE_DIR/content-1/<2 hex>/<64 hex>.borrowed    a blob: another name of a file that a download wrote
    LADING_CACHE_DIR/content-1/<2 hex>/<64 hex>.tree        a tree's listing
    LADING_CACHE_DIR/content-1/new/<16 hex>                 what is being written; no entry yet
    LADING_CACHE_DIR/content-1/tally                        lading._cache.tally

Opens nothing through a link, and believes no name: what is in an entry is hashed elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from lading._cache.space import Entry, reserve_bytes, space_of

CONTENT = "content-1"
TREE_SUFFIX = ".tree"
# In the name and not told by rights and links: a user may take all rights to write from a file, and give them back.
BORROWED_SUFFIX = ".borrowed"
SHARDS = tuple(f"{number:02x}" for number in range(256))

_NEW = "new"
_ENTRY = re.compile(r"[0-9a-f]{64}(\.tree|\.borrowed)?")
# Nobody writes for so long to a file without the file's time being set again.
_ABANDONED_SECONDS = 3600
# True enough to say which of two was used before, and cheap: a transfer sets few of them.
_USED_STEP_NS = 3600 * 10**9

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A look is no use: only we set the access time. Non-blocking, for a fifo may lie where an entry was.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOATIME", 0)
_NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# So that an edit of a hard link is refused, and needs a will.
ENTRY_MODE = 0o444


class Store:
    """The entries of one cache. A context manager; safe for many threads, and for many processes.

    Args:
        directory: `LADING_CACHE_DIR`. It may itself be a link: the user named it.
        create: Make it when it is missing; else that is FileNotFoundError.

    Raises:
        OSError: It cannot be used; or what is in it is another user's, or others may write to it.
    """

    def __init__(self, directory: str, *, create: bool = True) -> None:
        self.path = os.path.join(directory, CONTENT)
        if create:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        above = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fd = _open_directory(above, CONTENT, create=create)
        finally:
            os.close(above)
        try:
            _check_ours(self.fd, self.path)
            self.new_fd = _open_directory(self.fd, _NEW, create=True)
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directories."""
        os.close(self.new_fd)
        os.close(self.fd)

    @property
    def device(self) -> int:
        """The file system that it is on."""
        return os.fstat(self.fd).st_dev

    def free_bytes(self) -> tuple[int, int]:
        """Return how much of the file system is free for us, and how much of it has to stay so."""
        status = os.fstatvfs(self.fd)
        return status.f_bavail * status.f_frsize, reserve_bytes(status.f_blocks * status.f_frsize)

    def has(self, name: str) -> bool:
        """Whether there is an entry, or a borrowed one, right or wrong."""
        with self._shard(name) as shard:
            if shard is None:
                return False
            for entry_name in (name, name + BORROWED_SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISREG(os.stat(entry_name, dir_fd=shard, follow_symlinks=False).st_mode):
                        return True
        return False

    def open(self, name: str) -> int | None:
        """Open an entry for reading; None when it is not there. What is no file that we can read is dropped."""
        try:
            return self.open_strictly(name)
        except FileNotFoundError:
            return None
        except OSError:
            self.drop(name)
            return None

    def open_strictly(self, name: str) -> int:
        """Open an entry for reading. Raises FileNotFoundError when it is not there, OSError when it is no such file."""
        with self._shard(name) as shard:
            if shard is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            return _open_file(shard, name)

    def open_blob(self, name: str) -> tuple[int, str] | None:
        """Open a blob, as `open` does; return its descriptor and the name of its entry, which may be a borrowed one."""
        with self._shard(name) as shard:
            if shard is None:
                return None
            for entry_name in (name, name + BORROWED_SUFFIX):
                try:
                    return _open_file(shard, entry_name), entry_name
                except FileNotFoundError:
                    continue
                except OSError:
                    self.drop(entry_name)
        return None

    def touch(self, fd: int, now_ns: int) -> None:
        """Note that an entry was used, unless that was noted within the hour. The time of its content stays.

        Not for a borrowed one that is still a user's file as well: its times are his.
        """
        status = os.fstat(fd)
        if is_due(status, now_ns):
            # Somebody else's file system may refuse; then it goes a little earlier.
            with contextlib.suppress(OSError):
                os.utime(fd, ns=(now_ns, status.st_mtime_ns))

    def drop(self, name: str) -> bool:
        """Remove an entry, whatever it is; return whether it is gone."""
        with self._shard(name) as shard:
            if shard is None:
                return True
            try:
                os.unlink(name, dir_fd=shard)
            except FileNotFoundError:
                return True
            except OSError:
                # A directory. Out of the way, to where what is abandoned is cleared.
                try:
                    os.rename(name, secrets.token_hex(8), src_dir_fd=shard, dst_dir_fd=self.new_fd)
                except OSError:
                    return False
            return True

    def create(self) -> tuple[int, str]:
        """Make a file that is to become an entry; return its descriptor and what it is called until then."""
        name = secrets.token_hex(8)
        return os.open(name, _NEW_FLAGS, 0o600, dir_fd=self.new_fd), name

    def discard(self, new_name: str) -> None:
        """Remove a file that shall not become an entry."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new_name, dir_fd=self.new_fd)

    def enter(self, fd: int, new_name: str, name: str) -> None:
        """Make a file that was written an entry. Not synced: whoever takes it hashes it."""
        os.fchmod(fd, ENTRY_MODE)
        self._rename(new_name, name)

    def _rename(self, new_name: str, name: str) -> None:
        with self._shard(name) as shard:
            if shard is not None:
                os.rename(new_name, name, src_dir_fd=self.new_fd, dst_dir_fd=shard)
                return
        with contextlib.suppress(FileExistsError):
            os.mkdir(name[:2], 0o700, dir_fd=self.fd)
        os.rename(new_name, os.path.join(name[:2], name), src_dir_fd=self.new_fd, dst_dir_fd=self.fd)

    def borrow(self, name: str, link: Callable[[int, str], None]) -> None:
        """Make a file outside of the store an entry without copying it, in place of a borrowed one of this name.

        Args:
            name: The blob's.
            link: Gives the file a name in a directory too; an OSError is raised on.
        """
        new_name = secrets.token_hex(8)
        link(self.new_fd, new_name)
        try:
            self._rename(new_name, name + BORROWED_SUFFIX)
        except BaseException:
            self.discard(new_name)
            raise

    def adopt(self, fd: int, directory_fd: int, file_name: str, name: str) -> None:
        """Take a file that nobody else has, open as `fd`, out of a directory, and make it an entry.

        Where that cannot be, it is where it was, and that is an OSError.
        """
        status = os.fstat(fd)
        if status.st_nlink != 1:
            raise OSError(errno.EMLINK, "it has other names", file_name)
        new_name = secrets.token_hex(8)
        os.rename(file_name, new_name, src_dir_fd=directory_fd, dst_dir_fd=self.new_fd)
        try:
            self.enter(fd, new_name, name)
        except BaseException:
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
            os.rename(new_name, file_name, src_dir_fd=self.new_fd, dst_dir_fd=directory_fd)
            raise

    def link(self, fd: int, name: str, directory_fd: int, new_name: str) -> bool:
        """Give an entry that is open as `fd` a name in another directory too; return whether that was done."""
        with self._shard(name) as shard:
            if shard is None:
                return False
            try:
                os.link(name, new_name, src_dir_fd=shard, dst_dir_fd=directory_fd, follow_symlinks=False)
            except OSError:
                return False
        # Another process may just have put another file in its place, which nobody has hashed here.
        linked = os.stat(new_name, dir_fd=directory_fd, follow_symlinks=False)
        if os.path.samestat(linked, os.fstat(fd)):
            return True
        os.unlink(new_name, dir_fd=directory_fd)
        return False

    def scan(self, shard_name: str) -> list[Entry]:
        """Return what a shard holds. What is no entry is left alone, and not counted."""
        found: list[Entry] = []
        with self._shard(shard_name) as shard:
            if shard is None:
                return found
            with os.scandir(shard) as files:
                for file in files:
                    if not _ENTRY.fullmatch(file.name):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat(follow_symlinks=False)
                        found.append(Entry(file.name, space_of(status.st_size), status.st_atime_ns))
        return found

    def clear_abandoned(self, now_seconds: float | None = None) -> None:
        """Remove what a process that was killed left unfinished."""
        now = time.time() if now_seconds is None else now_seconds
        with os.scandir(self.new_fd) as files:
            for file in files:
                with contextlib.suppress(OSError):
                    status = file.stat(follow_symlinks=False)
                    if abs(now - status.st_mtime) <= _ABANDONED_SECONDS:
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        os.rmdir(file.name, dir_fd=self.new_fd)
                    else:
                        os.unlink(file.name, dir_fd=self.new_fd)

    @contextlib.contextmanager
    def _shard(self, name: str) -> Iterator[int | None]:
        """Give the open directory of an entry; None when it is not there. A link in its place is removed."""
        try:
            fd = os.open(name[:2], _DIRECTORY_FLAGS, dir_fd=self.fd)
        except FileNotFoundError:
            yield None
            return
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name[:2], dir_fd=self.fd)
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)


def is_due(status: os.stat_result, now_ns: int) -> bool:
    """Whether it is time to note a use again."""
    return abs(now_ns - status.st_atime_ns) > _USED_STEP_NS


def _open_file(shard: int, name: str) -> int:
    fd = os.open(name, _READ_FLAGS, dir_fd=shard)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", name)
    return fd


def _open_directory(above: int, name: str, *, create: bool) -> int:
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=above)
    return os.open(name, _DIRECTORY_FLAGS, dir_fd=above)


def _check_ours(fd: int, path: str) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise OSError(errno.EPERM, "it has to be yours, and nobody else may write to it", path)
