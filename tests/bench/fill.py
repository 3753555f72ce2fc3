"""A registry of many versions, made in minutes: a real server makes the database, and rows are written below it.

Everything that calls of the benchmark look at has as many rows as a registry of that size has: versions with their tags
and metadata, aliases, runs and what they logged, pins, ten events for each version, and the requests of two days. Nine
tenths of the versions are in collections of a hundred; the rest is one large collection.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lading
from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash
from lading_server.common.ids import uuid7
from tests.support.server import ServerProcess, running_server

SEED = 11
LARGE = "large"
PER_COLLECTION = 100
EVENTS_PER_VERSION = 10
_COLLECTIONS_PER_PROJECT = 100
_VERSIONS_PER_RUN = 10
_PER_SECOND = 20  # requests that are remembered for two days came at this rate, up to one for each version
_REMEMBERED_SECONDS = 2 * 86_400
# Changed with what is written here, so that an older database is made anew.
_SHAPE = "4"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A collection that was filled."""

    project: str
    name: str
    size: int

    @property
    def path(self) -> str:
        return f"{self.project}/{self.name}"


def places(versions: int) -> list[Place]:
    """Return every collection of a registry of that many versions; the large one is the first."""
    small = (versions - versions // 10) // PER_COLLECTION
    rest = versions - small * PER_COLLECTION
    return [
        Place("project-0", LARGE, rest),
        *(
            Place(f"project-{index // _COLLECTIONS_PER_PROJECT}", f"data-{index}", PER_COLLECTION)
            for index in range(small)
        ),
    ]


def filled(directory: Path, versions: int, say: Say) -> Path:
    """Return a server's data directory with that many versions; made once, below `directory`."""
    data = directory / f"registry-{versions}"
    stamp = data.with_suffix(".done")
    if stamp.exists() and stamp.read_text() == _SHAPE:
        return data
    stamp.unlink(missing_ok=True)
    shutil.rmtree(data, ignore_errors=True)
    began = time.monotonic()
    with running_server(data, auth="keys") as server:
        asyncio.run(_first_version(server, directory))
        server.terminate()
    _write(data, versions, lambda text: say(f"{text} ({time.monotonic() - began:.0f} s)"))
    stamp.write_text(_SHAPE)
    return data


async def _first_version(server: ServerProcess, directory: Path) -> None:
    """Have the server make what rows refer to: the entity, in both databases."""
    file = directory / "first.bin"
    file.write_bytes(b"first")
    async with lading.Client(server.target, api_key=server.api_key) as client:
        await client.put(file, "project-first/first", type="dataset")


def _write(data: Path, versions: int, say: Say) -> None:
    rows = _Rows(versions)
    with closing(_unsafe(data / "registry.db")) as registry:
        head = "SELECT id, event_count, chain_hash FROM entities WHERE event_count > 0"
        rows.entity_id, rows.sequence, rows.chain_hash = registry.execute(head).fetchone()
        indexes = _drop_indexes(registry)
        tables: Sequence[tuple[str, Callable[[], Iterable[Sequence[Any]]]]] = (
            ("projects", rows.projects),
            ("collections", rows.collections),
            ("runs", rows.runs),
            ("versions", rows.versions),
            ("version_tags", rows.tags),
            ("version_fields", rows.fields),
            ("run_outputs", rows.outputs),
            ("aliases", rows.aliases),
            ("requests", rows.requests),
            ("events", rows.events),
        )
        for table, make in tables:
            say(f"{versions:,} versions: {table}")
            _insert(registry, table, make())
        registry.execute("UPDATE revisions SET revision = (SELECT max(revision) FROM events)")
        chained = (rows.sequence, rows.chain_hash, rows.entity_id)
        registry.execute("UPDATE entities SET event_count = ?, chain_hash = ? WHERE id = ?", chained)
        say(f"{versions:,} versions: indexes")
        for index in indexes:
            registry.execute(index)
        registry.commit()
    with closing(_unsafe(data / "ingest.db")) as ingest:
        say(f"{versions:,} versions: pins")
        rows.entity_id = ingest.execute("SELECT id FROM entities").fetchone()[0]
        _insert(ingest, "pins", rows.pins())
        ingest.commit()
    say(f"{versions:,} versions: to disk")
    os.sync()


def _unsafe(path: Path) -> sqlite3.Connection:
    """Open a database that nobody else has, to be thrown away if this process dies."""
    connection = sqlite3.connect(path)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -524288", "temp_store = FILE"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _drop_indexes(connection: sqlite3.Connection) -> list[str]:
    """Drop what can be made again faster than kept, and return how."""
    found = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in found:
        connection.execute(f'DROP INDEX "{name}"')
    return [sql for _, sql in found]


def _insert(connection: sqlite3.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows with all columns of a table, in their order."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


class _Rows:
    """The rows of each table, in the order of its columns. Numbers of rows begin where nothing of the server's is."""

    def __init__(self, versions: int) -> None:
        self.entity_id = 0
        # The entity's last event.
        self.sequence = 0
        self.chain_hash = CHAIN_START
        self._places = places(versions)
        self._now_ms = int(time.time() * 1000)
        self._count = versions
        self._uids = sorted(uuid7().bytes for _ in range(versions))
        self._first = 1000
        self._projects = {name: self._first + index for index, name in enumerate(dict.fromkeys(self._project_names()))}

    def _project_names(self) -> Iterator[str]:
        return (place.project for place in self._places)

    def _versions(self) -> Iterator[tuple[int, int, Place, int]]:
        """Yield index, row of the collection, collection and number of each version."""
        index = 0
        for row, place in enumerate(self._places, self._first):
            for number in range(place.size):
                yield index, row, place, number
                index += 1

    def projects(self) -> Iterator[Sequence[Any]]:
        return ((row, self.entity_id, name, self._now_ms, "live", None) for name, row in self._projects.items())

    def collections(self) -> Iterator[Sequence[Any]]:
        for row, place in enumerate(self._places, self._first):
            project = self._projects[place.project]
            yield (
                *(row, self.entity_id, project, place.name, "sequence", "dataset", "", place.size, place.size),
                *(self._now_ms, self._now_ms, "admin", "live", None, None, None),
            )

    def runs(self) -> Iterator[Sequence[Any]]:
        for index in range(max(1, self._count // _VERSIONS_PER_RUN)):
            yield (
                *(self._first + index, self.entity_id, self._first, f"run-{index}", f"run {index}", "train"),
                *("finished", '{"lr":0.1}', "{}", self._now_ms, self._now_ms, self._now_ms, "admin"),
            )

    def versions(self) -> Iterator[Sequence[Any]]:
        rng = random.Random(SEED)
        for index, collection, _, number in self._versions():
            metadata = f'{{"accuracy":{index % 1000 / 1000},"rows":{index},"split":"train"}}'
            yield (
                *(self._first + index, self._uids[index], self.entity_id, collection, number, "live"),
                *(rng.randbytes(32), 3, 0, rng.randrange(1 << 30), "# A card", metadata, self._now_ms, "admin"),
                *(self._run_of(index), None, None, None, None),
            )

    def tags(self) -> Iterator[Sequence[Any]]:
        return ((self._first + index, f"tag-{index % 100}", self.entity_id) for index in range(self._count))

    def fields(self) -> Iterator[Sequence[Any]]:
        for index in range(self._count):
            row = self._first + index
            yield row, "accuracy", self.entity_id, index % 1000 / 1000, None
            yield row, "rows", self.entity_id, float(index), None
            yield row, "split", self.entity_id, None, "train"

    def outputs(self) -> Iterator[Sequence[Any]]:
        return ((self._run_of(index), self._first + index, self._now_ms) for index in range(self._count))

    def aliases(self) -> Iterator[Sequence[Any]]:
        first = self._first
        for row, place in enumerate(self._places, self._first):
            yield row, "best", self.entity_id, first
            yield row, "latest", self.entity_id, first + place.size - 1
            first += place.size

    def requests(self) -> Iterator[Sequence[Any]]:
        rng = random.Random(SEED)
        count = min(self._count, _PER_SECOND * _REMEMBERED_SECONDS)
        for index in range(count):
            result = json.dumps({"uid": self._uids[index].hex(), "created": True, "aliases": ["latest"], "tags": []})
            yield self.entity_id, f"{rng.getrandbits(128):032x}", rng.randbytes(32), result, self._now_ms

    def events(self) -> Iterator[Sequence[Any]]:
        revision = self._first
        for index, _, place, number in self._versions():
            committed = f'{{"number":{number},"file_count":3,"reference_count":0,"tags":["tag-{index % 100}"]}}'
            yield self._event(revision, "version.committed", place, self._uids[index], "", committed)
            for move in range(1, EVENTS_PER_VERSION):
                alias = "latest" if move == 1 else "best"
                before = f'{{"alias":"{alias}","number":{number - 1}}}' if number else ""
                after = f'{{"alias":"{alias}","number":{number}}}'
                yield self._event(revision + move, "alias.set", place, self._uids[index], before, after)
            revision += EVENTS_PER_VERSION

    def _event(self, revision: int, kind: str, place: Place, uid: bytes, before: str, after: str) -> Sequence[Any]:
        self.sequence += 1
        event = ChainedEvent(
            *(self.sequence, revision, self._now_ms, "admin", kind, place.project, place.name, uid.hex(), ""),
            *(before, after, "127.0.0.1"),
        )
        self.chain_hash = chain_hash(self.chain_hash, event)
        whose = (place.project, place.name, uid, "")
        chained = (event.origin, event.sequence, self.chain_hash)
        return (revision, self.entity_id, self._now_ms, "admin", kind, *whose, before, after, *chained)

    def pins(self) -> Iterator[Sequence[Any]]:
        rng = random.Random(SEED)
        return ((self.entity_id, uid, rng.randbytes(32), "held", self._now_ms, None) for uid in self._uids)

    def _run_of(self, index: int) -> int:
        return self._first + index // _VERSIONS_PER_RUN
