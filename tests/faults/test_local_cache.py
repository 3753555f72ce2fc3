"""One cache of many processes that fill, use and evict it at once, and of processes that are killed at any moment."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lading
from lading._cache.store import CONTENT
from lading_format.digest import blake3_digest
from tests.support.server import ServerProcess

ENTITY = "crowd"
SEED = 4_711
PROCESSES = 4
DOWNLOADS = 12
KILLS = 15
# Three trees that share files, of 6 MB together; the cache holds a third of that, so that somebody always evicts.
TREES = 3
LIMIT_BYTES = 2 << 20
# No entry has it: so whoever looks can tell what a test damaged.
DAMAGED_MODE = 0o600


def content(tree: int) -> dict[str, bytes]:
    """The files of a tree: some of its own, some that the next tree has, too, and one that is fetched by itself."""
    files = {}
    for number in range(tree * 20, tree * 20 + 30):
        files[f"f/{number:03}"] = random.Random(number % (TREES * 20)).randbytes(40_000)
    files["large"] = random.Random(1_000 + tree).randbytes(1_200_000)
    return files


async def upload(target: str, scratch: Path) -> list[str]:
    digests = []
    async with lading.IngestClient(target, entity=ENTITY) as client:
        for tree in range(TREES):
            root = scratch / f"source-{tree}"
            for path, data in content(tree).items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
            digests.append((await client.upload_tree(root)).tree.digest)
    return digests


def download_again_and_again(target: str, digests: list[str], directory: str, seed: int, downloads: int) -> None:
    """What each process does. Damages an entry now and then, as a bad disk would."""
    asyncio.run(_downloads(target, digests, directory, random.Random(seed), downloads))


async def _downloads(target: str, digests: list[str], directory: str, rng: random.Random, downloads: int) -> None:
    cache = lading.LocalCache(directory, LIMIT_BYTES)
    async with lading.IngestClient(target, entity=ENTITY, cache=cache) as client:
        for _ in range(downloads):
            tree = rng.randrange(TREES)
            with tempfile.TemporaryDirectory() as scratch:
                link = rng.choice([None, "hard"])
                await client.download_tree(digests[tree], scratch, link=link)  # type: ignore[arg-type]
                root = Path(scratch)
                found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
                assert found == content(tree)
            if rng.random() < 0.3:
                _damage_one(Path(directory, CONTENT), rng)


def _damage_one(where: Path, rng: random.Random) -> None:
    try:
        shard = rng.choice(sorted(path for path in where.iterdir() if len(path.name) == 2))
        path = rng.choice(sorted(shard.iterdir()))
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1
        # In place of the entry, and not in it: its bytes may have other names, of files that somebody looks at.
        (where / "new" / f"damage-{os.getpid()}").write_bytes(data)
        (where / "new" / f"damage-{os.getpid()}").chmod(DAMAGED_MODE)
        os.rename(where / "new" / f"damage-{os.getpid()}", path)
    except (FileNotFoundError, IndexError):
        return  # another process was faster


async def test_many_processes_fill_use_and_evict_one_cache_and_all_downloads_are_right(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    digests = await upload(shared_server.target, tmp_path)
    directory = tmp_path / "cache"
    print(f"seed {SEED}")
    spawn = multiprocessing.get_context("spawn")
    crowd = [
        spawn.Process(
            target=download_again_and_again,
            args=(shared_server.target, digests, str(directory), SEED + number, DOWNLOADS),
        )
        for number in range(PROCESSES)
    ]
    for process in crowd:
        process.start()
    for process in crowd:
        await asyncio.to_thread(process.join)
    assert [process.exitcode for process in crowd] == [0] * PROCESSES
    cache = lading.LocalCache(directory, LIMIT_BYTES)
    # Each process may be a step over before it looks.
    assert cache.info().size_bytes <= LIMIT_BYTES + PROCESSES * (LIMIT_BYTES // 16 + 1_200_000)
    cache.verify()
    assert cache.verify().ok
    assert not [name for name in os.listdir(directory / CONTENT / "new") if not name.startswith("damage")]


_DOWNLOADER = """
import sys
from tests.faults.test_local_cache import download_again_and_again
print("ready", flush=True)
download_again_and_again(sys.argv[1], sys.argv[5:], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


@pytest.mark.slow
async def test_a_process_that_is_killed_while_it_fills_leaves_nothing_wrong(
    shared_server: ServerProcess, tmp_path: Path
) -> None:
    digests = await upload(shared_server.target, tmp_path)
    directory = tmp_path / "cache"
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    cache = lading.LocalCache(directory, LIMIT_BYTES)
    for kill in range(KILLS):
        arguments = [shared_server.target, str(directory), str(SEED + kill), "1000", *digests]
        process = _started(arguments)
        assert process.stdout is not None
        with process.stdout as told:
            assert told.readline() == "ready\n"
            # At another moment each time: after so many entries were given a name, or taken away again.
            await _until_changed(directory / CONTENT, rng.randrange(1, 60))
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)
        for entry in (directory / CONTENT).glob("??/*"):
            if entry.suffix != ".tree" and blake3_digest(entry.read_bytes()).hex() != entry.stem:
                # Only what the downloader damages itself is ever wrong, never what was cut off.
                assert entry.stat().st_mode & 0o777 == DAMAGED_MODE
                entry.unlink()
        assert cache.verify().ok
    await asyncio.to_thread(download_again_and_again, shared_server.target, digests, str(directory), SEED, 6)


def _started(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _DOWNLOADER, *arguments], stdout=subprocess.PIPE, text=True)


async def _until_changed(where: Path, changes: int) -> None:
    """Wait until a cache has changed so often."""
    seen: set[str] = set()
    while len(seen) < changes:
        for shard in where.glob("??"):
            status = shard.stat()
            seen.add(f"{shard.name} {status.st_mtime_ns}")
        await asyncio.sleep(0)
