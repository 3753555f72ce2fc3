"""A million files of ten bytes in one tree: seconds and memory of a commit, a listing and a comparison.

The first put reads and sends every file. The second, of the directory with ten of them changed, finds the others
remembered. Every file has other bytes, so the server keeps a million blobs; that is the hardest form of this.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from unittest import mock

import lading
from tests.bench.content import watch_memory
from tests.bench.sides import client_of, keyed_server, spent
from tests.support.server import ServerProcess

T = TypeVar("T")

_PER_DIRECTORY = 1000
_CHANGES = 10


@dataclass
class Row:
    """One step. Memory is the highest anonymous resident memory of each side during it."""

    step: str
    found: int
    seconds: float
    client_seconds: float
    server_seconds: float
    client_megabytes: float
    server_megabytes: float


def measure(directory: Path, files: int) -> list[Row]:
    """Put that many files, list one directory of them, put ten changes, and compare."""
    source = _inputs(directory, files)
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        return asyncio.run(_measure(source, files, Path(scratch)))


def show(rows: list[Row]) -> None:
    """Print what was measured."""
    print(f"{'':20} {'found':>9} {'s':>7} {'of it: client':>14} {'server':>8} {'memory: client':>15} {'server':>8}")
    for row in rows:
        print(
            f"{row.step:20} {row.found:9,} {row.seconds:7.2f} {row.client_seconds:12.2f} s {row.server_seconds:6.2f} s "
            f"{row.client_megabytes:12.0f} MB {row.server_megabytes:5.0f} MB"
        )


async def _measure(source: Path, files: int, scratch: Path) -> list[Row]:
    rows: list[Row] = []
    with keyed_server(scratch / "million/data") as server, mock.patch.dict(os.environ, LADING_CACHE_DIR=str(scratch)):
        async with client_of(server) as client:

            async def put() -> tuple[lading.Version, int]:
                version = (await client.put(source, "million", type="dataset")).version
                return version, version.file_count

            first = await _step(rows, server, "put", put)
            await _step(rows, server, "list a directory", lambda: _listed(first, f"{_directory(files // 2)}/"))
            await _step(rows, server, "list the directories", lambda: _listed(first, ""))
            changed = [source / _path(files // _CHANGES * index) for index in range(_CHANGES)]
            for path in changed:
                _replace(path, path.read_bytes()[::-1] + b".")
            try:
                second = await _step(rows, server, "put ten changes", put)
            finally:
                for path in changed:
                    _replace(path, path.read_bytes()[-2::-1])
            await _step(rows, server, "compare", lambda: _compared(first, second))
    return rows


async def _step(rows: list[Row], server: ServerProcess, step: str, call: Callable[[], Awaitable[tuple[T, int]]]) -> T:
    watch = asyncio.create_task(watch_memory([os.getpid(), server.pid]))
    with spent(server) as used:
        result, found = await call()
    watch.cancel()
    client, server_ = await watch
    rows.append(Row(step, found, used.seconds, used.client_seconds, used.server_seconds, client / 1e6, server_ / 1e6))
    return result


async def _listed(version: lading.Version, prefix: str) -> tuple[None, int]:
    return None, sum([1 async for _ in version.files(prefix, fold_directories=True)])


async def _compared(first: lading.Version, second: lading.Version) -> tuple[None, int]:
    return None, sum([1 async for _ in first.diff(second)])


def _inputs(directory: Path, files: int) -> Path:
    """Return a directory of that many files; made once."""
    root = directory / "inputs" / f"files-{files}"
    done = root.with_suffix(".done")
    if not done.exists():
        shutil.rmtree(root, ignore_errors=True)
        for index in range(files):
            if index % _PER_DIRECTORY == 0:
                (root / _directory(index)).mkdir(parents=True)
            (root / _path(index)).write_bytes(b"%010d" % index)
        done.touch()
    return root


def _directory(index: int) -> str:
    return f"d{index // _PER_DIRECTORY:04}"


def _path(index: int) -> str:
    return f"{_directory(index)}/{index:07}.txt"


def _replace(path: Path, data: bytes) -> None:
    """Write a file anew, as editors do: its times and its inode tell that it changed."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.rename(path)
