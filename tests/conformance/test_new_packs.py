"""A pack in the making: whatever cuts it short, nothing is left of it that nobody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from lading_server.common.errors import DiskLow, DomainError, StorageFailed
from lading_server.common.metrics import Metrics
from lading_server.common.settings import Settings
from lading_server.ingest.component import run_ingest
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.schema import packs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.storage import PackFile
from lading_server.ingest.rebuild.report import Report
from lading_server.ingest.rebuild.survey import mark_lost
from tests.support.content import put_chunks
from tests.support.index import DATABASES, database_url


class Killed(BaseException):
    """The process ended here."""


class Interrupted(LocalPackStorage):
    """A directory in which making the next pack is cut short, before its file or after."""

    def __init__(self, root: Path, error: BaseException | None = None, *, makes_file: bool = False) -> None:
        super().__init__(root)
        self._error = error
        self._makes_file = makes_file

    def create(self, pack: UUID) -> PackFile:
        error, self._error = self._error, None
        if error is not None:
            if self._makes_file:
                super().create(pack).close()
            raise error
        return super().create(pack)


@pytest.fixture(params=DATABASES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    async with database_url(request.param, tmp_path) as opened:
        yield opened


@asynccontextmanager
async def opened(url: str, storage: LocalPackStorage) -> AsyncIterator[Ingest]:
    index = await ContentIndex.open(url)
    try:
        async with run_ingest(Settings(min_free_bytes=0), index, storage, Metrics()) as ingest:
            yield ingest
    finally:
        await index.close()
        storage.close()


async def known(ingest: Ingest) -> set[UUID]:
    async with ingest.index.database.read() as connection:
        return {UUID(bytes=pack) for pack in await connection.scalars(sa.select(packs.c.id))}


@pytest.mark.parametrize("makes_file", [False, True], ids=["before its file", "after its file"])
async def test_a_kill_while_a_pack_is_made_leaves_nothing(url: str, tmp_path: Path, makes_file: bool) -> None:
    async with opened(url, Interrupted(tmp_path / "data", Killed(), makes_file=makes_file)) as ingest:
        with pytest.raises(Killed):
            await put_chunks(ingest, [b"content"])
        assert len(await known(ingest)) == 1
        assert len(list(ingest.storage.packs())) == makes_file
    async with opened(url, LocalPackStorage(tmp_path / "data")) as ingest:
        assert await known(ingest) == set(ingest.storage.packs()) == set()
        await put_chunks(ingest, [b"content"])
        assert await known(ingest) == set(ingest.storage.packs())


@pytest.mark.parametrize("error", [DiskLow("full"), StorageFailed("bad disk")], ids=["full", "bad"])
async def test_a_pack_that_cannot_be_begun_leaves_nothing(url: str, tmp_path: Path, error: DomainError) -> None:
    async with opened(url, Interrupted(tmp_path / "data", error, makes_file=True)) as ingest:
        with pytest.raises(type(error), match=error.message):
            await put_chunks(ingest, [b"content"])
        assert await known(ingest) == set(ingest.storage.packs()) == set()
        await put_chunks(ingest, [b"content"])
        assert await known(ingest) == set(ingest.storage.packs()) != set()


async def test_a_backup_between_row_and_file_tells_of_no_loss(url: str, tmp_path: Path) -> None:
    async with opened(url, Interrupted(tmp_path / "data", Killed())) as ingest:
        with pytest.raises(Killed):
            await put_chunks(ingest, [b"content"])
        report = Report()
        await mark_lost(ingest.index, ingest.storage, report)
        assert report.lost_packs.count == 0
        assert await known(ingest) == set()
