"""Ingest and registry as two processes with keys, each of which can be killed and started again in its place."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import lading
from tests.support.server import ServerProcess

INGEST, REGISTRY = SERVICES = ("ingest", "registry")


def free_port() -> int:
    """A port that is free now; both processes have to be told of it before either runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Pair:
    """The two services. Which of them runs is up to whoever asks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.service_key = secrets.token_hex(32)
        self._key_file = directory / "service.key"
        self._key_file.write_text(self.service_key)
        self._addresses = {name: f"127.0.0.1:{free_port()}" for name in SERVICES}
        self.servers: dict[str, ServerProcess] = {}

    @property
    def url(self) -> str:
        """What clients are told."""
        return self._addresses[REGISTRY]

    @property
    def ingest_address(self) -> str:
        return self._addresses[INGEST]

    @property
    def admin_key(self) -> str:
        return (self.data(REGISTRY) / "admin.key").read_text().strip()

    @property
    def operator_key(self) -> str:
        return (self.data(REGISTRY) / "operator.key").read_text().strip()

    def data(self, name: str) -> Path:
        """The data directory of a service."""
        return self.directory / name

    def client(self, key: str = "") -> lading.Client:
        """A client of the entity's admin, or of whoever's key it is."""
        return lading.Client(self.url, api_key=key or self.admin_key)

    def start(self, *flags: str, registry_flags: Sequence[str] = ()) -> None:
        """Start what does not run, both at once. `flags` are for ingest."""
        more = {INGEST: flags, REGISTRY: registry_flags}
        idle = [name for name in SERVICES if name not in self.servers]
        with ThreadPoolExecutor(len(SERVICES)) as starting:
            for name, server in zip(
                idle, starting.map(lambda name: self._started(name, more[name]), idle), strict=True
            ):
                self.servers[name] = server

    def _started(self, name: str, flags: Sequence[str]) -> ServerProcess:
        other = INGEST if name == REGISTRY else REGISTRY
        own = ("--services", name, "--listen", self._addresses[name], f"--{other}-target", self._addresses[other])
        return ServerProcess(self.data(name), *own, "--service-key-file", str(self._key_file), *flags, auth="keys")

    def kill(self, name: str) -> None:
        """SIGKILL a service."""
        server = self.servers.pop(name)
        server.kill()
        server.close()

    def stop(self) -> None:
        """Stop what runs, as its operator would."""
        for name in SERVICES:
            if name in self.servers:
                server = self.servers.pop(name)
                assert server.terminate() == 0, server.log_text()
                server.close()

    def close(self) -> None:
        """End what runs, whatever it is doing."""
        for server in self.servers.values():
            server.close()


@contextmanager
def pair_in(directory: Path) -> Iterator[Pair]:
    """A pair for the length of the block, which has to start it."""
    pair = Pair(directory)
    try:
        yield pair
    finally:
        pair.close()
