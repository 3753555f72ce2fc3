"""`python -m tests.soak.worker URL DIRECTORY NAME SEED OPERATIONS`: a client of the soak, with some tasks.

All clients have the same collections and the same pieces, of which old ones go out of use; so each stores what others
have stored or just let go of, and reads, moves and deletes what is theirs. A few pieces nobody else has: they are
garbage as soon as their version is.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO

import lading
from tests.soak.calls import Call, Kind
from tests.support import pieces

TASKS = 2
COLLECTIONS = tuple(f"data-{number}" for number in range(6))
MODEL = "model-registry/soak"
ALIASES = ("best", "staging")
# Versions of a collection that there are about, and pieces that are in use at a time.
_VERSIONS = 12
_PIECES = 30
# A piece goes out of use after so many operations of a client.
_OPERATIONS_A_PIECE = 8
# How many versions have a piece of their own, and what such pieces are counted from.
_OWN_SHARE = 0.2
_OWN_PIECES = 1_000_000
_WEIGHTS = {
    Kind.PUT: 20,
    Kind.GET: 24,
    Kind.READ: 16,
    Kind.ALIAS: 12,
    Kind.LINK: 2,
    Kind.UNLINK: 2,
    Kind.DELETE: 5,
    Kind.PURGE: 10,
    Kind.UNDELETE: 3,
    Kind.LIST: 6,
}


class Worker:
    """The tasks of one process."""

    def __init__(self, writer: lading.Client, reader: lading.Client, local: Path, log: IO[str], seed: str) -> None:
        self._writer = writer
        self._reader = reader
        self._local = local
        self._log = log
        self._rng = random.Random(seed)
        self._done = 0
        # Of this process alone, and of no other seed.
        self._own_piece = _OWN_PIECES * self._rng.randrange(1, 1 << 32)
        # What was seen last, of all clients.
        self._seen: dict[str, list[lading.Version]] = {name: [] for name in COLLECTIONS}
        self._links: list[lading.Version] = []

    async def run(self, operations: int) -> None:
        """Do so many operations, several at a time."""

        async def task() -> None:
            while self._done < operations:
                self._done += 1
                await self._one()

        await asyncio.gather(*(task() for _ in range(TASKS)))

    async def _one(self) -> None:
        rng = self._rng
        collection = rng.choice(COLLECTIONS)
        seen = self._seen[collection]
        kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        if kind is Kind.UNLINK and not self._links:
            kind = Kind.LINK
        if kind is Kind.LIST or not seen:
            await self._timed(Kind.LIST, "", lambda: self._list(collection))
            if seen or kind is Kind.LIST:
                return
            kind = Kind.PUT
        if kind is Kind.PUT and len(seen) > 2 * _VERSIONS:
            kind = Kind.PURGE
        if kind in {Kind.DELETE, Kind.PURGE} and len(seen) < _VERSIONS:
            kind = Kind.PUT
        if kind is Kind.PUT:
            await self._put(collection)
        elif kind is Kind.UNLINK:
            link = self._links.pop(rng.randrange(len(self._links)))
            reference = f"{MODEL}:v{link.number}"
            await self._timed(kind, reference, lambda: self._writer.unlink(reference))
        else:
            version = rng.choice(seen)
            await self._timed(kind, version.name, self._about(kind, version))

    def _about(self, kind: Kind, version: lading.Version) -> Callable[[], Awaitable[object]]:
        """Return what does something with a version that was seen."""
        rng, client, name = self._rng, self._writer, version.name
        match kind:
            case Kind.GET:
                return lambda: self._get(name)
            case Kind.READ:
                return lambda: self._read(name)
            case Kind.ALIAS:
                alias = rng.choice(ALIASES)
                beliefs = {alias: version.number} if rng.random() < 0.3 else {}
                return lambda: client.set_aliases(name, [alias], expected=beliefs)
            case Kind.LINK:
                return lambda: self._link(name)
            case Kind.UNDELETE:
                return lambda: client.undelete(name)
        self._forget(version)
        force, purge = rng.random() < 0.5, kind is Kind.PURGE
        return lambda: client.delete(name, force=force, purge=purge)

    async def _timed(self, kind: Kind, reference: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do something, and write a line of it."""
        began_at = time.time()
        refused = message = ""
        try:
            await work()
        except Exception as error:  # whether it may come is for the run to say
            reason = error.reason if isinstance(error, lading.LadingError) else ""
            refused, message = f"{type(error).__name__} {reason}", str(error)
        self._tell(Call(kind, reference, began_at, time.time(), refused, message))

    def _tell(self, call: Call) -> None:
        print(json.dumps(call.to_json()), file=self._log, flush=True)

    async def _put(self, collection: str) -> None:
        first = self._done // _OPERATIONS_A_PIECE
        chosen = self._rng.sample(range(first, first + _PIECES), self._rng.randint(1, 5))
        if self._rng.random() < _OWN_SHARE:
            self._own_piece += 1
            chosen.append(self._own_piece)
        try:
            await self._put_pieces(collection, chosen)
        finally:
            # What no task of this process is still storing.
            for piece in (first - _PIECES, *(piece for piece in chosen if piece >= _OWN_PIECES)):
                (self._local / str(piece)).unlink(missing_ok=True)

    async def _put_pieces(self, collection: str, chosen: list[int]) -> None:
        aliases = [self._rng.choice(ALIASES)] if self._rng.random() < 0.05 else []
        local = pieces.files(self._local, chosen)
        began_at = time.time()
        try:
            version = (await self._writer.put(local, collection, type="dataset", aliases=aliases)).version
        except Exception as error:  # as above
            reason = error.reason if isinstance(error, lading.LadingError) else ""
            self._tell(Call(Kind.PUT, "", began_at, time.time(), f"{type(error).__name__} {reason}", str(error)))
            return
        self._tell(Call(Kind.PUT, version.name, began_at, time.time()))
        self._seen[collection].append(version)

    async def _get(self, name: str) -> None:
        version = await self._reader.version(name)
        with tempfile.TemporaryDirectory(prefix="lading-soak-") as scratch:
            root = await version.download(scratch)
            found = [path for path in root.rglob("*") if path.is_file()]
            assert len(found) == version.file_count, f"{name} has {len(found)} files instead of {version.file_count}"
            for path in found:
                check(name, str(path.relative_to(root)), path.read_bytes())

    async def _read(self, name: str) -> None:
        version = await self._reader.version(name)
        paths = [entry.path async for entry in version.files()]
        path = self._rng.choice(paths)
        check(name, path, await version.read_bytes(path))

    async def _link(self, name: str) -> None:
        self._links.append(await self._writer.link(name, MODEL))

    async def _list(self, collection: str) -> None:
        try:
            self._seen[collection] = [version async for version in self._writer.versions(collection)]
        except lading.NotFound:
            # Nobody put anything yet.
            self._seen[collection] = []

    def _forget(self, version: lading.Version) -> None:
        seen = self._seen[version.collection]
        if version in seen:
            seen.remove(version)


def check(name: str, path: str, data: bytes) -> None:
    """Raise unless these are the bytes that the path says."""
    assert data == pieces.content(pieces.piece_at(path)), f"{path} of {name} has wrong bytes"


async def main(url: str, directory: Path, name: str, seed: str, operations: int) -> None:
    """Work, and write a line of each call to `NAME.calls`."""
    local = directory / f"{name}.pieces"
    local.mkdir()
    # Digests are remembered by whoever stores, as users have it. Whoever reads asks the server for each byte.
    os.environ["LADING_CACHE_DIR"] = str(directory / f"{name}.cache")
    writer = lading.Client(url)
    os.environ["LADING_CACHE_DIR"] = "off"
    async with writer, lading.Client(url) as reader:
        with (directory / f"{name}.calls").open("w") as log:
            await Worker(writer, reader, local, log, f"{seed}/{name}").run(operations)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
