"""What a version costs that is in the local cache: seconds, and calls to ingest. And what keeping it cost before."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import statistics
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import lading
from tests.bench.workloads import make_workloads
from tests.support.server import running_server

_INGEST_CALLS = re.compile(r'^lading_calls_total\{[^}]*method="/?lading\.ingest\.v1[^}]*\} (\S+)', re.MULTILINE)


@dataclass
class CachedRow:
    """One line of the table: medians over the rounds, each of which downloads to a fresh directory."""

    way: str
    seconds: float
    ingest_calls: int


def run(inputs: Path, rounds: int, scratch: Path) -> list[CachedRow]:
    """Measure 1,000 files of 312 KB, and print it. Cache and downloads stay below `scratch`."""
    make_workloads(inputs)
    rows = asyncio.run(_measure(inputs / "images", scratch, rounds))
    print(f"{'images, 312 MB':28} {'s':>6} {'calls to ingest':>16}")
    for row in rows:
        print(f"{row.way:28} {row.seconds:6.2f} {row.ingest_calls:16}")
    return rows


async def _measure(source: Path, scratch: Path, rounds: int) -> list[CachedRow]:
    metrics_port = _free_port()
    with running_server(scratch / "data", "--metrics-port", str(metrics_port)) as server:
        async with lading.IngestClient(server.target, entity="bench") as client:
            uploaded = await client.upload_tree(source)
        assert uploaded.tree.size_bytes == 312_000_000
        with mock.patch.dict(os.environ, LADING_CACHE_DIR="off"):
            async with lading.Client(server.target, entity="bench") as client:
                await client.put(source, "images", type="dataset")
        rows = [await _row("fetched, without a cache", server.target, scratch, rounds, metrics_port, "off", None)]
        rows.append(await _row("fetched, and kept", server.target, scratch, rounds, metrics_port, "fresh", None))
        kept = str(scratch / "kept")
        await _download(server.target, scratch / "first", kept, None)
        rows.append(await _row("from the cache", server.target, scratch, rounds, metrics_port, kept, None))
        rows.append(
            await _row("from the cache, hard links", server.target, scratch, rounds, metrics_port, kept, "hard")
        )
    rows.append(CachedRow("cp -r of the same files", statistics.median(_copies(source, scratch, rounds)), 0))
    return rows


async def _row(
    way: str,
    target: str,
    scratch: Path,
    rounds: int,
    metrics_port: int,
    cache: str,
    link: Literal["hard"] | None,
) -> CachedRow:
    seconds: list[float] = []
    calls = 0
    for number in range(rounds):
        where = scratch / f"{way}-{number}"
        directory = str(scratch / f"cache-{number}") if cache == "fresh" else cache
        before = _ingest_calls(metrics_port)
        seconds.append(await _download(target, where, directory, link))
        calls = _ingest_calls(metrics_port) - before
    return CachedRow(way, statistics.median(seconds), calls)


async def _download(target: str, where: Path, cache: str, link: Literal["hard"] | None) -> float:
    with mock.patch.dict(os.environ, LADING_CACHE_DIR=cache):
        async with lading.Client(target, entity="bench") as client:
            await client.version("images")  # a warm connection, as in every row of the other tables
            os.sync()
            began = time.perf_counter()
            version = await client.version("images")
            await version.download(where, link=link)
            return time.perf_counter() - began


def _copies(source: Path, scratch: Path, rounds: int) -> list[float]:
    seconds = []
    for number in range(rounds):
        os.sync()
        began = time.perf_counter()
        shutil.copytree(source, scratch / f"copy-{number}")
        seconds.append(time.perf_counter() - began)
    return seconds


def _ingest_calls(port: int) -> int:
    """Return how many calls ingest has answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        return sum([int(float(count)) for count in _INGEST_CALLS.findall(response.read().decode())])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
