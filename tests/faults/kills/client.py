"""`python -m tests.faults.kills.client URL DIRECTORY SEED`: changes names until it is stopped or killed.

Each task has names of its own, and all put the same pieces, of which old ones go out of use. What a killed client was
not answered stays open: its names are left alone until somebody has seen what became of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import lading
from tests.faults.kills.journal import Journal
from tests.faults.kills.oracle import Ask, Kind, Names, live
from tests.support import pieces

TASKS = 4
TYPE = "dataset"
# Pieces that are in use at a time, and acknowledged changes after which the oldest goes out of it.
_PIECES = 30
_CHANGES_A_PIECE = 15
# Longer than any restart; a client that fails all the same leaves its question open.
_RETRY = lading.RetryPolicy(retry_seconds=120, longest_seconds=0.5)


def collection_of(task: str) -> str:
    return f"data-{task}"


def model_of(task: str) -> str:
    return f"model-registry/model-{task}"


class Task:
    """Asks one thing after the other about the names of its own."""

    def __init__(self, name: str, writer: lading.Client, reader: lading.Client, journal: Journal, local: Path) -> None:
        self._name = name
        self._writer = writer
        self._reader = reader
        self._journal = journal
        self._local = local

    @property
    def _names(self) -> Names:
        return self._journal.known.names.get(self._name, Names())

    async def run(self, rng: random.Random, stopped: asyncio.Event) -> None:
        """Change and read until told to stop."""
        while not stopped.is_set():
            first = self._journal.known.acknowledged // _CHANGES_A_PIECE
            chosen = rng.sample(range(first, first + _PIECES), rng.randint(1, 4))
            ask = self._names.choose(rng, tuple(sorted(chosen)))
            self._journal.write("ask", self._name, ask.to_json())
            self._journal.write("answer", self._name, await self._do(ask))
            if there := live(self._names.versions):
                await self._read(rng.choice(there))

    async def _do(self, ask: Ask) -> int:
        """Ask, and return the number of the version or link that it was about."""
        client, version = self._writer, f"{collection_of(self._name)}:v{ask.number}"
        match ask.kind:
            case Kind.PUT:
                local = pieces.files(self._local, ask.pieces)
                done = await client.put(local, collection_of(self._name), type=TYPE, aliases=ask.aliases)
                return done.version.number
            case Kind.ALIAS:
                return (await client.set_aliases(version, ask.aliases)).number
            case Kind.LINK:
                return (await client.link(version, model_of(self._name), ask.aliases)).number
            case Kind.UNLINK:
                return (await client.unlink(f"{model_of(self._name)}:v{ask.number}", force=True)).number
            case Kind.DELETE | Kind.PURGE:
                return (await client.delete(version, force=True, purge=ask.kind is Kind.PURGE)).number
            case Kind.UNDELETE:
                return (await client.undelete(version)).version.number

    async def _read(self, number: int) -> None:
        version = await self._reader.version(f"{collection_of(self._name)}:v{number}")
        await check_content(version, self._names.versions[number].pieces)
        self._journal.write("read", self._name, number)


async def check_content(version: lading.Version, expected: tuple[int, ...]) -> None:
    """Raise unless a version has just these pieces, byte for byte."""
    with tempfile.TemporaryDirectory(prefix="lading-kills-") as scratch:
        root = await version.download(scratch)
        found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found.keys() == set(map(pieces.path_of, expected)), f"{version} has {sorted(found)}"
    for piece in expected:
        assert found[pieces.path_of(piece)] == pieces.content(piece), f"{version}: {pieces.path_of(piece)} is wrong"


async def main(url: str, directory: Path, seed: int) -> int:
    """Work until SIGTERM. Returns 1 when something came that must not come."""
    journal = Journal(directory / "journal")
    local = directory / "pieces"
    local.mkdir(exist_ok=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    # Digests are remembered by whoever stores, as users have it. Whoever reads asks the server for each byte.
    os.environ["LADING_CACHE_DIR"] = str(directory / "cache")
    writer = lading.Client(url, retry=_RETRY)
    os.environ["LADING_CACHE_DIR"] = "off"
    reader = lading.Client(url, retry=_RETRY)
    free = [name for name in journal.known.names if name not in journal.known.unanswered][-TASKS:]
    known = len(journal.known.names)
    names = [*free, *(f"{known + more:03}" for more in range(TASKS - len(free)))]

    async def watched(name: str) -> None:
        try:
            await Task(name, writer, reader, journal, local).run(random.Random(f"{seed}/{name}"), stopped)
        except Exception as error:  # the journal is where failures are looked for
            journal.write("wrong", name, f"{type(error).__name__}: {error}")

    async with writer, reader:
        await asyncio.gather(*map(watched, names))
    return 1 if journal.known.wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
