"""Remembers the digests of files, so that those that did not change are not read again. Blocks: for worker threads.

A cache and nothing more: what is wrong with it costs time, never an upload. It is opened for each use, so that nothing
is open across a fork, and any number of processes may use it at once.
"""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain, tee
from types import ModuleType

from lading._cache.settings import cache_directory
from lading._known_digests import KnownDigests
from lading._local_files import LocalFile
from lading_format.digest import DIGEST_BYTES, xxh3_64

# A file that changed so shortly before it was hashed can change again without another time: the coarsest clock of a
# file system in use (FAT) goes in steps of two seconds.
RACY_NS = 2_000_000_000

_FILE_NAME = "digests.sqlite3"
_STATUS = struct.Struct("<5Q")
_CHECKSUM = struct.Struct("<Q")
_UNSIGNED = (1 << 64) - 1
# Bounds the file, and has every file read once in a while: what the disk lost is noticed then.
_KEEP_SECONDS = 30 * 24 * 3600

# Looked up at once: bounds the memory for directories of any size.
_FILES_AT_ONCE = 10_000

_log = logging.getLogger("lading")


class DigestCache:
    """Digests by absolute path, device, inode, size and times. Safe for many threads and processes at once."""

    def __init__(self, directory: str) -> None:
        """Use a directory, which is made when something is first remembered. Opens nothing."""
        self._directory = directory

    @property
    def path(self) -> str:
        """The file, whether or not it is there."""
        return os.path.join(self._directory, _FILE_NAME)

    def lookup(self, files: Sequence[LocalFile]) -> KnownDigests:
        """Return each file's digest, if the file is as it was when it was hashed; None for the others."""
        found = KnownDigests(len(files))
        if not files or not os.path.exists(self.path):
            return found
        with self._errors_ignored():
            for first in range(0, len(files), _FILES_AT_ONCE):
                part = files[first : first + _FILES_AT_ONCE]
                paths = list(_absolute_paths(part))
                kept = _store().read_entries(self.path, paths)
                for at, (file, path) in enumerate(zip(part, paths, strict=True), first):
                    entry = kept.get(path)
                    if entry is not None:
                        found[at] = _digest_in(entry, path, file)
        return found

    def remember(self, digests: Iterable[tuple[LocalFile, bytes]], hashed_ns: int) -> None:
        """Keep the digests of files, except where a change would not be seen.

        Args:
            digests: Each file as it was found, and the digest of what was then read from it. Read once, and not kept.
            hashed_ns: A moment before any of them was read, in nanoseconds since 1970.
        """
        now_seconds = int(time.time())
        rows = _rows(digests, hashed_ns, now_seconds)
        first = next(rows, None)
        if first is None:
            return
        with self._errors_ignored():
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            _store().write_entries(self.path, chain([first], rows), now_seconds - _KEEP_SECONDS)

    @contextmanager
    def _errors_ignored(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ImportError) as error:
            _log.warning(
                "Files that did not change are read again, for %s cannot be used: %s. If that stays so, remove it.",
                self.path,
                error,
            )


def digest_cache(environ: Mapping[str, str]) -> DigestCache | None:
    """Return the user's cache; None where `LADING_CACHE_DIR` is empty or `off`."""
    directory = cache_directory(environ)
    return None if directory is None else DigestCache(directory)


def _store() -> ModuleType:
    # Not before it is used: importing `lading` neither needs SQLite nor waits for it.
    return import_module("lading._digest_store")


def _entry(path: bytes, file: LocalFile, digest: bytes) -> bytes:
    """Return what is kept of a file. The checksum is of the path too: a row that a damaged index misplaced is none."""
    known = _status(file) + digest
    return known + _CHECKSUM.pack(xxh3_64(path + known))


def _digest_in(entry: bytes, path: bytes, file: LocalFile) -> bytes | None:
    """Return the digest of an entry that is whole, and of the file as it is now; else None."""
    known = entry[: _STATUS.size + DIGEST_BYTES]
    whole = entry[len(known) :] == _CHECKSUM.pack(xxh3_64(path + known))
    return known[_STATUS.size :] if whole and known.startswith(_status(file)) else None


def _status(file: LocalFile) -> bytes:
    return _STATUS.pack(
        file.device & _UNSIGNED,
        file.inode & _UNSIGNED,
        file.size_bytes,
        file.modified_ns & _UNSIGNED,
        file.changed_ns & _UNSIGNED,
    )


def _rows(
    digests: Iterable[tuple[LocalFile, bytes]], hashed_ns: int, now_seconds: int
) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield what is kept: of all files but those where a change would not be seen."""
    files, hashed = tee(
        (file, digest) for file, digest in digests if max(file.modified_ns, file.changed_ns) + RACY_NS <= hashed_ns
    )
    for path, (file, digest) in zip(_absolute_paths(file for file, _ in files), hashed, strict=True):
        yield path, _entry(path, file, digest), now_seconds


def _absolute_paths(files: Iterable[LocalFile]) -> Iterator[bytes]:
    """Yield where the files are, whatever the working directory is. By directory: most files share theirs."""
    directories: dict[str, str] = {}
    for file in files:
        directory, slash, name = file.location.rpartition("/")
        directory += slash
        absolute = directories.get(directory)
        if absolute is None:
            absolute = directories[directory] = os.path.abspath(directory or ".")
        yield os.fsencode(f"{absolute}/{name}")
