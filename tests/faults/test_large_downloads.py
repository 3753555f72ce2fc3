"""The unfinished file of a large download, when this machine, another download or its user is in its way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import lading
from lading import _threads
from lading._cache.taking import Blob
from lading._download import large
from lading._download.large import LargeFile
from lading._download.plan import Target, Wanted
from lading._download.wire import ReceivedPiece
from lading._files import SafeRoot
from lading_format.digest import blake3_digest
from tests.support.hostile_server import HostileServer

LARGE = bytes(range(256)) * (3 << 12)  # 3 MiB: fetched by itself, and continued
NAME = blake3_digest(LARGE).hex()
WHOLE = ReceivedPiece(0, 0, LARGE, True, None)


def partial(root: Path, data: bytes) -> Path:
    """What an earlier download left of the file."""
    path = root / ".lading-partial" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


async def download(server: HostileServer, root: Path) -> lading.DownloadResult:
    async with lading.IngestClient(server.address, entity="acme") as client:
        return await client.download_tree(server.digest, root)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
async def test_a_file_system_without_locks_gets_its_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refused)
    async with HostileServer({"f": LARGE}) as server:
        await download(server, tmp_path / "out")
    assert (tmp_path / "out/f").read_bytes() == LARGE
    # It stays, for nobody can tell that it is not used; with nothing in it.
    assert os.listdir(tmp_path / "out/.lading-partial") == []


def test_what_the_cache_took_is_not_taken_from_another_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one begins when the cache has the file and the first has not let go of its name."""
    wanted = Wanted(blake3_digest(LARGE), len(LARGE), [Target("f", False)])
    cache = lading.LocalCache(tmp_path / "cache").transfer(threading.Event(), links=True)
    assert cache is not None
    real_give = cache.give
    with cache, SafeRoot(tmp_path / "out") as root:
        root.open_partial()
        other = LargeFile(root, wanted, None)

        def give(to: SafeRoot, blobs: Sequence[Blob]) -> set[bytes]:
            other.open()
            return real_give(to, blobs)

        monkeypatch.setattr(cache, "give", give)
        first = LargeFile(root, wanted, cache)
        first.open()
        first.begin_stream()
        first.take([WHOLE])
        assert first.finish()
        first.close(keep=True)
        assert os.listdir(root.partial_fd) == [NAME]
        other.begin_stream()
        other.take([WHOLE])
        assert other.finish()
        other.close(keep=True)
    assert (tmp_path / "out/f").read_bytes() == LARGE


async def test_a_cancellation_while_the_unfinished_file_is_opened_closes_it_and_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, cancelled = threading.Event(), threading.Event()
    real_open, real_wait = large._open_locked, _threads._wait_for

    def open_locked(root: SafeRoot, wanted: Wanted) -> tuple[int, str]:
        found = real_open(root, wanted)
        opened.set()
        assert cancelled.wait(60)
        return found

    async def wait_for(ended: asyncio.Future[object]) -> None:
        cancelled.set()
        await real_wait(ended)

    monkeypatch.setattr(large, "_open_locked", open_locked)
    monkeypatch.setattr(_threads, "_wait_for", wait_for)
    path = partial(tmp_path / "out", LARGE[:1000])
    async with HostileServer({"f": LARGE}) as server:
        downloading = asyncio.create_task(download(server, tmp_path / "out"))
        assert await asyncio.to_thread(opened.wait, 60)
        downloading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await downloading
    assert path.read_bytes() == LARGE[:1000]
    assert str(path) not in open_paths()


@pytest.mark.parametrize(("left", "deduplicated_bytes"), [(LARGE[:1000], 1000), (b"!" * 1000, 0)])
async def test_what_was_thrown_away_counts_as_fetched(tmp_path: Path, left: bytes, deduplicated_bytes: int) -> None:
    partial(tmp_path / "out", left)
    async with HostileServer({"f": LARGE}) as server:
        transfer = (await download(server, tmp_path / "out")).transfer
    assert (transfer.bytes_done, transfer.bytes_deduplicated) == (len(LARGE), deduplicated_bytes)


def open_paths() -> set[str]:
    """What this process has open."""
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
    return found
