"""The registry: milliseconds of a commit, a move and a resolve, with few versions in the database and with many.

Each call goes the whole public way, SDK, gRPC with a key, and SQLite, durable when it returns, one after the other in a
warm process. Commits and moves are in the largest collection; what is resolved is an alias of any.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lading
from tests.bench.fill import SEED, Place, filled, places
from tests.support.server import ServerProcess, running_server

# Client processes, and tasks of each: enough that the server always has something to do.
_PROCESSES = 2
_TASKS = 8
# Until each client process has imported the SDK, is connected and warm.
_START_SECONDS = 5.0


@dataclass
class Row:
    """One line of the table."""

    operation: str
    versions: int
    p50_milliseconds: float
    p99_milliseconds: float


@dataclass
class Report:
    """What was measured with one size of the database."""

    rows: list[Row]
    versions: int
    resolves_per_second: float


def measure(directory: Path, versions: int, calls: int, seconds: float, say: Callable[[str], None]) -> Report:
    """Measure over a registry with that many versions, which is made below `directory` if it is not there."""
    data = filled(directory, versions, say)
    every = places(versions)
    with running_server(data, auth="keys") as server:
        say(f"{versions:,} versions: one call after the other")
        rows = asyncio.run(_one_by_one(server, directory, every, versions, calls))
        say(f"{versions:,} versions: resolves a second")
        rate = _resolves_per_second(server, versions, seconds)
        server.terminate()
    return Report(rows, versions, rate)


def show(reports: Sequence[Report]) -> None:
    """Print what was measured."""
    print(f"{'':16} {'versions':>10} {'p50':>11} {'p99':>11}")
    for row in (row for report in reports for row in report.rows):
        print(f"{row.operation:16} {row.versions:10,} {row.p50_milliseconds:8.2f} ms {row.p99_milliseconds:8.2f} ms")
    for report in reports:
        print(
            f"{'resolves':16} {report.versions:10,} {report.resolves_per_second:8,.0f} a second, by {_PROCESSES} "
            f"processes of {_TASKS} tasks each"
        )


async def _one_by_one(
    server: ServerProcess, directory: Path, every: Sequence[Place], versions: int, calls: int
) -> list[Row]:
    rng = random.Random(SEED)
    large = every[0]
    rounds = range(calls // 10 + calls)
    moves = [f"{large.path}:v{rng.randrange(large.size)}" for _ in rounds]
    found = [f"{rng.choice(every).path}:best" for _ in rounds]
    async with lading.Client(server.target, api_key=server.api_key) as client:
        trees = await _trees(server, directory, (await client.whoami()).entity, len(rounds))
        operations: dict[str, Callable[[int], Awaitable[object]]] = {
            "create a version": lambda index: client.commit(trees[index], large.path, type="dataset"),
            "move an alias": lambda index: client.set_aliases(moves[index], ["staging"]),
            "resolve an alias": lambda index: client.version(found[index]),
        }
        return [Row(name, versions, *await _timed(call, len(rounds), calls)) for name, call in operations.items()]


async def _trees(server: ServerProcess, directory: Path, entity: str, count: int) -> list[str]:
    """Upload trees of one small file each, that were never there before, and return their digests."""
    file = directory / "small.bin"
    async with lading.IngestClient(server.target, entity=entity, api_key=server.api_key) as client:
        digests = []
        for _ in range(count):
            file.write_bytes(os.urandom(100))
            digests.append((await client.upload_tree({file.name: file})).tree.digest)
        return digests


async def _timed(call: Callable[[int], Awaitable[object]], rounds: int, calls: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of the last `calls` of so many rounds, in milliseconds."""
    taken = []
    for index in range(rounds):
        began = time.perf_counter()
        await call(index)
        taken.append((time.perf_counter() - began) * 1000)
    taken = sorted(taken[-calls:])
    return statistics.median(taken), taken[int(calls * 0.99) - 1]


def _resolves_per_second(server: ServerProcess, versions: int, seconds: float) -> float:
    begin_at = time.time() + _START_SECONDS
    work = [(server.target, server.api_key, versions, SEED + index, begin_at, seconds) for index in range(_PROCESSES)]
    with ProcessPoolExecutor(_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(_resolves, work)) / seconds


def _resolves(work: tuple[str, str, int, int, float, float]) -> int:
    """Return how many references one process resolved in its time."""
    return asyncio.run(_resolve_until(*work))


async def _resolve_until(target: str, key: str, versions: int, seed: int, begin_at: float, seconds: float) -> int:
    rng = random.Random(seed)
    every = places(versions)
    count = 0

    async def resolve(client: lading.Client) -> None:
        nonlocal count
        while time.time() < begin_at + seconds:
            await client.version(f"{rng.choice(every).path}:{rng.choice(['best', 'latest'])}")
            count += time.time() >= begin_at

    async with lading.Client(target, api_key=key) as client, asyncio.TaskGroup() as tasks:
        for _ in range(_TASKS):
            tasks.create_task(resolve(client))
    return count
