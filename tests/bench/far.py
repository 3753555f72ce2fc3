"""Far: a server that is 100 ms away behind 200 Mbit/s, and how much of that link an upload uses.

The file is smaller than a gibibyte, so that this takes a minute: the round trips at the beginning and the end weigh
more, and the share of the link would only be larger for a larger file.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.content import watch_memory
from tests.bench.sides import client_of, keyed_server
from tests.bench.workloads import SEED
from tests.support.far import far_from
from tests.support.server import ServerProcess

ROUND_TRIP_SECONDS = 0.1
BYTES_PER_SECOND = 200e6 / 8
_FILES = 1000
_SMALL_BYTES = (10_000, 100_000)


@dataclass
class Row:
    """One line of the table. Memory is the highest anonymous resident memory while it ran."""

    what: str
    megabytes: float
    seconds: float
    link_share: float
    client_megabytes: float
    server_megabytes: float


def measure(directory: Path, large_bytes: int) -> list[Row]:
    """Upload and download one large file; then as many bytes as many small files have in one, and those files."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        return asyncio.run(_measure(Path(scratch), large_bytes))


def show(rows: list[Row]) -> None:
    """Print what was measured."""
    print(f"{'':26} {'MB':>6} {'s':>7} {'of the link':>12} {'client':>8} {'server':>8}")
    for row in rows:
        print(
            f"{row.what:26} {row.megabytes:6.0f} {row.seconds:7.2f} {row.link_share:12.0%} "
            f"{row.client_megabytes:5.0f} MB {row.server_megabytes:5.0f} MB"
        )
    seconds = {row.what: row.seconds for row in rows}
    for size_bytes in _SMALL_BYTES:
        for direction in ("up", "down"):
            many, one = f"{_many(size_bytes)}, {direction}", f"{_one(size_bytes)}, {direction}"
            print(f"{many}: {seconds[many] / seconds[one]:.2f} x the time of {one}")


async def _measure(scratch: Path, large_bytes: int) -> list[Row]:
    rng = random.Random(SEED)
    _write(scratch / "large/large.bin", rng, large_bytes)
    sources = [("one file", scratch / "large", large_bytes)]
    for size_bytes in _SMALL_BYTES:
        for index in range(_FILES):
            _write(scratch / f"many-{size_bytes}/{index:04}.bin", rng, size_bytes)
        _write(scratch / f"one-{size_bytes}/all.bin", rng, size_bytes * _FILES)
        sources += [
            (_one(size_bytes), scratch / f"one-{size_bytes}", size_bytes * _FILES),
            (_many(size_bytes), scratch / f"many-{size_bytes}", size_bytes * _FILES),
        ]
    with (
        keyed_server(scratch / "far/data") as server,
        far_from(server.target, round_trip_seconds=ROUND_TRIP_SECONDS, bytes_per_second=BYTES_PER_SECOND) as far,
    ):
        rows = [await _up_and_down(server, far, what, source, size_bytes) for what, source, size_bytes in sources]
    return [row for pair in rows for row in pair]


async def _up_and_down(server: ServerProcess, far: str, what: str, source: Path, size_bytes: int) -> list[Row]:
    """Each with a client of its own, which has called once: its connections are there."""
    rows = []
    async with client_of(server, far) as client:
        await client.whoami()
        version = None

        async def up() -> None:
            nonlocal version
            version = (await client.put(source, source.name, type="dataset")).version

        async def down() -> None:
            assert version is not None
            await version.download(source.parent / "out" / source.name)

        for direction, move in (("up", up), ("down", down)):
            rows.append(await _measured(server, f"{what}, {direction}", size_bytes, move()))
    return rows


async def _measured(server: ServerProcess, what: str, size_bytes: int, moving: Awaitable[None]) -> Row:
    watch = asyncio.create_task(watch_memory([os.getpid(), server.pid]))
    began = time.perf_counter()
    await moving
    seconds = time.perf_counter() - began
    watch.cancel()
    client_bytes, server_bytes = await watch
    share = size_bytes / BYTES_PER_SECOND / seconds
    return Row(what, size_bytes / 1e6, seconds, share, client_bytes / 1e6, server_bytes / 1e6)


def _one(size_bytes: int) -> str:
    return f"{size_bytes * _FILES // 1_000_000} MB in one file"


def _many(size_bytes: int) -> str:
    return f"{_FILES:,} x {size_bytes // 1000} KB"


def _write(path: Path, rng: random.Random, size_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while size_bytes:
            part = rng.randbytes(min(size_bytes, 4 << 20))
            file.write(part)
            size_bytes -= len(part)
