"""Room that is reserved: never more than the quota, and never refused for what was not used."""

from __future__ import annotations

import asyncio
import random

import pytest

from lading_server.common.registry_errors import QuotaExceeded
from lading_server.ingest.domain.quotas import EntityQuota, Quotas, Room


class Index:
    """What is stored, as the index says."""

    def __init__(self, stored_bytes: int = 0) -> None:
        self.bytes = stored_bytes
        self.reads = 0
        self.flushed = asyncio.Event()

    async def stored_bytes(self, entity: str) -> int:
        self.reads += 1
        return self.bytes

    def flush(self) -> None:
        self.flushed.set()


def quota_of(index: Index, quota_bytes: int) -> EntityQuota:
    return Quotas(index, index.flush).of("acme", quota_bytes)


async def commit(index: Index, room: Room, size_bytes: int, error: Exception | None = None) -> None:
    """End a reservation as a commit does: the index first."""
    durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    room.settle_with(durable)
    if error is None:
        index.bytes += size_bytes
        durable.set_result(None)
    else:
        durable.set_exception(error)
    await asyncio.wait([durable])


async def test_without_a_quota_nothing_is_asked_or_counted() -> None:
    index = Index(1 << 40)
    room, refused = await quota_of(index, 0).reserve_some([1 << 50])
    await commit(index, room, 1)
    assert (refused, index.reads) == ({}, 0)


async def test_what_fits_is_taken_in_order_and_what_does_not_is_told() -> None:
    index = Index(50)
    room, refused = await quota_of(index, 100).reserve_some([30, 30, 20, 1])
    assert list(refused) == [1, 3]
    assert refused[1].metadata == {"limit_bytes": "100", "stored_bytes": "50"}
    room.give_back()


async def test_all_or_nothing_gives_back_what_it_took() -> None:
    quota = quota_of(Index(50), 100)
    with pytest.raises(QuotaExceeded):
        await quota.reserve([30, 30])
    (await quota.reserve([50])).give_back()


async def test_what_was_not_stored_makes_room() -> None:
    index = Index()
    quota = quota_of(index, 100)
    with pytest.raises(KeyError), await quota.reserve([100]):
        raise KeyError
    await commit(index, await quota.reserve([100]), 0, OSError())
    # Ended once: giving back again frees nothing.
    room = await quota.reserve([100])
    room.give_back()
    room.give_back()
    await commit(index, await quota.reserve([100]), 100)
    with pytest.raises(QuotaExceeded):
        await quota.reserve([1])


async def test_what_turned_out_to_be_there_makes_room() -> None:
    index = Index()
    quota = quota_of(index, 100)
    await commit(index, await quota.reserve([100]), 0)
    (await quota.reserve([100])).give_back()


async def test_what_others_removed_makes_room() -> None:
    index = Index(100)
    quota = quota_of(index, 100)
    with pytest.raises(QuotaExceeded):
        await quota.reserve([1])
    index.bytes = 0
    (await quota.reserve([100])).give_back()


async def test_nothing_is_refused_for_what_is_still_on_its_way() -> None:
    index = Index()
    quota = quota_of(index, 100)
    first = await quota.reserve([80])
    waiting = asyncio.create_task(quota.reserve([40]))
    await index.flushed.wait()
    assert not waiting.done()
    # Most of it was there already.
    await commit(index, first, 20)
    (await waiting).give_back()


async def test_far_from_the_quota_the_index_is_read_once() -> None:
    index = Index()
    quota = quota_of(index, 1_000_000)
    for _ in range(1000):
        await commit(index, await quota.reserve([500]), 500)
    assert index.reads == 1


@pytest.mark.parametrize("seed", range(10))
async def test_many_at_once_never_store_more_than_the_quota_and_fill_it(seed: int) -> None:
    print(f"seed {seed}")
    chance, index = random.Random(seed), Index()
    quotas = Quotas(index, index.flush)

    async def store() -> None:
        for _ in range(20):
            size_bytes = chance.randint(1, 40)
            try:
                room = await quotas.of("acme", 1000).reserve([size_bytes])
            except QuotaExceeded:
                continue
            with room:
                for _ in range(chance.randint(0, 5)):
                    await asyncio.sleep(0)
                await commit(index, room, size_bytes)
                assert index.bytes <= 1000

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(store())
    assert 960 < index.bytes <= 1000
