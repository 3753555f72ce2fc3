"""An index to test with, on either database, with a clock that stands still until it is told to go."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import sqlalchemy as sa

from lading_server.ingest.index.rows import ChunkRow, IndexBatch
from lading_server.ingest.index.schema import packs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.writer import Location
from tests.support.postgres import create_database, drop_database

DATABASES = ("sqlite", "postgresql")
CHUNK, TREE_PAGE = 2, 4


@dataclass
class FakeClock:
    """Seconds since 1970, as far as the index knows."""

    seconds: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def database_url(kind: str, directory: Path) -> AsyncIterator[str]:
    """Give the URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'index.db'}"
        return
    url = await create_database()
    try:
        yield url
    finally:
        await drop_database(url)


@asynccontextmanager
async def opened_index(kind: str, directory: Path, clock: FakeClock) -> AsyncIterator[ContentIndex]:
    """Give an index over an empty database."""
    async with database_url(kind, directory) as url:
        index = await ContentIndex.open(url, clock=clock)
        try:
            yield index
        finally:
            await index.close()


def new_digests(count: int) -> list[bytes]:
    """Return names of content that nobody has."""
    return [os.urandom(32) for _ in range(count)]


def chunk_rows(pack: UUID, digests: Iterable[bytes], *, kind: int = CHUNK, first: int = 64) -> list[ChunkRow]:
    """Return rows for chunks of 100 bytes that lie one after the other."""
    return [ChunkRow(digest, kind, Location(pack, first + 168 * n, 104, 100)) for n, digest in enumerate(digests)]


async def new_pack(index: ContentIndex, entity: str = "acme") -> UUID:
    """Add an open pack."""
    pack = uuid4()
    await index.packs.add(pack, 1, entity, 1)
    return pack


async def store_chunks(
    index: ContentIndex, digests: Sequence[bytes], *, entity: str = "acme", session: bytes | None = None
) -> UUID:
    """Record chunks in a new pack."""
    pack = await new_pack(index, entity)
    batch = IndexBatch(entity, session, chunks=chunk_rows(pack, digests))
    assert await index.recorder.record([batch], {pack: 64 + 168 * len(digests)}) == [None]
    return pack


async def generation(index: ContentIndex, pack: UUID) -> int:
    """Return a pack's generation."""
    async with index.database.read() as connection:
        return int(await connection.scalar(sa.select(packs.c.generation).where(packs.c.id == pack.bytes)) or 0)


async def set_state(index: ContentIndex, table: sa.Table, key: bytes, state: str) -> None:
    """Do what the collector will: change the state of a pack, blob or tree."""
    column = table.c.id if table is packs else table.c.digest
    async with index.database.write() as connection:
        await connection.execute(sa.update(table).where(column == key).values(state=state))


async def count(index: ContentIndex, table: sa.Table) -> int:
    """Return how many rows a table has."""
    async with index.database.read() as connection:
        return int(await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
