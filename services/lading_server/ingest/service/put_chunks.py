"""The two halves of a PutChunks stream: one reads and stores, the other acknowledges what became durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from lading_server.ingest.domain.chunks import Acknowledgement, ChunkSink, IncomingChunk, PutBatch


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
            self._stored.put_nowait(await self._sink.put(chunks))

    async def _acknowledge(self) -> None:
        await self._write(self._sum)
        batch = await self._stored.get()
        while batch is not None:
            await self._add(batch)
            batch = await self._add_durable()
            await self._write(self._sum)
            self._sum = Acknowledgement(self._sum.chunk_count, self._sum.size_bytes)
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
        await batch.settled()
        self._sum.chunk_count += batch.chunk_count
        self._sum.size_bytes += batch.size_bytes
        self._sum.failures += batch.failures
        self._sink.answered(batch)
