"""Recovery where the disk refuses: a bad place costs what is there, and a disk that is away costs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_server.common.errors import StorageFailed
from lading_server.ingest.domain.losses import Losses
from lading_server.ingest.domain.startup import recover_packs
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import ChunkRow, IndexBatch
from lading_server.ingest.index.schema import PackState, packs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.storage import PackFile, PackStorage
from tests.support.index import FakeClock, opened_index
from tests.unit.lading_server.ingest.packs.samples import open_pack, pack_of, records

CONTENT = b"in a pack that is smaller than a block"


class Refusing:
    """A storage that refuses to read some packs, or to write any."""

    def __init__(self, inner: PackStorage, *unreadable: UUID, is_read_only: bool = False) -> None:
        self._inner = inner
        self._unreadable = unreadable
        self._is_read_only = is_read_only

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        if pack in self._unreadable:
            raise StorageFailed("could not read: Input/output error (EIO)")
        return self._inner.read(pack, offset, length)

    def recover(self, pack: UUID, durable_bytes: int) -> PackFile:
        if self._is_read_only:
            raise StorageFailed("could not open: Read-only file system (EROFS)")
        return self._inner.recover(pack, durable_bytes)

    def size(self, pack: UUID) -> int:
        return self._inner.size(pack)

    def packs(self) -> AsyncIterator[UUID]:
        return self._inner.packs()  # type: ignore[return-value]


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[ContentIndex]:
    async with opened_index("sqlite", tmp_path, FakeClock()) as opened:
        yield opened


async def left_open(index: ContentIndex, storage: PackStorage) -> UUID:
    """Store a chunk in a pack that is not sealed, with its rows; return the pack."""
    writer, locations = pack_of(storage, [CONTENT])
    await index.packs.add(writer.pack, 1, "acme", 1)
    rows = [ChunkRow(records([CONTENT])[0].digest, RecordType.CHUNK, locations[0])]
    (refused,) = await index.recorder.record([IndexBatch("acme", chunks=rows)], {writer.pack: writer.length_bytes})
    assert refused is None
    return writer.pack


async def recover(index: ContentIndex, storage: Refusing) -> None:
    workers = Workers(1)
    losses = Losses(index, storage, workers)  # type: ignore[arg-type]
    try:
        await recover_packs(index, storage, workers, losses)  # type: ignore[arg-type]
    finally:
        await losses.close()
        workers.close()


async def state_of(index: ContentIndex, pack: UUID) -> str:
    async with index.database.read() as connection:
        state = await connection.scalar(sa.select(packs.c.state).where(packs.c.id == pack.bytes))
    assert state is not None
    return str(state)


async def is_located(index: ContentIndex) -> bool:
    return bool(await index.chunks.locate("acme", [records([CONTENT])[0].digest]))


async def test_a_pack_that_the_disk_refuses_is_lost_when_another_can_be_read(index: ContentIndex) -> None:
    storage = MemoryPackStorage()
    pack, _other = await left_open(index, storage), open_pack(storage)
    size_bytes = storage.size(pack)
    await recover(index, Refusing(storage, pack))
    assert await state_of(index, pack) == PackState.DAMAGED
    assert not await is_located(index)
    # What the disk may give another day was not cut.
    assert storage.size(pack) == size_bytes


@pytest.mark.parametrize("has_another", [False, True])
async def test_a_disk_that_answers_for_no_pack_is_away_and_nothing_is_lost(
    index: ContentIndex, *, has_another: bool
) -> None:
    storage = MemoryPackStorage()
    pack = await left_open(index, storage)
    if has_another:
        open_pack(storage)
    with pytest.raises(StorageFailed, match="EIO"):
        await recover(index, Refusing(storage, *storage.packs()))
    assert await state_of(index, pack) == PackState.OPEN
    assert await is_located(index)


async def test_a_disk_that_refuses_to_write_loses_nothing(index: ContentIndex) -> None:
    storage = MemoryPackStorage()
    pack, _other = await left_open(index, storage), open_pack(storage)
    with pytest.raises(StorageFailed, match="EROFS"):
        await recover(index, Refusing(storage, is_read_only=True))
    assert await state_of(index, pack) == PackState.OPEN
    assert await is_located(index)
