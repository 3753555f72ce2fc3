"""Compares a directory with a tree: what is missing, what is other, what is too much. Reads only."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lading._download.plan import Target, Wanted
from lading._download.planning import Planned
from lading._errors import one_error
from lading._model import StrPath
from lading._scan import PARTIAL_DIRECTORY
from lading._threads import Threads
from lading_format.digest import new_hasher

_BLOCK_BYTES = 4 << 20
_FILES_PER_JOB = 128
# Non-blocking, so that a fifo that took a file's place does not stop us.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """How a directory differs from a version. Paths are those of the version, sorted by their bytes.

    Attributes:
        missing: Files of the version that are not there.
        changed: Files with other content, or executable where the version's is not, or the other way round; and what
            is no file at all.
        extra: Files, links and devices that the version does not have.
    """

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.changed or self.extra)


async def verify_directory(planned: Planned, directory: StrPath, threads: Threads) -> VerifyResult:
    """Compare. See Version.verify."""
    root = os.fspath(directory)
    plan, wanted = planned
    changed: list[str] = []
    there = await threads.run(_scan, root)
    places = [_Place(os.path.join(root, target.path), target, blob) for blob in wanted for target in blob.targets]
    jobs = _jobs([place for place in places if place.target.path in there])

    async def compare() -> None:
        for batch in jobs:
            changed.extend(await threads.run(_changed, batch, there, threads.stop))

    with one_error():
        async with asyncio.TaskGroup() as group:
            for _ in range(threads.count):
                group.create_task(compare())
    known = {place.target.path for place in places} | {reference.path for reference in plan.references}
    return VerifyResult(
        _sorted([place.target.path for place in places if place.target.path not in there]),
        _sorted(changed),
        _sorted([path for path in there if path not in known]),
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where on this machine a file of the tree should be."""

    location: str
    target: Target
    blob: Wanted


def _scan(root: str) -> dict[str, os.stat_result]:
    """Return everything below a directory that is no directory, by its path there. Follows no link."""
    found: dict[str, os.stat_result] = {}
    waiting = [(root, "")]
    while waiting:
        directory, prefix = waiting.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if path != PARTIAL_DIRECTORY:
                        waiting.append((entry.path, f"{path}/"))
                else:
                    found[path] = entry.stat(follow_symlinks=False)
    return found


def _jobs(places: Sequence[_Place]) -> Iterator[list[_Place]]:
    """Yield files that one thread compares in one go."""
    batch: list[_Place] = []
    batch_bytes = 0
    for place in places:
        batch.append(place)
        batch_bytes += place.blob.size_bytes
        if len(batch) >= _FILES_PER_JOB or batch_bytes >= _BLOCK_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _changed(places: Sequence[_Place], there: Mapping[str, os.stat_result], stop: threading.Event) -> list[str]:
    """Return the paths of those files that are not as the tree has them."""
    return [place.target.path for place in places if not _is_right(place, there[place.target.path], stop)]


def _is_right(place: _Place, status: os.stat_result, stop: threading.Event) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_size != place.blob.size_bytes:
        return False
    if bool(status.st_mode & stat.S_IXUSR) != place.target.executable:
        return False
    fd = os.open(place.location, _READ_FLAGS)
    try:
        return _digest(fd, stop) == place.blob.digest
    finally:
        os.close(fd)


def _digest(fd: int, stop: threading.Event) -> bytes:
    """Return the digest of an open file; when told to stop, some other."""
    hasher = new_hasher()
    while not stop.is_set() and (block := os.read(fd, _BLOCK_BYTES)):
        hasher.update(block)
    return hasher.digest()


def _sorted(paths: Sequence[str]) -> tuple[str, ...]:
    # As bytes: a name on disk may be no UTF-8.
    return tuple(sorted(paths, key=os.fsencode))
