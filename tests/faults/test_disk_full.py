"""A disk that is full: writes are refused and say what to do, reads go on, and nothing has to be started again."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import lading
from lading_server.common.access import Access
from lading_server.common.allowances import keyless_allowances
from lading_server.common.database import Database
from lading_server.common.drain import Drain
from lading_server.common.errors import DiskLow
from lading_server.common.ids import uuid7
from lading_server.common.metrics import Metrics
from lading_server.common.serving import running
from lading_server.common.settings import Settings
from lading_server.ingest.component import IngestComponent, run_ingest
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.index.schema import PackState, packs
from lading_server.ingest.index.store import ContentIndex
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.reader import verify_pack
from lading_server.ingest.packs.storage import PackExists
from lading_server.registry.component import open_registry
from lading_server.registry.store.store import RegistryStore
from tests.support.index import DATABASES, FakeClock, database_url
from tests.support.registry import until

SEED = 20261125
# What refuses when there is no page left: SQLite itself.
_NO_MORE_PAGES = 1
_MANY_PAGES = 1 << 30


class SmallDisk:
    """Stands between the pack files and the system: a write is cut short where the space ends, as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
        self.left_bytes = 1 << 40
        self._error = error
        self._writev = os.writev
        monkeypatch.setattr(os, "writev", self.writev)

    def writev(self, descriptor: int, buffers: Sequence[Any]) -> int:
        if not self.left_bytes:
            raise OSError(self._error, os.strerror(self._error))
        fitting = b"".join(buffers)[: self.left_bytes]
        self.left_bytes -= len(fitting)
        return self._writev(descriptor, [fitting])


@dataclass
class Served:
    """A server of this process, and what it stands on."""

    target: str
    ingest: Ingest
    registry: RegistryStore


@asynccontextmanager
async def served(data: Path, monkeypatch: pytest.MonkeyPatch, min_free_bytes: int = 0) -> AsyncIterator[Served]:
    settings = Settings(data=str(data), auth="none", min_free_bytes=min_free_bytes, pack_target_bytes=16 << 20)
    stores: list[RegistryStore] = []
    opening = RegistryStore.open

    async def keeping(url: str) -> RegistryStore:
        stores.append(await opening(url))
        return stores[-1]

    monkeypatch.setattr(RegistryStore, "open", keeping)
    drain, metrics = Drain(), Metrics()
    storage = LocalPackStorage(data)
    index = await ContentIndex.open(f"sqlite:///{data / 'ingest.db'}")
    try:
        async with run_ingest(settings, index, storage, metrics) as ingest:
            content = IngestComponent(ingest, drain, metrics, serves_pins=False)
            access = Access(None, "", keyless=keyless_allowances(settings))
            async with (
                open_registry(settings, content.pins) as registry,
                running(settings, ("127.0.0.1", 0), [content, registry], drain, metrics, access) as server,
            ):
                yield Served(f"127.0.0.1:{server.port}", ingest, stores[0])
    finally:
        await index.close()
        storage.close()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], Path]:
    """Make a directory with a file of random bytes."""
    print(f"seed {SEED}")
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    rng = random.Random(SEED)

    def make(name: str, size_bytes: int) -> Path:
        root = tmp_path / "files" / name
        root.mkdir(parents=True)
        (root / "file").write_bytes(rng.randbytes(size_bytes))
        return root

    return make


async def reads_back(client: lading.Client, name: str, root: Path, where: Path) -> bool:
    version = await client.version(name)
    got = await version.download(where)
    return (got / "file").read_bytes() == (root / "file").read_bytes()


async def limit_pages(database: Database, count: int) -> None:
    async with database.write() as connection:
        await connection.exec_driver_sql(f"PRAGMA max_page_count = {count}")


async def open_packs(served_: Served) -> set[bytes]:
    async with served_.ingest.index.database.read() as connection:
        rows = await connection.scalars(sa.select(packs.c.id).where(packs.c.state == PackState.OPEN.value))
        return set(rows.all())


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_an_append_without_space_is_refused_and_the_next_one_with_space_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Callable[[str, int], Path], error: int
) -> None:
    disk = SmallDisk(monkeypatch, error)
    first, second = files("first", 5 << 20), files("second", 12 << 20)
    async with served(tmp_path / "data", monkeypatch) as server:  # noqa: SIM117 - the client goes first
        async with lading.Client(server.target, entity="acme", retry=5.0) as client:
            await client.put(first, "a", type="dataset")
            disk.left_bytes = 3_000_001
            with pytest.raises(lading.ResourceExhausted, match="free some space"):
                await client.put(second, "b", type="dataset")
            assert server.ingest.committer.failure is None
            assert await reads_back(client, "a", first, tmp_path / "to-1")
            with pytest.raises(lading.ResourceExhausted):
                await client.put(second, "b", type="dataset")

            async def waits() -> bool:
                return bool(server.ingest.pool._torn)

            await until(waits)
            torn = {pack.bytes for pack in server.ingest.pool._torn}
            disk.left_bytes = 1 << 40
            await client.put(second, "b", type="dataset")
            assert await reads_back(client, "b", second, tmp_path / "to-2")

            async def is_sealed() -> bool:
                return not torn & await open_packs(server)

            # What was cut short is cut back and sealed, by the server that runs.
            await until(is_sealed)
    storage = LocalPackStorage(tmp_path / "data")
    index = await ContentIndex.open(f"sqlite:///{tmp_path / 'data/ingest.db'}")
    try:
        assert await index.packs.open_packs() == []
        async with index.database.read() as connection:
            known = set((await connection.scalars(sa.select(packs.c.id))).all())
        for pack in storage.packs():
            if pack.bytes in known:
                verify_pack(storage, pack)
    finally:
        await index.close()
        storage.close()


@pytest.mark.parametrize("half", ["ingest", "registry"])
async def test_a_database_without_space_refuses_writes_and_takes_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Callable[[str, int], Path], half: str
) -> None:
    first, second = files("first", 1000), files("second", 1000)
    big = "x" * 200_000
    async with (
        served(tmp_path / "data", monkeypatch) as server,
        lading.Client(server.target, entity="acme", retry=5.0) as client,
    ):
        await client.put(first, "a", type="dataset")
        database = server.ingest.index.database if half == "ingest" else server.registry.database
        await limit_pages(database, _NO_MORE_PAGES)
        # Thousands of rows, and a long card: neither fits into what is left of the last pages.
        many: dict[str, Path] = {}
        for number in range(3000):
            path = second / f"{number:04}"
            path.write_bytes(b"%d" % number)
            many[path.name] = path
        with pytest.raises(lading.ResourceExhausted, match="has no space left"):
            await client.put(many, "b", type="dataset", description=big)
        assert server.ingest.committer.failure is None
        assert await reads_back(client, "a", first, tmp_path / "to")
        await limit_pages(database, _MANY_PAGES)
        version = (await client.put(many, "b", type="dataset", description=big)).version
        assert version.file_count == len(many)


async def test_writes_are_refused_early_and_reads_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Callable[[str, int], Path]
) -> None:
    first, second = files("first", 1 << 20), files("second", 1 << 20)
    async with (
        served(tmp_path / "data", monkeypatch, min_free_bytes=1 << 20) as server,
        lading.Client(server.target, entity="acme", retry=5.0) as client,
    ):
        await client.put(first, "a", type="dataset")
        with monkeypatch.context() as nearly_full:
            nearly_full.setattr(server.ingest.storage, "free_bytes", lambda: 1 << 20)
            with pytest.raises(lading.ResourceExhausted, match="in reserve"):
                await client.put(second, "b", type="dataset")
            assert await reads_back(client, "a", first, tmp_path / "to")
        await client.put(second, "b", type="dataset")


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_full_database_is_told_from_one_that_failed(tmp_path: Path, kind: str) -> None:
    async with database_url(kind, tmp_path) as url:
        index = await ContentIndex.open(url, clock=FakeClock())
        try:
            if kind == "sqlite":
                await limit_pages(index.database, _NO_MORE_PAGES)
            else:
                async with index.database.write() as connection:
                    await connection.exec_driver_sql(
                        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
                        "$$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$"
                    )
                    await connection.exec_driver_sql(
                        "CREATE TRIGGER full_disk BEFORE INSERT ON maintenance EXECUTE FUNCTION full_disk()"
                    )
            with pytest.raises(DiskLow, match="free some space"):
                await index.notes.write("note", {"text": "x" * 1_000_000})
            if kind == "sqlite":
                await limit_pages(index.database, _MANY_PAGES)
            else:
                async with index.database.write() as connection:
                    await connection.exec_driver_sql("DROP TRIGGER full_disk ON maintenance")
            await index.notes.write("note", {"text": "fits"})
            assert await index.notes.read("note") == {"text": "fits"}
        finally:
            await index.close()


def test_a_pack_is_deleted_also_where_there_is_no_space_for_its_tombstone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    pack = uuid7()
    file = storage.create(pack)
    file.append([b"content"])
    file.sync()
    file.close()

    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(Path, "touch", no_space)
        storage.delete(pack)
    assert list(storage.packs()) == []
    (left,) = [path for path in (tmp_path / "store/packs").glob("*/*") if path.is_file()]
    assert (left.suffix, left.stat().st_size) == (".deleted", 0)
    with pytest.raises(PackExists):
        storage.create(pack)
    storage.close()
