"""A crowd: 64 clients at once, each with a hundred small artifacts, against one client alone.

An artifact is a directory of one file of a kibibyte that the server has not seen: a put of it is eight calls, and as
many durable transactions. The clients are tasks of a few processes, each with connections and a collection of its own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import lading
from tests.bench.sides import keyed_server, processor_seconds, syncs_per_second

PROCESSES = 4
TASKS = 16
_ARTIFACT_BYTES = 1024
_WARM = 5
# Until each process has imported the SDK and its clients are warm.
_START_SECONDS = 10.0


@dataclass
class Row:
    """One line of the table: of all puts together."""

    clients: int
    puts_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    server_milliseconds_per_put: float


@dataclass
class Report:
    """What was measured."""

    alone: Row
    crowd: Row
    syncs_per_second: float


def measure(directory: Path, artifacts: int) -> Report:
    """One client first, then all of them, on servers of their own."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        syncs = syncs_per_second(Path(scratch))
        alone = _measured(Path(scratch) / "alone", 1, 1, artifacts)
        crowd = _measured(Path(scratch) / "crowd", PROCESSES, TASKS, artifacts)
    return Report(alone, crowd, syncs)


def show(report: Report) -> None:
    """Print what was measured."""
    print(f"{'clients':>8} {'puts a second':>14} {'p50':>9} {'p99':>9} {'server, a put':>14}")
    for row in (report.alone, report.crowd):
        print(
            f"{row.clients:8} {row.puts_per_second:14.1f} {row.p50_milliseconds:6.0f} ms "
            f"{row.p99_milliseconds:6.0f} ms {row.server_milliseconds_per_put:11.1f} ms"
        )
    print(
        f"throughput {report.crowd.puts_per_second / report.alone.puts_per_second:.1f} x one client's, p99 "
        f"{report.crowd.p99_milliseconds / report.crowd.p50_milliseconds:.1f} x p50; "
        f"{PROCESSES} processes of {TASKS} tasks each; the disk does {report.syncs_per_second:.0f} fdatasync a second"
    )


def _measured(scratch: Path, processes: int, tasks: int, artifacts: int) -> Row:
    with keyed_server(scratch / "data") as server:
        begin_at = time.time() + _START_SECONDS
        work = [(server.target, server.api_key, number, tasks, artifacts, begin_at) for number in range(processes)]
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            pending = pool.map(_put_all, work)
            time.sleep(max(0.0, begin_at - time.time()))
            before = processor_seconds(server.pid)
            results = list(pending)
        used = processor_seconds(server.pid) - before
    taken = sorted(seconds for one, _ in results for seconds in one)
    elapsed = max(ended for _, ended in results) - begin_at
    return Row(
        clients=processes * tasks,
        puts_per_second=len(taken) / elapsed,
        p50_milliseconds=statistics.median(taken) * 1000,
        p99_milliseconds=taken[int(len(taken) * 0.99) - 1] * 1000,
        server_milliseconds_per_put=used / len(taken) * 1000,
    )


def _put_all(work: tuple[str, str, int, int, int, float]) -> tuple[list[float], float]:
    """Return the seconds of each put of one process's clients, and when the last had ended."""
    return asyncio.run(_put_in_tasks(*work))


async def _put_in_tasks(
    target: str, key: str, number: int, tasks: int, artifacts: int, begin_at: float
) -> tuple[list[float], float]:
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        async with asyncio.TaskGroup() as group:
            for task in range(tasks):
                name = f"client-{number}-{task}"
                group.create_task(_put_one_by_one(Path(scratch) / name, target, key, name, artifacts, begin_at, taken))
    return taken, time.time()


async def _put_one_by_one(
    scratch: Path, target: str, key: str, name: str, artifacts: int, begin_at: float, taken: list[float]
) -> None:
    for index in range(_WARM + artifacts):
        (scratch / str(index)).mkdir(parents=True)
        (scratch / str(index) / "file.bin").write_bytes(os.urandom(_ARTIFACT_BYTES))
    async with lading.Client(target, api_key=key) as client:
        for index in range(_WARM + artifacts):
            if index == _WARM:
                await asyncio.sleep(max(0.0, begin_at - time.time()))
            began = time.perf_counter()
            await client.put(scratch / str(index), name, type="dataset")
            if index >= _WARM:
                taken.append(time.perf_counter() - began)
