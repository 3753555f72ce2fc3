"""Asks which chunks the entity does not have, and sends those. Knows chunks and streams; no disk and no recipes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from lading._errors import Incompatible, LadingError
from lading._limits import Limits
from lading._progress import ProgressMeter
from lading._retry import RetryPolicy
from lading._transport import BULK_LANES, Transport
from lading._upload.content import Chunk, UploadingFile
from lading._upload.flow import Inbox
from lading._upload.lanes import Lane
from lading._upload.session import Session
from lading_proto.ingest.v1 import chunks_pb2

# Enough that the next question is on its way while the answer to one is.
_ASKERS = 3


class ChunkFlow:
    """Takes chunks that were read, and says when all chunks of a file are durable.

    Invariant: every chunk that was submitted and is not settled is in `_on_way`, in one of the two inboxes or in the
    hands of one task, and its bytes are held.
    """

    def __init__(
        self,
        transport: Transport,
        session: Session,
        limits: Limits,
        policy: RetryPolicy,
        meter: ProgressMeter,
        on_durable: Callable[[Sequence[UploadingFile]], None],
    ) -> None:
        self._transport = transport
        self._session = session
        self._limits = limits
        self._policy = policy
        self._meter = meter
        self._on_durable = on_durable
        self._to_ask: Inbox[Chunk] = Inbox()
        self._to_send: Inbox[Chunk] = Inbox()
        self._on_way: dict[bytes, Chunk] = {}
        self._questions = 0
        self._all_submitted = False

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the tasks that ask and send. They end after `close`."""
        for _ in range(_ASKERS):
            group.create_task(self._ask())
        for number in range(BULK_LANES):
            lane = Lane(self._transport, number, self._session, self._limits, self._to_send, self)
            group.create_task(lane.run(self._policy))

    def close(self) -> None:
        """Say that no more chunks come, and all are settled."""
        self._to_ask.close()
        self._to_send.close()

    def all_submitted(self) -> None:
        """Say that no more chunks come, unless some have to be sent again."""
        self._all_submitted = True
        self._rest()

    def submit(self, chunks: Iterable[Chunk]) -> None:
        """Take chunks whose bytes are held. One whose twin is on its way waits for that one."""
        fresh: list[Chunk] = []
        for chunk in chunks:
            twin = self._on_way.setdefault(chunk.digest, chunk)
            if twin is chunk:
                fresh.append(chunk)
                continue
            if twin.twins is None:
                twin.twins = []
            twin.twins.append((chunk.file, chunk.index, len(chunk.data)))
            chunk.block.release(len(chunk.data))
        self._to_ask.put(fresh)

    def sent(self, size_bytes: int) -> None:
        """Count bytes that travel."""
        self._meter.add(bytes_sent=size_bytes)

    def ask_again(self, chunks: Iterable[Chunk]) -> None:
        """Take back chunks of which a broken stream did not say what became of them."""
        self._to_ask.put(chunks)

    def settle(self, chunks: Iterable[Chunk], *, was_present: bool) -> None:
        """Note that chunks are durable: found there, or acknowledged."""
        done_bytes = spared_bytes = 0
        durable: list[UploadingFile] = []
        for chunk in chunks:
            del self._on_way[chunk.digest]
            file, size_bytes = chunk.file, len(chunk.data)
            chunk.block.release(size_bytes)
            file.sent_chunks += not was_present
            if not file.repairs:
                done_bytes += size_bytes
                spared_bytes += size_bytes * was_present
            file.settle(chunk.index)
            durable.append(file)
            for other, index, twin_bytes in chunk.twins or ():
                other.settle(index)
                durable.append(other)
                if not other.repairs:
                    done_bytes += twin_bytes
                    spared_bytes += twin_bytes
        self._meter.add(bytes_done=done_bytes, bytes_deduplicated=spared_bytes)
        self._on_durable(durable)

    async def _ask(self) -> None:
        # Opened while the first files are read.
        await self._policy.call(self._session.current_id)
        while await self._to_ask.ready():
            chunks = self._to_ask.take_many(self._limits.max_digests_per_call)
            self._questions += 1
            missing = await self._find_missing(chunks)
            self._questions -= 1
            self._to_send.put([chunks[index] for index in sorted(missing)])
            self.settle([chunk for index, chunk in enumerate(chunks) if index not in missing], was_present=True)
            self._rest()

    def _rest(self) -> None:
        """Let the streams end when all is sent: the server then makes it durable without waiting for more to come."""
        if self._all_submitted and not self._questions and not len(self._to_ask):
            self._to_send.rest()

    async def _find_missing(self, chunks: Sequence[Chunk]) -> set[int]:
        digests = b"".join([chunk.digest for chunk in chunks])

        async def attempt() -> set[int]:
            session_id = await self._session.current_id()
            request = chunks_pb2.FindMissingChunksRequest(
                entity=self._session.entity, session_id=session_id, digests=digests
            )
            try:
                response = await self._transport.call(self._transport.control.FindMissingChunks, request)
            except LadingError as error:
                self._session.note(error, session_id)
                raise
            return set(response.missing_indexes)

        missing = await self._policy.call(attempt)
        if missing and max(missing) >= len(chunks):
            raise Incompatible(f"{self._transport.target} answered for chunks that it was not asked for.")
        return missing
