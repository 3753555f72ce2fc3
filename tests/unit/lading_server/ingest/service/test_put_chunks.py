"""The two halves of a PutChunks stream: what waits for an answer is bounded, and no end of the stream hangs on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from lading_server.common.errors import ChunkEmpty, StorageFailed, StreamIdle
from lading_server.ingest.domain.chunks import Acknowledgement, Failure, IncomingChunk, PutBatch
from lading_server.ingest.service.put_chunks import PutChunksStream
from tests.support.registry import until

EMPTY = IncomingChunk(b"\0" * 32, 0, 0, b"")
# Of a message; and what the stream may take of them before it waits.
CHUNKS = 1000
MOST_MESSAGES = 5
SECONDS = 30


class RefusingSink:
    """Refuses every chunk, and fails after some messages; counts what it was given and what was answered."""

    def __init__(self) -> None:
        self.taken = 0
        self.takes = 1000
        self.answered_batches = 0

    async def put(self, chunks: Sequence[IncomingChunk]) -> PutBatch:
        if self.taken == self.takes:
            raise StorageFailed("enough")
        self.taken += 1
        failures = [Failure(at, chunk.digest, ChunkEmpty("no bytes")) for at, chunk in enumerate(chunks)]
        return PutBatch(len(chunks), 0, failures, None)

    def answered(self, batch: PutBatch) -> None:
        self.answered_batches += 1


class Client:
    """Sends messages of empty chunks, and reads answers when it is let."""

    def __init__(self, message_count: int) -> None:
        self.sink = RefusingSink()
        self.reads = asyncio.Event()
        self.answers: list[Acknowledgement] = []
        self.drain: Callable[[], object] = lambda: None
        self.error: Exception | None = None
        self._message_count = message_count

    async def run(self) -> None:
        stream = PutChunksStream(self.sink, self._write)  # type: ignore[arg-type]
        await stream.run(self._messages(), flush=lambda: None, stop_reading=self._watch)

    async def held_back(self) -> None:
        """Wait until the stream takes nothing more."""

        async def has_taken() -> bool:
            await asyncio.sleep(0)
            return self.sink.taken >= MOST_MESSAGES

        await until(has_taken)
        # It has had its turns to take more.
        for _ in range(100):
            await asyncio.sleep(0)
        assert self.sink.taken == MOST_MESSAGES

    def _watch(self, drain: Callable[[], object]) -> Callable[[], object]:
        self.drain = drain
        return lambda: None

    async def _messages(self) -> AsyncIterator[list[IncomingChunk]]:
        for _ in range(self._message_count):
            yield [EMPTY] * CHUNKS
            await asyncio.sleep(0)

    async def _write(self, answer: Acknowledgement) -> None:
        await self.reads.wait()
        if self.error is not None:
            raise self.error
        # The stream goes on to count in the one that it gave.
        self.answers.append(replace(answer, failures=list(answer.failures)))


async def test_a_client_that_does_not_read_its_answers_is_held_back_and_then_gets_them_all() -> None:
    client = Client(100)
    serving = asyncio.create_task(client.run())
    await client.held_back()
    client.reads.set()
    async with asyncio.timeout(SECONDS):
        await serving
    assert client.sink.taken == client.sink.answered_batches == 100
    assert client.answers[-1].chunk_count == sum(len(answer.failures) for answer in client.answers) == 100 * CHUNKS
    assert max(len(answer.failures) for answer in client.answers) <= MOST_MESSAGES * CHUNKS


async def test_a_drain_ends_a_stream_that_is_held_back_and_what_was_taken_is_answered() -> None:
    client = Client(100)
    serving = asyncio.create_task(client.run())
    await client.held_back()
    client.drain()
    client.reads.set()
    async with asyncio.timeout(SECONDS):
        await serving
    assert client.answers[-1].chunk_count == MOST_MESSAGES * CHUNKS


async def test_a_client_that_never_reads_ends_its_stream_and_that_alone() -> None:
    client = Client(100)
    serving = asyncio.create_task(client.run())
    await client.held_back()
    client.error = StreamIdle("nothing was taken")
    client.reads.set()
    async with asyncio.timeout(SECONDS):
        with pytest.raises(StreamIdle):
            await serving


async def test_a_client_that_goes_away_while_it_is_held_back_leaves_nothing_running() -> None:
    client = Client(100)
    before = asyncio.all_tasks()
    serving = asyncio.create_task(client.run())
    await client.held_back()
    serving.cancel()
    async with asyncio.timeout(SECONDS):
        with pytest.raises(asyncio.CancelledError):
            await serving
    assert asyncio.all_tasks() == before


async def test_a_message_that_cannot_be_stored_ends_a_stream_after_what_was_taken_is_answered() -> None:
    client = Client(3)
    client.sink.takes = 2
    client.reads.set()
    async with asyncio.timeout(SECONDS):
        with pytest.raises(StorageFailed, match="enough"):
            await client.run()
    assert client.answers[-1].chunk_count == 2 * CHUNKS
