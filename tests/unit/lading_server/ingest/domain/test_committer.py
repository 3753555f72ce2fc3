"""Group commit: nothing is acknowledged before it is durable, and a failed sync is never retried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast
from uuid import UUID, uuid4

import pytest

from lading_server.common.database import DatabaseUnavailable
from lading_server.common.errors import DatabaseAway, StorageFailed
from lading_server.ingest.domain.committer import GroupCommitter
from lading_server.ingest.domain.workers import Workers
from lading_server.ingest.index.rows import IndexBatch
from lading_server.ingest.packs.writer import PackWriter


class Journal:
    """Notes syncs and transactions in their order; can be told to fail."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.rejections: list[Exception | None] = []
        self.record_error: Exception | None = None

    async def record(self, batches: Sequence[IndexBatch], durable: dict[UUID, int]) -> list[Exception | None]:
        if self.record_error is not None:
            raise self.record_error
        self.events.append(f"record {len(batches)}")
        return self.rejections or [None] * len(batches)


class Pack:
    """The part of a PackWriter that the committer uses."""

    def __init__(self, journal: Journal, error: Exception | None = None) -> None:
        self.pack = uuid4()
        self._journal = journal
        self._error = error

    def sync(self) -> int:
        self._journal.events.append("sync")
        if self._error is not None:
            raise self._error
        return 1


def writer(journal: Journal, error: Exception | None = None) -> PackWriter:
    return cast(PackWriter, Pack(journal, error))


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    pool = Workers(2)
    yield pool
    pool.close()


def committer(journal: Journal, workers: Workers) -> GroupCommitter:
    # An hour: no test waits for a group to grow old, so a missing flush would hang and not pass.
    return GroupCommitter(journal, workers, group_bytes=1000, linger_seconds=3600)


async def test_a_pack_is_synced_before_its_rows_are_written(workers: Workers) -> None:
    journal = Journal()
    group = committer(journal, workers)
    await group.commit(writer(journal), IndexBatch("acme"), 10)
    assert journal.events == ["sync", "record 1"]
    await group.close()


async def test_units_wait_for_each_other_until_the_group_is_large_enough(workers: Workers) -> None:
    journal = Journal()
    group = committer(journal, workers)
    pack = writer(journal)
    futures = [group.submit(pack, IndexBatch("acme"), 300) for _ in range(4)]
    await asyncio.gather(*futures)
    assert journal.events == ["sync", "record 4"]
    await group.close()


async def test_a_rejected_unit_does_not_touch_the_others(workers: Workers) -> None:
    journal = Journal()
    journal.rejections = [None, ValueError("not this one"), None]
    group = committer(journal, workers)
    futures = [group.submit(None, IndexBatch("acme"), 1) for _ in range(3)]
    group.flush()
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]
    await group.close()


async def test_after_a_failed_sync_nothing_is_written_any_more(workers: Workers) -> None:
    journal = Journal()
    group = committer(journal, workers)
    with pytest.raises(StorageFailed, match="EIO"):
        await group.commit(writer(journal, StorageFailed("EIO")), IndexBatch("acme"), 1)
    with pytest.raises(StorageFailed, match="EIO"):
        group.submit(writer(journal), IndexBatch("acme"), 1)
    assert journal.events == ["sync"]
    await group.close()


async def test_a_failed_transaction_is_told_to_every_unit_of_its_group_only(workers: Workers) -> None:
    journal = Journal()
    journal.record_error = RuntimeError("INSERT INTO secrets")
    group = committer(journal, workers)
    futures = [group.submit(None, IndexBatch("acme"), 1) for _ in range(2)]
    group.flush()
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(outcome, StorageFailed) for outcome in outcomes)
    # What the database says is for the log alone.
    assert not any("secrets" in str(outcome) for outcome in outcomes)
    journal.record_error = None
    await group.commit(None, IndexBatch("acme"), 1)
    await group.close()


async def test_a_database_that_is_away_is_no_failure_of_the_disk_and_its_words_are_not_told(workers: Workers) -> None:
    journal = Journal()
    journal.record_error = DatabaseUnavailable("database postgresql://db.internal cannot be used")
    group = committer(journal, workers)
    pack = writer(journal)
    futures = [group.submit(pack, IndexBatch("acme"), 1) for _ in range(2)]
    group.flush()
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DatabaseAway] * 2
    assert not any("db.internal" in str(outcome) for outcome in outcomes)
    assert group.failure is None
    journal.record_error = None
    await group.commit(pack, IndexBatch("acme"), 1)
    assert journal.events == ["sync", "sync", "record 1"]
    await group.close()


async def test_closing_commits_what_waits(workers: Workers) -> None:
    journal = Journal()
    group = committer(journal, workers)
    future = group.submit(writer(journal), IndexBatch("acme"), 1)
    await group.close()
    assert future.done()
    assert future.exception() is None
    with pytest.raises(StorageFailed):
        group.submit(None, IndexBatch("acme"), 1)


async def test_a_stream_that_was_cancelled_does_not_stop_the_group(workers: Workers) -> None:
    journal = Journal()
    group = committer(journal, workers)
    gone, waiting = group.submit(None, IndexBatch("acme"), 1), group.submit(None, IndexBatch("acme"), 1)
    gone.cancel()
    group.flush()
    await waiting
    await group.close()
