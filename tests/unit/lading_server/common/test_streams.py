"""Deadlines for progress, and the state of a server that is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lading_server.common.drain import Drain
from lading_server.common.errors import StreamIdle
from lading_server.common.streams import progress, write_with_deadline


class Gate:
    """Messages that come when the test says so, and a writer that waits for as long as the test likes."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int | None] = asyncio.Queue()
        self.written: list[object] = []
        self.may_write = asyncio.Event()

    async def messages(self) -> AsyncIterator[int]:
        while (message := await self.queue.get()) is not None:
            yield message

    async def write(self, message: object) -> None:
        await self.may_write.wait()
        self.written.append(message)


async def test_messages_pass_in_order_until_the_half_close() -> None:
    gate = Gate()
    for message in (1, 2, 3, None):
        gate.queue.put_nowait(message)
    assert [message async for message in progress(gate.messages(), 60)] == [1, 2, 3]


async def test_a_stream_may_last_longer_than_its_deadline_while_it_progresses() -> None:
    gate = Gate()
    idle_seconds, count = 0.2, 8
    loop = asyncio.get_running_loop()

    def send(left: int) -> None:
        gate.queue.put_nowait(left or None)
        if left:
            loop.call_later(idle_seconds / 4, send, left - 1)

    began = loop.time()
    send(count)
    received = [message async for message in progress(gate.messages(), idle_seconds)]
    assert received == list(range(count, 0, -1))
    assert loop.time() - began > idle_seconds


async def test_a_client_that_sends_nothing_is_idle() -> None:
    gate = Gate()
    gate.queue.put_nowait(1)
    stream = progress(gate.messages(), 0.05)
    assert await anext(stream) == 1
    with pytest.raises(StreamIdle) as caught:
        await anext(stream)
    assert caught.value.metadata == {"idle_seconds": "0.05"}


async def test_a_cancelled_stream_is_not_taken_for_an_idle_one() -> None:
    stream = progress(Gate().messages(), 60)
    waiting = asyncio.ensure_future(anext(stream))
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_waiting_for_a_message_makes_no_task() -> None:
    gate = Gate()
    before = asyncio.all_tasks()
    stream = progress(gate.messages(), 60)
    waiting = asyncio.ensure_future(anext(stream))
    seen = asyncio.get_running_loop().create_future()

    def look() -> None:
        seen.set_result(asyncio.all_tasks())
        gate.queue.put_nowait(1)

    asyncio.get_running_loop().call_later(0.01, look)
    assert await waiting == 1
    assert await seen == before | {waiting}


async def test_a_client_that_takes_nothing_is_idle() -> None:
    gate = Gate()
    with pytest.raises(StreamIdle):
        await write_with_deadline(gate, "message", 0.05)
    gate.may_write.set()
    await write_with_deadline(gate, "message", 0.05)
    assert gate.written == ["message"]


def test_whoever_watches_is_told_once_of_the_drain() -> None:
    drain = Drain()
    told: list[str] = []
    drain.watch(lambda: told.append("a"))
    take_back = drain.watch(lambda: told.append("b"))
    take_back()
    states = [drain.started]
    drain.begin()
    states.append(drain.started)
    drain.begin()
    states.append(drain.started)
    assert states == [False, True, True]
    drain.watch(lambda: told.append("late"))
    assert told == ["a", "late"]
