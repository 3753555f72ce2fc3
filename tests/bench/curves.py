"""Curves: throughput against the size of one file, and cost against the number of files. plots.py draws them.

One client and one server, warm, keys on; each point is the best of three, as what else runs only makes one slower.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import lading
from tests.bench.sides import client_of, keyed_server
from tests.bench.workloads import SEED

_SIZES = [1_000 * 10**power for power in range(6)] + [1 << 30]
_COUNTS = [10**power for power in range(6)]
_FILE_BYTES = 10_000
_ROUNDS = 3
# Of the largest points one round is enough: they take long, and vary little.
_LARGE_BYTES = 500_000_000


@dataclass
class Point:
    """One point of both curves of its kind: `size` with files = 1, or `count` with files of 10 KB."""

    kind: str
    files: int
    size_bytes: int
    up_seconds: float
    down_seconds: float


def measure(scratch: Path, most_files: int) -> list[Point]:
    """Measure every point; counts up to `most_files`. What is made stays below `scratch`."""
    return asyncio.run(_measure(scratch, most_files))


def show(points: list[Point]) -> None:
    """Print what was measured."""
    print(f"{'':6} {'files':>8} {'MB':>8} {'up s':>8} {'down s':>8} {'MB/s':>6} {'MB/s':>6} {'µs a file':>10}")
    for point in points:
        megabytes = point.size_bytes / 1e6
        print(
            f"{point.kind:6} {point.files:8,} {megabytes:8.3f} {point.up_seconds:8.3f} {point.down_seconds:8.3f} "
            f"{megabytes / point.up_seconds:6.1f} {megabytes / point.down_seconds:6.1f} "
            f"{point.up_seconds / point.files * 1e6:10.0f}"
        )


async def _measure(scratch: Path, most_files: int) -> list[Point]:
    wanted = [("size", 1, size) for size in _SIZES]
    wanted += [("count", count, count * _FILE_BYTES) for count in _COUNTS if count <= most_files]
    rng = random.Random(SEED)
    with keyed_server(scratch / "curves/data") as server:
        async with client_of(server) as client:
            await client.whoami()
            return [await _point(client, scratch, rng, *one) for one in wanted]


async def _point(
    client: lading.Client, scratch: Path, rng: random.Random, kind: str, files: int, size_bytes: int
) -> Point:
    ups, downs = [], []
    for number in range(1 if size_bytes > _LARGE_BYTES else _ROUNDS):
        work = scratch / f"{kind}-{files}-{size_bytes}-{number}"
        for index in range(files):
            _write(work / f"in/{index // 1000}/{index}.bin", rng, size_bytes // files)
        os.sync()
        began = time.perf_counter()
        version = (await client.put(work / "in", f"{kind}-{files}-{size_bytes}", type="dataset")).version
        ups.append(time.perf_counter() - began)
        began = time.perf_counter()
        await version.download(work / "out")
        downs.append(time.perf_counter() - began)
    return Point(kind, files, size_bytes, min(ups), min(downs))


def _write(path: Path, rng: random.Random, size_bytes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while size_bytes:
            part = rng.randbytes(min(size_bytes, 4 << 20))
            file.write(part)
            size_bytes -= len(part)
