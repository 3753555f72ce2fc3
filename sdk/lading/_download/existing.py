"""Finds which files of a tree are there already. Reads; writes nothing but the right to execute."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Sequence

from lading._download.plan import Target, Wanted
from lading._errors import UnsafePath
from lading._files import SafeRoot, make_executable
from lading_format.digest import new_hasher

_BLOCK_BYTES = 4 << 20
_FILES_PER_JOB = 128

Candidate = tuple[Wanted, Target]


def find_candidates(root: SafeRoot, wanted: Sequence[Wanted]) -> list[Candidate]:
    """Return the places where a file of the right size is.

    Raises:
        UnsafePath: A link or a device is in the way of any file, even of one that need not be written.
        AlreadyExists: A directory is where a file should be, or the other way round.
    """
    places = [(blob, target) for blob in wanted for target in blob.targets]
    # By path, so that each directory is opened once.
    places.sort(key=lambda place: place[1].path)
    found: list[Candidate] = []
    with root.cursor() as cursor:
        for blob, target in places:
            status = cursor.status(target.path)
            if status is not None and status.st_size == blob.size_bytes:
                found.append((blob, target))
    return found


def jobs(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Yield candidates that one thread compares in one go."""
    batch: list[Candidate] = []
    batch_bytes = 0
    for candidate in candidates:
        batch.append(candidate)
        batch_bytes += candidate[0].size_bytes
        if len(batch) >= _FILES_PER_JOB or batch_bytes >= _BLOCK_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def keep_right_ones(root: SafeRoot, candidates: Sequence[Candidate], stop: threading.Event) -> list[Candidate]:
    """Return those that have the right content, and see to it that they are executable or not."""
    right: list[Candidate] = []
    with root.cursor() as cursor:
        for blob, target in candidates:
            try:
                fd = cursor.open_existing(target.path)
            except (OSError, UnsafePath):
                continue  # It went away, or may not be read: then it is fetched.
            try:
                if _digest(fd, blob.size_bytes, stop) == blob.digest and _may_be_set(fd, target.executable):
                    make_executable(fd, target.executable)
                    right.append((blob, target))
            finally:
                os.close(fd)
    return right


def _may_be_set(fd: int, executable: bool) -> bool:
    """Whether a file's right to execute is as it should be, or is its own: that of a hard link is the cache's too."""
    status = os.fstat(fd)
    return status.st_nlink == 1 or bool(status.st_mode & stat.S_IXUSR) == executable


def _digest(fd: int, size_bytes: int, stop: threading.Event) -> bytes:
    """Return the digest of an open file; of a file that grew meanwhile, or when told to stop, some other digest."""
    hasher = new_hasher()
    left_bytes = size_bytes
    while left_bytes > 0 and not stop.is_set():
        block = os.read(fd, min(_BLOCK_BYTES, left_bytes))
        if not block:
            break
        hasher.update(block)
        left_bytes -= len(block)
    if os.fstat(fd).st_size != size_bytes or left_bytes:
        return b""
    return hasher.digest()
