"""A crash at each step of a purge: the store is opened again, the deletion finished, and nothing needed is touched."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from lading_server.common.errors import StorageFailed
from lading_server.ingest.index.schema import chunks, packs
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.memory import MemoryPackStorage
from tests.support.collection import TRASH_SECONDS, Files, Store, opened_store
from tests.support.index import DATABASES, FakeClock, count, database_url

KEPT: Files = {"kept": (b"kept a " * 40, b"kept b " * 40)}
GONE: Files = {"gone": (b"gone a " * 40, b"gone b " * 40)}


class Crash(Exception):
    """The process ends here."""


class CrashingStorage(MemoryPackStorage):
    """Ends the process before or after a pack is deleted, once."""

    def __init__(self) -> None:
        super().__init__()
        self.crash_before = self.crash_after = False

    def delete(self, pack: UUID) -> None:
        if self.crash_before:
            raise Crash
        super().delete(pack)
        if self.crash_after:
            raise Crash

    def mend(self) -> None:
        self.crash_before = self.crash_after = False


async def crash_in_purge(store: Store, step: str) -> None:
    """Put something in the trash, let its time pass, and crash while it is purged."""

    async def crash(*_: object) -> None:
        raise Crash

    trash = store.collector._trash
    storage = store.storage
    assert isinstance(storage, CrashingStorage)
    if step == "before the state":
        trash.begin_deletion = crash  # type: ignore[method-assign, assignment]
    elif step == "before the file":
        storage.crash_before = True
    elif step == "after the file":
        storage.crash_after = True
    elif step == "among the rows":
        trash._forget_chunks = crash  # type: ignore[method-assign, assignment]
    with pytest.raises(Crash):
        await store.collector.collect("acme")


@pytest.mark.parametrize("step", ["before the state", "before the file", "after the file", "among the rows"])
@pytest.mark.parametrize("kind", DATABASES)
async def test_a_deletion_that_a_crash_cut_short_is_finished(tmp_path: Path, kind: str, step: str) -> None:
    clock, storage = FakeClock(), CrashingStorage()
    async with database_url(kind, tmp_path) as url:
        async with opened_store(url, storage, clock) as store:
            tree, _ = await store.pinned(KEPT)
            gone = await store.put(GONE)
            await store.collector.collect("acme")
            clock.seconds += TRASH_SECONDS
            await crash_in_purge(store, step)
        storage.mend()
        async with opened_store(url, storage, clock) as store:
            begun = step != "before the state"
            assert await store.collector.finish_deletions() == (1 if begun else 0)
            assert await store.collector.finish_deletions() == 0
            report = await store.collector.collect("acme")
            assert report.packs_deleted == (1 if begun else 2)
            assert not await store.collector.revive("acme", gone)
            assert {pack.bytes for pack in storage.packs()} == set(await store.states(packs))
            assert await count(store.index, chunks) == 3
            await store.check(tree, KEPT)
            await store.check_usage()


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_rehearsal_that_a_crash_cut_short_leaves_nothing(tmp_path: Path, kind: str) -> None:
    clock, storage = FakeClock(), MemoryPackStorage()
    async with database_url(kind, tmp_path) as url:
        async with opened_store(url, storage, clock) as store:
            tree, _ = await store.pinned(KEPT)
            async with store.index.database.write() as connection:
                await connection.exec_driver_sql(
                    "INSERT INTO doomed (entity_id, digest, kind) SELECT entity_id, digest, 'tree' FROM trees"
                )
        async with opened_store(url, storage, clock) as store:
            assert (await store.collector.collect("acme")).blobs_condemned == 0
            await store.check(tree, KEPT)


@pytest.mark.parametrize("kind", DATABASES)
async def test_a_file_system_that_refuses_a_deletion_is_told_and_asked_again(tmp_path: Path, kind: str) -> None:
    clock = FakeClock()
    storage = LocalPackStorage(tmp_path / "data")
    deletions = 0
    delete = storage.delete

    def refuse(pack: UUID) -> None:
        nonlocal deletions
        deletions += 1
        raise StorageFailed(f"could not delete pack {pack}")

    try:
        async with database_url(kind, tmp_path) as url, opened_store(url, storage, clock, trash_seconds=0) as store:
            await store.put(GONE)
            storage.delete = refuse  # type: ignore[method-assign]
            with pytest.raises(StorageFailed):
                await store.collector.collect("acme")
            storage.delete = delete  # type: ignore[method-assign]
            report = await store.collector.collect("acme")
            assert (deletions, report.packs_deleted) == (1, 1)
            assert list(storage.packs()) == []
            assert await count(store.index, packs) == 0
            # The ids are used up, and nothing else is left.
            assert len(list((tmp_path / "data" / "packs").glob("*/*.deleted"))) == 2
    finally:
        storage.close()
