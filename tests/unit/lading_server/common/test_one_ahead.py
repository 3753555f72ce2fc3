"""Reading one item ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from lading_server.common.one_ahead import one_ahead


class Source:
    """Yields numbers, and knows how far it was asked and whether it was ended."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.asked = 0
        self.ended = False
        self._count = count
        self._error = error

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._count):
                self.asked += 1
                await asyncio.sleep(0)
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.ended = True


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_all_come_in_order(count: int) -> None:
    source = Source(count)
    async with one_ahead(source.items()) as ahead:
        assert [item async for item in ahead] == [*range(count)]
    assert source.ended


async def test_the_next_is_asked_for_while_one_is_used() -> None:
    source = Source(5)
    async with one_ahead(source.items()) as ahead:
        async for item in ahead:
            await asyncio.sleep(0)
            assert source.asked == min(item + 2, 5)


async def use(source: Source, taken: list[int], error: BaseException | None = None) -> None:
    """Take what the source yields, and raise an error at the first item if there is one."""
    async with one_ahead(source.items()) as ahead:
        async for item in ahead:
            if error is not None:
                raise error
            taken.append(item)


async def test_an_error_comes_after_what_came_before_it() -> None:
    source = Source(2, OSError("the disk"))
    taken: list[int] = []
    with pytest.raises(OSError, match="the disk"):
        await use(source, taken)
    assert taken == [0, 1]
    assert source.ended


@pytest.mark.parametrize("error", [ConnectionError("gone"), asyncio.CancelledError()])
async def test_whoever_leaves_in_the_middle_has_ended_the_source(error: BaseException) -> None:
    source = Source(5)
    with pytest.raises(type(error)):
        await use(source, [], error)
    assert source.ended
