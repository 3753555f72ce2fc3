"""The two halves of a PutChunks stream: one reads and stores, the other acknowledges what became durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from lading_server.ingest.domain.chunks import Acknowledgement, ChunkSink, IncomingChunk, PutBatch

# Messages and refused chunks that wait to be answered, together. The window bounds bytes alone, and refused chunks may
# have none: without this, a client that does not read its answers could have any number of them kept. As many as
# chunks fit into a message by default, which is some megabytes.
_MOST_UNANSWERED = 4096


class PutChunksStream:
    """Runs both halves until the client half-closes, the server drains, or something fails.

    Guarantee: nothing is acknowledged before it is durable, and everything durable is acknowledged before the stream
    ends, unless the connection is gone.
    """

    def __init__(self, sink: ChunkSink, write: Callable[[Acknowledgement], Awaitable[None]]) -> None:
        self._sink = sink
        self._write = write
        self._stored: asyncio.Queue[PutBatch | None] = asyncio.Queue()
        self._sum = Acknowledgement()
        self._ended = False
        # How many messages and refused chunks wait, and how many of them the next answer answers.
        self._unanswered = 0
        self._added = 0
        self._room = asyncio.Event()

    async def run(
        self,
        batches: AsyncIterator[list[IncomingChunk]],
        *,
        flush: Callable[[], None],
        stop_reading: Callable[[Callable[[], object]], Callable[[], object]],
    ) -> None:
        """Serve the stream.

        Args:
            batches: The client's messages.
            flush: Asks for what was stored to be committed without lingering.
            stop_reading: Registers what to call when the server drains, and returns how to take that back.
        """
        reading = asyncio.create_task(self._read(batches))
        acknowledging = asyncio.create_task(self._acknowledge())
        take_back = stop_reading(reading.cancel)
        try:
            await asyncio.wait({reading, acknowledging}, return_when=asyncio.FIRST_COMPLETED)
            flush()
            if not acknowledging.done():
                # Reading ended, well or badly: whatever it stored is still acknowledged.
                self._stored.put_nowait(None)
            await acknowledging
            if not reading.cancelled():
                await reading
        finally:
            take_back()
            for task in (reading, acknowledging):
                task.cancel()
            await asyncio.gather(reading, acknowledging, return_exceptions=True)

    async def _read(self, batches: AsyncIterator[list[IncomingChunk]]) -> None:
        async for chunks in batches:
            # Waited for before anything is stored: a drain ends this, and what is stored has to be acknowledged.
            while self._unanswered >= _MOST_UNANSWERED:
                self._room.clear()
                await self._room.wait()
            batch = await self._sink.put(chunks)
            self._unanswered += _weight(batch)
            self._stored.put_nowait(batch)

    async def _acknowledge(self) -> None:
        await self._write(self._sum)
        batch = await self._stored.get()
        while batch is not None:
            await self._add(batch)
            batch = await self._add_durable()
            await self._write(self._sum)
            self._sum = Acknowledgement(self._sum.chunk_count, self._sum.size_bytes)
            self._unanswered -= self._added
            self._added = 0
            self._room.set()
            if batch is None and not self._ended:
                batch = await self._stored.get()

    async def _add_durable(self) -> PutBatch | None:
        """Take along what is durable already: fewer, larger answers. Return the first batch that is not."""
        while not self._stored.empty():
            batch = self._stored.get_nowait()
            if batch is None:
                self._ended = True
                return None
            if batch.durable is not None and not batch.durable.done():
                return batch
            await self._add(batch)
        return None

    async def _add(self, batch: PutBatch) -> None:
        # Before it settles: that may refuse more, which were not counted.
        self._added += _weight(batch)
        await batch.settled()
        self._sum.chunk_count += batch.chunk_count
        self._sum.size_bytes += batch.size_bytes
        self._sum.failures += batch.failures
        self._sink.answered(batch)


def _weight(batch: PutBatch) -> int:
    return 1 + len(batch.failures)
