"""Content: seconds, MB/s and peak memory of both sides, over the whole public path, durable when it returns."""

from __future__ import annotations

import asyncio
import filecmp
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lading
from tests.bench.client import unchanged_seconds
from tests.bench.workloads import make_workloads, size_of
from tests.support.server import running_server

WORKLOADS = ("big", "images", "tiny")


@dataclass
class Row:
    """One line of the table: medians over the rounds."""

    workload: str
    megabytes: float
    up_seconds: float
    down_seconds: float
    again_seconds: float
    sent_megabytes: float
    client_megabytes: float
    server_megabytes: float


def run(inputs: Path, workloads: Sequence[str], rounds: int, scratch: Path) -> list[Row]:
    """Measure what was asked for, and print it. What is made stays below `scratch`."""
    make_workloads(inputs)
    print(
        f"{'':8} {'MB':>7} {'up s':>7} {'MB/s':>6} {'down s':>7} {'MB/s':>6} {'again s':>8} {'client':>8} {'server':>8}"
    )
    rows = _run(inputs, workloads, rounds, scratch)
    print("client, server: peak of anonymous resident memory, without mapped files")
    return rows


def _run(inputs: Path, workloads: Sequence[str], rounds: int, scratch: Path) -> list[Row]:
    rows = [asyncio.run(measure(name, inputs, rounds, scratch)) for name in workloads]
    for row in rows:
        up, down = row.megabytes / row.up_seconds, row.megabytes / row.down_seconds
        print(
            f"{row.workload:8} {row.megabytes:7.0f} {row.up_seconds:7.2f} {up:6.0f} {row.down_seconds:7.2f} "
            f"{down:6.0f} {row.again_seconds:8.2f} {row.client_megabytes:5.0f} MB {row.server_megabytes:5.0f} MB"
        )
    if "big" in workloads:
        sent, seconds = asyncio.run(measure_change(inputs, scratch))
        print(f"1 GiB with a tenth changed and 64 bytes inserted: {seconds:.2f} s, {sent:.0f} MB sent")
    if "tiny" in workloads:
        seconds = asyncio.run(unchanged_seconds(inputs / "tiny", scratch))
        print(f"tiny again, with digests that are remembered: {seconds:.2f} s")
    return rows


async def measure(name: str, inputs: Path, rounds: int, scratch: Path) -> Row:
    """Each round on a server and a store of its own; files are compared byte for byte in the first."""
    source = inputs / name
    ups, downs, agains, sent = [], [], [], 0
    client_peak = server_peak = 0
    for number in range(rounds):
        work = scratch / f"{name}-{number}"
        with running_server(work / "data") as server:
            async with lading.IngestClient(server.target, entity="bench") as client:
                watch = asyncio.create_task(watch_memory([os.getpid(), server.pid]))
                os.sync()
                began = time.perf_counter()
                result = await client.upload_tree(source)
                ups.append(time.perf_counter() - began)
                sent = result.transfer.bytes_sent
                began = time.perf_counter()
                await client.upload_tree(source)
                agains.append(time.perf_counter() - began)
                os.sync()
                began = time.perf_counter()
                await client.download_tree(result.tree.digest, work / "out")
                downs.append(time.perf_counter() - began)
                watch.cancel()
                peaks = await watch
                client_peak = max(client_peak, peaks[0])
                server_peak = max(server_peak, peaks[1])
            if number == 0:
                compare(source, work / "out")
    return Row(
        name,
        size_of(source) / 1e6,
        statistics.median(ups),
        statistics.median(downs),
        statistics.median(agains),
        sent / 1e6,
        client_peak / 1e6,
        server_peak / 1e6,
    )


async def measure_change(inputs: Path, scratch: Path) -> tuple[float, float]:
    """Upload the big file, then the changed one; returns megabytes sent and seconds of the second."""
    with running_server(scratch / "change/data") as server:
        async with lading.IngestClient(server.target, entity="bench") as client:
            await client.upload_tree(inputs / "big")
            os.sync()
            began = time.perf_counter()
            result = await client.upload_tree(inputs / "big2")
            return result.transfer.bytes_sent / 1e6, time.perf_counter() - began


async def watch_memory(pids: list[int]) -> list[int]:
    """Sample the processes' anonymous resident memory until cancelled; return the peaks in bytes."""
    peaks = [0] * len(pids)
    try:
        while True:
            for index, pid in enumerate(pids):
                peaks[index] = max(peaks[index], anonymous_bytes(pid))
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return peaks


def anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def compare(source: Path, out: Path) -> None:
    """Fail unless both have the same files with the same bytes."""
    expected = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    actual = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    if expected != actual:
        sys.exit(f"{out} has other files than {source}")
    for path in expected:
        if not filecmp.cmp(source / path, out / path, shallow=False):
            sys.exit(f"{path} came back different")
