"""One lane of PutChunks: one stream after the other, within the server's window. Knows nothing of files."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from lading._errors import Incompatible, LadingError, error_from, one_error
from lading._limits import Limits
from lading._retry import Attempts, RetryPolicy
from lading._status import broken_stream
from lading._transport import MESSAGE_BYTES, STALL_SECONDS, Stream, Transport
from lading._upload.content import Chunk
from lading._upload.flow import Inbox
from lading._upload.session import Session
from lading._upload.wire import encode_batch
from lading_proto.ingest.v1 import chunks_pb2

# A message is closed once it has this much: each costs both sides work of its own, and it may have 4 MiB.
_MESSAGE_BYTES = 3 << 20
# Digest, checksum, size, and the tags and lengths of the four fields and of the chunk, rounded up.
_CHUNK_OVERHEAD_BYTES = 64
# Below any server's `stream_idle_seconds`: a stream without work is closed, and opened again for the next chunk.
_IDLE_SECONDS = 5.0
_DAMAGED_AT_MOST = 3

_PutStream = Stream[bytes, chunks_pb2.PutChunksResponse]


class Settler(Protocol):
    """Who is told what became of chunks."""

    def sent(self, size_bytes: int) -> None:
        """Count bytes that travel."""

    def settle(self, chunks: Iterable[Chunk], *, was_present: bool) -> None:
        """Note that chunks are durable."""

    def ask_again(self, chunks: Iterable[Chunk]) -> None:
        """Take back chunks whose outcome is unknown."""


class Lane:
    """Sends what is in an inbox.

    Invariant: `_unanswered` holds the chunks that were sent and not answered, in the order of sending, and
    `_unanswered_bytes` is the sum of their sizes: never more than the window.
    """

    def __init__(
        self,
        transport: Transport,
        number: int,
        session: Session,
        limits: Limits,
        to_send: Inbox[Chunk],
        settler: Settler,
    ) -> None:
        self._transport = transport
        self._number = number
        self._session = session
        self._limits = limits
        # A server may take larger ones than this SDK's connections send.
        self._most_bytes = min(limits.max_message_bytes, MESSAGE_BYTES)
        self._to_send = to_send
        self._settler = settler
        self._unanswered: deque[Chunk] = deque()
        self._unanswered_bytes = 0
        self._answered_chunks = 0
        self._window_bytes = 0
        self._room = asyncio.Event()

    async def run(self, policy: RetryPolicy) -> None:
        """Send until the inbox ends. A stream that breaks is followed by another, for what is still missing then."""
        attempts: Attempts | None = None
        while await self._to_send.ready():
            # What there was nothing to send for was no time of trying in vain.
            attempts = attempts or policy.start()
            self._unanswered = deque()
            self._unanswered_bytes = self._answered_chunks = 0
            session_id = ""
            try:
                session_id = await self._session.current_id()
                await self._stream(session_id, attempts)
            except LadingError as error:
                self._session.note(error, session_id)
                self._settler.ask_again(self._unanswered)
                await attempts.pause(error)
            else:
                attempts = None

    async def _stream(self, session_id: str, attempts: Attempts) -> None:
        stream: _PutStream = self._transport.stream(self._transport.put_chunks(self._number))
        try:
            start = chunks_pb2.PutChunksStart(entity=self._session.entity, session_id=session_id)
            await stream.write(chunks_pb2.PutChunksRequest(start=start).SerializeToString())
            if not await self._read_answer(stream):
                raise broken_stream(self._transport.target)
            with one_error():
                async with asyncio.TaskGroup() as group:
                    writer = group.create_task(self._write(stream))
                    await self._read(stream, attempts)
                    writer.cancel()
        finally:
            stream.cancel()

    async def _write(self, stream: _PutStream) -> None:
        while await self._to_send.ready(_IDLE_SECONDS):
            batch = self._next_batch()
            if not batch:
                self._room.clear()
                await self._room.wait()
            elif not await stream.try_write(encode_batch(batch)):
                return
            self._settler.sent(sum([len(chunk.data) for chunk in batch]))
        await stream.try_done_writing()

    async def _read(self, stream: _PutStream, attempts: Attempts) -> None:
        while await self._read_answer(stream):
            attempts.progress()
        if self._unanswered:
            raise broken_stream(self._transport.target)

    def _next_batch(self) -> list[Chunk]:
        """Take what fits into the next message and the window. Empty when the window is full."""
        batch: list[Chunk] = []
        batch_bytes = message_bytes = 0
        room_bytes = self._window_bytes - self._unanswered_bytes
        while len(self._to_send) and len(batch) < self._limits.max_chunks_per_message:
            size_bytes = len(self._to_send.first().data)
            message_bytes += size_bytes + _CHUNK_OVERHEAD_BYTES
            if batch_bytes + size_bytes > room_bytes or message_bytes > self._most_bytes:
                break
            batch.append(self._to_send.take())
            batch_bytes += size_bytes
            if batch_bytes >= _MESSAGE_BYTES:
                break
        if not batch and len(self._to_send) and not self._unanswered:
            raise Incompatible(
                f"{self._transport.target} grants a window of {self._window_bytes} bytes: less than one chunk."
            )
        self._unanswered.extend(batch)
        self._unanswered_bytes += batch_bytes
        return batch

    async def _read_answer(self, stream: _PutStream) -> bool:
        """Take one answer; return False at the end of the stream."""
        answer = await stream.read(STALL_SECONDS)
        if answer is None:
            return False
        count = answer.acknowledged_chunks - self._answered_chunks
        if not 0 <= count <= len(self._unanswered):
            raise Incompatible(f"{self._transport.target} acknowledged chunks that were not sent.")
        first_index = self._answered_chunks
        answered = [self._unanswered.popleft() for _ in range(count)]
        self._answered_chunks += count
        self._unanswered_bytes -= sum([len(chunk.data) for chunk in answered])
        self._window_bytes = answer.window_bytes
        self._room.set()
        if answer.failures:
            failed = {failure.index - first_index: failure for failure in answer.failures}
            self._send_damaged_again([(chunk, failed[i]) for i, chunk in enumerate(answered) if i in failed])
            answered = [chunk for i, chunk in enumerate(answered) if i not in failed]
        self._settler.settle(answered, was_present=False)
        return True

    def _send_damaged_again(self, failed: Iterable[tuple[Chunk, chunks_pb2.ChunkFailure]]) -> None:
        """Send again what was damaged on its way; raise for any other failure."""
        for chunk, failure in failed:
            chunk.damaged_count += 1
            error = failure.error
            if error.reason != "CHECKSUM_MISMATCH" or chunk.damaged_count > _DAMAGED_AT_MOST:
                raise error_from(error.code, error.reason, f"{chunk.file.source.location}: {error.message}")
            self._to_send.put([chunk])
