"""The two sides of a measurement: a server with keys, a client of it, and what each of them used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import lading
from tests.support.server import ServerProcess, running_server


@contextmanager
def keyed_server(data: Path, *flags: str) -> Iterator[ServerProcess]:
    """A server with keys, and this process without remembered digests or kept blobs: all is read, sent and fetched."""
    with mock.patch.dict(os.environ, LADING_CACHE_DIR=""), running_server(data, *flags, auth="keys") as server:
        yield server


def client_of(server: ServerProcess, target: str = "") -> lading.Client:
    """A client with the admin's key, which dials another address than the server's where one is given."""
    return lading.Client(target or server.target, api_key=server.api_key)


@dataclass
class Spent:
    """What a step took: seconds of the clock, and of one core in each process."""

    seconds: float = 0.0
    client_seconds: float = 0.0
    server_seconds: float = 0.0


@contextmanager
def spent(server: ServerProcess) -> Iterator[Spent]:
    """Measure the block; read the result after it. On a machine with other work only processor time says much."""
    found = Spent()
    began, mine, other = time.perf_counter(), time.process_time(), processor_seconds(server.pid)
    yield found
    found.seconds = time.perf_counter() - began
    found.client_seconds = time.process_time() - mine
    found.server_seconds = processor_seconds(server.pid) - other


def processor_seconds(pid: int) -> float:
    """Seconds of one core that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def syncs_per_second(directory: Path, seconds: float = 1.0) -> float:
    """How often the disk makes 4 KiB durable: what bounds everything that is acknowledged one after the other."""
    path = directory / "sync.bin"
    count, began = 0, time.perf_counter()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        while time.perf_counter() - began < seconds:
            os.write(fd, bytes(4096))
            os.fdatasync(fd)
            count += 1
    finally:
        os.close(fd)
        path.unlink()
    return count / (time.perf_counter() - began)
