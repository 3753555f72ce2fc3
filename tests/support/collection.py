"""Ingest with a collector and a clock that stands still, and what tests of collections ask of it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.digest import blake3_digest
from lading_format.tree import FileEntry
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings
from lading_server.ingest.component import run_ingest
from lading_server.ingest.domain.collector import WINDOW_DIGESTS, Collector
from lading_server.ingest.domain.content import BlobRange
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.schema import blobs, packs, trees
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.index.usage import count_anew
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.storage import PackStorage
from tests.support.content import put_tree
from tests.support.index import FakeClock, database_url

SESSION_SECONDS = 3600
TRASH_SECONDS = 48 * 3600

Files = Mapping[str, Sequence[bytes]]


@dataclass
class Store:
    """One opening of a store."""

    ingest: Ingest
    collector: Collector
    clock: FakeClock
    storage: PackStorage

    @property
    def index(self) -> ContentIndex:
        return self.ingest.index

    async def put(self, files: Files, entity: str = "acme") -> bytes:
        """Store a tree in packs of its own, and let every lease lapse."""
        tree = await put_tree(self.ingest, files, entity)
        await self.lapse()
        return tree

    async def lapse(self) -> None:
        """Seal all packs, and let sessions and the grace of new trees pass."""
        await self.ingest.pool.close()
        self.clock.seconds += SESSION_SECONDS + 1

    async def pinned(self, files: Files, entity: str = "acme") -> tuple[bytes, bytes]:
        """Store a tree and pin it; return its digest and the version."""
        tree, version = await self.put(files, entity), os.urandom(16)
        await self.ingest.pins.acquire(entity, version, tree)
        return tree, version

    async def states(self, table: sa.Table) -> dict[bytes, str]:
        """Return the state of each pack, blob or tree."""
        key = table.c.id if table is packs else table.c.digest
        async with self.index.database.read() as connection:
            return {row[0]: row[1] for row in await connection.execute(sa.select(key, table.c.state))}

    async def all_states(self) -> list[set[str]]:
        """Return the states that there are of trees, blobs and packs."""
        return [set((await self.states(table)).values()) for table in (trees, blobs, packs)]

    async def check(self, tree: bytes, files: Files, entity: str = "acme") -> None:
        """Read a tree back, and hold every byte against what was stored."""
        entries, _ = await self.ingest.trees.list_page(
            entity, tree, prefix="", fold=False, page_size=10_000, page_token="", max_bytes=1 << 30
        )
        assert [entry.path for entry in entries] == sorted(files)
        for entry in entries:
            assert isinstance(entry, FileEntry)
            data = b""
            async for pieces in self.ingest.content.read(entity, [BlobRange(entry.digest, 0, 0)]):
                for piece in pieces:
                    assert piece.error is None
                    data += piece.data
            assert data == b"".join(files[entry.path])
            assert blake3_digest(data) == entry.digest

    async def check_usage(self) -> None:
        """Hold what is counted as stored against what is."""
        async with self.index.database.read() as connection:
            truth = await count_anew(connection, is_live())
            names = (await connection.execute(sa.text("SELECT id, name FROM entities"))).all()
        for number, name in names:
            assert await self.index.usage.stored_bytes(name) == truth.get(number, 0)

    async def snapshot(self) -> dict[str, list[Any]]:
        """Return every row that a collection could change."""
        async with self.index.database.read() as connection:
            return {
                name: sorted(map(tuple, (await connection.execute(sa.text(f"SELECT * FROM {name}"))).all()), key=repr)
                for name in (
                    "packs",
                    "chunks",
                    "blobs",
                    "recipe_parts",
                    "trees",
                    "tree_pages",
                    "pins",
                    "usage",
                    "doomed",
                )
            }


@asynccontextmanager
async def opened_store(
    url: str,
    storage: PackStorage,
    clock: FakeClock,
    *,
    trash_seconds: float = TRASH_SECONDS,
    window_digests: int = WINDOW_DIGESTS,
    min_free_bytes: int = 0,
) -> AsyncIterator[Store]:
    """Open a store over a database and packs that stay the caller's."""
    settings = Settings(min_free_bytes=min_free_bytes, session_ttl_seconds=SESSION_SECONDS, trash_seconds=trash_seconds)
    index = await ContentIndex.open(url, clock=clock)
    try:
        async with run_ingest(settings, index, storage, Metrics()) as ingest:
            collector = Collector(
                index, storage, ingest.workers, ingest.pool, settings, clock=clock, window_digests=window_digests
            )
            yield Store(ingest, collector, clock, storage)
    finally:
        await index.close()


@asynccontextmanager
async def new_store(kind: str, directory: Path, **options: Any) -> AsyncIterator[Store]:
    """Open a store over an empty database and packs in memory."""
    async with (
        database_url(kind, directory) as url,
        opened_store(url, MemoryPackStorage(), FakeClock(), **options) as store,
    ):
        yield store


def before(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, action: Callable[[], Awaitable[object]]) -> None:
    """Let something else happen before the first call of a method: another caller, at the worst moment."""
    method = getattr(owner, name)

    async def interrupted(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, method)
        await action()
        return await method(*args, **kwargs)

    monkeypatch.setattr(owner, name, interrupted)
