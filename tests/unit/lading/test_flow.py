"""The budget of bytes, and queues that are looked into."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from lading._upload.flow import Budget, Inbox


async def test_a_budget_is_given_in_the_order_of_asking() -> None:
    budget = Budget(10)
    order: list[int] = []

    async def take(name: int, size_bytes: int) -> None:
        await budget.acquire(size_bytes)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, size_bytes in enumerate([8, 9, 1]):
            group.create_task(take(name, size_bytes))
        await asyncio.sleep(0)
        assert order == [0]
        budget.release(8)
        await asyncio.sleep(0)
        assert order == [0, 1, 2]
        budget.release(10)


async def test_more_than_the_whole_budget_waits_for_all_of_it() -> None:
    budget = Budget(10)
    await budget.acquire(1)
    waiting = asyncio.create_task(budget.acquire(50))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.release(1)
    await waiting
    budget.release(50)
    await budget.acquire(10)


async def test_one_who_gave_up_waiting_is_passed_over() -> None:
    budget = Budget(10)
    await budget.acquire(10)
    first, second = asyncio.create_task(budget.acquire(5)), asyncio.create_task(budget.acquire(5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    budget.release(5)
    await second


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_a_budget_is_never_exceeded_and_never_forgets(sizes: list[int]) -> None:
    async def run() -> None:
        budget = Budget(20)
        held = 0

        async def use(size_bytes: int) -> None:
            nonlocal held
            await budget.acquire(size_bytes)
            held += size_bytes
            assert held <= 20 or held == size_bytes
            await asyncio.sleep(0)
            held -= size_bytes
            budget.release(size_bytes)

        async with asyncio.TaskGroup() as group:
            for size_bytes in sizes:
                group.create_task(use(size_bytes))
        await budget.acquire(20)

    asyncio.run(run())


async def test_a_closed_inbox_gives_what_it_has_and_then_ends() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put([1, 2, 3])
    inbox.close()
    assert await inbox.ready()
    assert inbox.take_many(2) == [1, 2]
    assert (inbox.first(), inbox.take(), len(inbox)) == (3, 3, 0)
    assert not await inbox.ready()


async def test_a_reader_of_an_empty_inbox_wakes_up_for_an_item() -> None:
    inbox: Inbox[int] = Inbox()
    waiting = asyncio.create_task(inbox.ready())
    await asyncio.sleep(0)
    inbox.put([1])
    assert await waiting


async def test_a_reader_waits_only_so_long() -> None:
    inbox: Inbox[int] = Inbox()
    assert not await inbox.ready(idle_seconds=0.001)


async def test_at_rest_only_those_wait_who_wait_for_the_end() -> None:
    inbox: Inbox[int] = Inbox()
    hasty, patient = asyncio.create_task(inbox.ready(3600)), asyncio.create_task(inbox.ready())
    await asyncio.sleep(0)
    inbox.rest()
    assert not await hasty
    assert not await inbox.ready(3600)
    assert not patient.done()
    inbox.put([1])
    assert await patient
    assert await inbox.ready(3600)
    assert not inbox.ended
