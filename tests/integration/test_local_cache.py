"""The local cache with real servers: what is in it needs no call to ingest, and what is wrong in it reaches nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import lading
from lading._cache.store import BORROWED_SUFFIX, CONTENT
from lading_format.digest import blake3_digest
from tests.integration.test_two_processes import Pair, free_port, pair  # noqa: F401 - a fixture
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess, running_server

SEED = 23
_RANDOM = random.Random(SEED)
# Empty, small, of several messages, continued by pieces; the same twice; and one that may be executed.
FILES = {
    "a/empty": b"",
    "a/small": _RANDOM.randbytes(10),
    "a/twin": b"twin" * 20_000,
    "b/large": _RANDOM.randbytes((6 << 20) + 5),
    "b/medium": _RANDOM.randbytes(300_000),
    "b/twin": b"twin" * 20_000,
    "run.sh": b"#!/bin/sh\n",
}
_CALLS = re.compile(r"^lading_calls_total\{[^}]*lading\.ingest\.v1\.IngestService[^}]*\} (\S+)", re.MULTILINE)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with those files."""
    root = tmp_path / "source"
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    (root / "run.sh").chmod(0o755)
    return root


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> lading.LocalCache:
    """The cache of every client of the test."""
    monkeypatch.setenv("LADING_CACHE_DIR", str(tmp_path / "cache"))
    return lading.LocalCache(tmp_path / "cache")


class Counted:
    """A server that tells how many calls ingest has answered."""

    def __init__(self, server: ServerProcess, metrics_port: int) -> None:
        self.target = server.target
        self._metrics_port = metrics_port

    def calls(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics") as response:
            return sum(int(float(count)) for count in _CALLS.findall(response.read().decode()))


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    """A server with metrics."""
    port = free_port()
    with running_server(tmp_path / "server-data", "--metrics-port", str(port)) as server:
        yield Counted(server, port)


@contextlib.asynccontextmanager
async def client_of(target: str, key: str | None = None) -> AsyncIterator[lading.Client]:
    async with lading.Client(target, api_key=key, entity="default", retry=5.0) as client:
        yield client


def read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def entry(cache: lading.LocalCache, data: bytes, suffix: str = "") -> Path:
    name = blake3_digest(data).hex()
    path = Path(cache.directory, CONTENT, name[:2], name + suffix)
    borrowed = path.with_name(name + BORROWED_SUFFIX)
    return path if path.exists() else borrowed


async def test_a_version_that_is_in_the_cache_needs_no_call_to_ingest(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path
) -> None:
    async with client_of(counted.target) as client:
        stored = (await client.put(source, "digits", type="dataset", aliases=["best"])).version
        await stored.download(tmp_path / "first")
        assert read(tmp_path / "first") == FILES
    async with client_of(counted.target) as client:
        before = counted.calls()
        assert before > 0
        version = await client.version("digits:best")
        progress: list[lading.Progress] = []
        await version.download(tmp_path / "second", on_progress=progress.append)
        assert read(tmp_path / "second") == FILES
        assert os.access(tmp_path / "second/run.sh", os.X_OK)
        assert not os.access(tmp_path / "second/a/small", os.X_OK)
        await version.download(tmp_path / "part", prefix="b/")
        assert read(tmp_path / "part") == {path: data for path, data in FILES.items() if path.startswith("b/")}
        await version.download(tmp_path / "linked", link="hard")
        assert read(tmp_path / "linked") == FILES
        assert (await version.verify(tmp_path / "second")).ok
        assert (await version.verify(tmp_path / "linked")).ok
        assert [one.path async for one in version.files()] == sorted(FILES)
        assert [one.path async for one in version.files("a/")] == ["a/empty", "a/small", "a/twin"]
        assert await version.read_bytes("b/medium") == FILES["b/medium"]
        async with version.open("b/large") as file:
            await file.seek(1_000_000)
            assert await file.read(700_000) == FILES["b/large"][1_000_000:1_700_000]
            await file.seek(0)
            assert await file.read() == FILES["b/large"]
        assert counted.calls() == before
    last = progress[-1]
    assert (last.bytes_sent, last.files_done, last.bytes_done) == (0, len(FILES), sum(map(len, FILES.values())))
    assert last.files_deduplicated == len(FILES) - 1  # all but the empty one, of which there is nothing to keep


async def test_with_ingest_gone_a_version_in_the_cache_is_downloaded(
    pair: Pair,  # noqa: F811
    cache: lading.LocalCache,
    source: Path,
    tmp_path: Path,
) -> None:
    async with client_of(pair.registry.target, pair.key) as client:
        stored = (await client.put(source, "digits", type="dataset")).version
        await stored.download(tmp_path / "first")
    pair.ingest.kill()
    async with client_of(pair.registry.target, pair.key) as client:
        version = await client.version("digits")
        await version.download(tmp_path / "second")
        assert read(tmp_path / "second") == FILES
        assert (await version.verify(tmp_path / "second")).ok
        async with version.open("b/medium") as file:
            assert await file.read(10) == FILES["b/medium"][:10]
    shutil.rmtree(cache.directory)
    async with client_of(pair.registry.target, pair.key) as client:
        with pytest.raises(lading.Unavailable):
            await (await client.version("digits")).download(tmp_path / "third")


async def test_only_what_the_cache_lacks_is_fetched(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path
) -> None:
    async with client_of(counted.target) as client:
        await (await client.put(source, "digits", type="dataset")).version.download(tmp_path / "first")
        (source / "new").write_bytes(b"new" * 1000)
        progress: list[lading.Progress] = []
        changed = (await client.put(source, "digits", type="dataset")).version
        await changed.download(tmp_path / "second", on_progress=progress.append)
    assert read(tmp_path / "second") == FILES | {"new": b"new" * 1000}
    assert progress[-1].bytes_sent == 3000


@pytest.mark.parametrize("link", [None, "hard"])
async def test_damage_in_the_cache_is_repaired_by_the_next_download(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path, link: str | None
) -> None:
    async with client_of(counted.target) as client:
        version = (await client.put(source, "digits", type="dataset")).version
        await version.download(tmp_path / "first")
        listing = Path(cache.directory, CONTENT, version.digest[3:5], f"{version.digest[3:]}.tree")
        for path in (entry(cache, FILES["b/large"]), entry(cache, FILES["b/medium"]), listing):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            modified = path.stat().st_mtime_ns
            path.chmod(0o644)
            path.write_bytes(data)
            path.chmod(0o444)
            os.utime(path, ns=(modified, modified))
        entry(cache, FILES["a/small"]).unlink()
        await version.download(tmp_path / "second", link=link)  # type: ignore[arg-type]
        assert read(tmp_path / "second") == FILES
        before = counted.calls()
        await version.download(tmp_path / "third", link=link)  # type: ignore[arg-type]
        assert read(tmp_path / "third") == FILES
        assert counted.calls() == before
    assert cache.verify().ok


async def test_hard_links_are_read_only_and_shared_from_the_first_download_on(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path
) -> None:
    async with client_of(counted.target) as client:
        version = (await client.put(source, "digits", type="dataset")).version
        for name in ("first", "second"):
            await version.download(tmp_path / name, link="hard")
            assert read(tmp_path / name) == FILES
            assert not (tmp_path / name / ".lading-partial").exists()
        for path in ("a/small", "b/large", "a/twin", "b/twin"):
            assert os.path.samefile(tmp_path / "first" / path, tmp_path / "second" / path)
            assert (tmp_path / "first" / path).stat().st_mode & 0o777 == 0o444
        assert not os.path.samefile(tmp_path / "first/run.sh", tmp_path / "second/run.sh")
        # A later download over such a directory changes the directory and not the cache.
        (source / "b/large").write_bytes(b"other")
        (source / "a/small").chmod(0o755)
        changed = (await client.put(source, "digits", type="dataset")).version
        await changed.download(tmp_path / "first")
        assert (await changed.verify(tmp_path / "first")).ok
        assert (await version.verify(tmp_path / "second")).ok
        with pytest.raises(lading.InvalidArgument, match="soft"):
            await version.download(tmp_path / "third", link="soft")  # type: ignore[arg-type]


async def test_a_full_cache_disk_fails_no_download(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading._cache.store.Store.free_bytes", lambda _store: (0, 1))
    async with client_of(counted.target) as client:
        version = (await client.put(source, "digits", type="dataset")).version
        for link in (None, "hard"):
            await version.download(tmp_path / f"{link}", link=link)
            assert read(tmp_path / f"{link}") == FILES
    assert cache.info().size_bytes == 0


async def test_a_client_of_ingest_uses_the_cache_that_it_is_given(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path
) -> None:
    async with lading.IngestClient(counted.target, entity="default") as client:
        tree = (await client.upload_tree(source)).tree.digest
        await client.download_tree(tree, tmp_path / "first")
    assert not Path(cache.directory, CONTENT).exists()
    async with lading.IngestClient(counted.target, entity="default", cache=cache) as client:
        await client.download_tree(tree, tmp_path / "second")
        before = counted.calls()
        await client.download_tree(tree, tmp_path / "third")
        assert (await client.verify_tree(tree, tmp_path / "third")).ok
        assert counted.calls() == before
        with pytest.raises(lading.InvalidArgument):
            await client.download_tree("b3:short", tmp_path / "fourth")


async def test_the_command_line_tells_prunes_and_verifies(counted: Counted, source: Path, tmp_path: Path) -> None:
    async with client_of(counted.target) as client:
        await client.put(source, "digits", type="dataset")
    where = {"LADING_CACHE_DIR": str(tmp_path / "shell-cache"), "LADING_URL": counted.target}
    cli = CommandLine(tmp_path / "home", **where, LADING_ENTITY="default")
    offline = CommandLine(tmp_path / "home", **where | {"LADING_URL": "127.0.0.1:1"})

    def run() -> None:
        cli("get", "digits", "-o", str(tmp_path / "out"), "--hard-links")
        told = offline.json("cache", "info")
        assert (told["files"], told["trees"]) == (len(set(FILES.values())) - 1, 1)
        assert "files" in offline("cache", "info")
        assert offline.run("cache", "verify").returncode == 0
        shared = tmp_path / "out/b/large"
        shared.chmod(0o644)
        shared.write_bytes(b"edited")
        done = offline.run("cache", "verify")
        assert done.returncode == 4
        assert done.stdout == f"dropped  b3:{blake3_digest(FILES['b/large']).hex()}\n"
        assert "removed" in offline("cache", "prune", "--max-bytes", "0")
        assert "0 B of" in offline("cache", "info")
        off = CommandLine(tmp_path / "home", LADING_CACHE_DIR="off").run("cache", "info")
        assert (off.returncode, off.stdout) == (1, "")
        assert "LADING_CACHE_DIR" in off.stderr

    await asyncio.to_thread(run)


@pytest.fixture
def cloning_directory() -> Iterator[tuple[Path, bool]]:
    """A directory, and whether files there can share blocks: the one for temporary files, or else XFS in a file.

    Where neither can be had, the test says why and shows what happens without.
    """
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        if _clones(where):
            yield where, True
            return
        image, mounted = where / "image", where / "mounted"
        mounted.mkdir()
        if shutil.which("mkfs.xfs") is None or os.geteuid() != 0:
            print(f"{scratch} cannot share blocks, and making XFS in a loop device needs root and mkfs.xfs")
            yield where, False
            return
        with image.open("wb") as file:
            file.truncate(400 << 20)
        subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True, capture_output=True)
        done = subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=False, capture_output=True)
        if done.returncode:
            print(f"{scratch} cannot share blocks, and XFS cannot be mounted: {done.stderr.decode().strip()}")
            yield where, False
            return
        try:
            yield mounted, True
        finally:
            subprocess.run(["umount", str(mounted)], check=True, capture_output=True)


def _clones(directory: Path) -> bool:
    (directory / "one").write_bytes(b"x" * 4096)
    command = ["cp", "--reflink=always", str(directory / "one"), str(directory / "two")]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def test_uploads_are_kept_and_downloads_share_blocks_where_files_can(
    counted: Counted, cloning_directory: tuple[Path, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    where, clones = cloning_directory
    cache = lading.LocalCache(where / "cache")
    monkeypatch.setenv("LADING_CACHE_DIR", cache.directory)
    source, out = where / "source", where / "out"
    source.mkdir()
    (source / "checkpoint").write_bytes(FILES["b/large"])
    (source / "weights").write_bytes(FILES["b/large"][1:])
    async with client_of(counted.target) as client:
        await client.put(source, "model", type="model")
        told = cache.info()
        assert (told.files, told.trees) == ((2, 1) if clones else (0, 0))
    async with client_of(counted.target) as client:
        before = counted.calls()
        await (await client.version("model")).download(out)
        assert (counted.calls() == before) == clones
    assert read(out) == read(source)
    assert cache.verify().ok
    checkpoint, kept = out / "checkpoint", entry(cache, FILES["b/large"])
    assert checkpoint.stat().st_nlink == (1 if clones else 2)
    assert set(_extents(checkpoint)) & set(_extents(kept))
    # An edit is the file's own where they share blocks, and found where they are one file.
    with checkpoint.open("r+b") as file:
        file.write(b"edited")
    async with client_of(counted.target) as client:
        await (await client.version("model")).download(where / "again")
    assert read(where / "again") == read(source)
    if clones:
        assert kept.read_bytes() == FILES["b/large"]
    assert cache.verify().ok


async def test_a_cold_download_keeps_clones_of_large_files_where_files_can_share_blocks(
    counted: Counted, cloning_directory: tuple[Path, bool], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, clones = cloning_directory
    cache = lading.LocalCache(where / "cache")
    async with client_of(counted.target) as client:
        await client.put(source, "digits", type="dataset")
    monkeypatch.setenv("LADING_CACHE_DIR", cache.directory)
    async with client_of(counted.target) as client:
        version = await client.version("digits")
        await version.download(where / "first")
        before = counted.calls()
        assert (where / "first/b/large").stat().st_nlink == (1 if clones else 2)
        assert (where / "first/a/small").stat().st_nlink == 2
        await version.download(where / "second")
        await version.download(where / "third", link="hard")
        assert counted.calls() == before
    assert read(where / "second") == read(where / "third") == FILES
    for path in ("b/large", "a/small"):
        assert not os.path.samefile(where / "first" / path, where / "second" / path)
        assert not os.path.samefile(where / "first" / path, where / "third" / path)


async def test_a_cold_download_writes_nothing_twice_and_leaves_the_files_as_they_are_without_a_cache(
    counted: Counted, cache: lading.LocalCache, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(counted.target) as client:
        await client.put(source, "digits", type="dataset")
    with monkeypatch.context() as patch:
        patch.setenv("LADING_CACHE_DIR", "off")
        async with client_of(counted.target) as client:
            await (await client.version("digits")).download(tmp_path / "plain")
    async with client_of(counted.target) as client:
        await (await client.version("digits")).download(tmp_path / "kept")
        for path in FILES:
            plain, kept = (tmp_path / "plain" / path).stat(), (tmp_path / "kept" / path).stat()
            assert (kept.st_mode, kept.st_uid, kept.st_gid) == (plain.st_mode, plain.st_uid, plain.st_gid)
        # The user goes on with his files: what he writes reaches nobody else, and his times are his.
        edited = tmp_path / "kept/b/medium"
        edited.write_bytes(b"mine")
        before = {path: (tmp_path / "kept" / path).stat() for path in FILES}
        for name, link in (("again", None), ("linked", "hard")):
            await (await client.version("digits")).download(tmp_path / name, link=link)  # type: ignore[arg-type]
            assert read(tmp_path / name) == FILES
        for path, status in before.items():
            after = (tmp_path / "kept" / path).stat()
            assert (after.st_mode, after.st_mtime_ns) == (status.st_mode, status.st_mtime_ns)
        assert edited.read_bytes() == b"mine"
        assert await (await client.version("digits")).read_bytes("b/medium") == FILES["b/medium"]


def _extents(path: Path) -> list[str]:
    """Where on its disk a file's blocks begin."""
    os.sync()
    told = subprocess.run(["filefrag", "-v", str(path)], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^ *\d+: *\d+\.\. *\d+: *(\d+)\.\.", told, re.MULTILINE)
    assert found, told
    return found
