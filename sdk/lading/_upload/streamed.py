"""Commits a large file while its chunks are still being sent, so that the server hashes it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lading._errors import LadingError
from lading._transport import Transport
from lading._upload.blobs import CommitStream, start_commit, start_message
from lading._upload.content import UploadingFile
from lading._upload.recipes import CHUNKS_PER_PART, add_part
from lading._upload.session import Session
from lading_proto.ingest.v1 import chunks_pb2

# Below this the server hashes the file in a few hundredths of a second anyway.
STREAM_FROM_BYTES = 32 << 20
# About 8 MiB of file a message: what the server makes durable at once.
_CHUNKS_AT_ONCE = 16


class StreamedCommit:
    """One file's CommitBlobs call. When it breaks, the file is committed like any other, from its whole recipe."""

    def __init__(
        self,
        file: UploadingFile,
        transport: Transport,
        session: Session,
        on_result: Callable[[UploadingFile, chunks_pb2.BlobResult], None],
        on_broken: Callable[[UploadingFile], None],
    ) -> None:
        self._file = file
        self._transport = transport
        self._session = session
        self._on_result = on_result
        self._on_broken = on_broken
        self._sent_chunks = 0
        self._changed = asyncio.Event()

    def advance(self) -> None:
        """Say that more chunks are durable, or that the file was read to its end."""
        file = self._file
        if file.is_durable or file.durable_chunks >= self._sent_chunks + _CHUNKS_AT_ONCE:
            self._changed.set()

    async def run(self) -> None:
        """Send parts until the whole recipe is sent, and take the result."""
        stream = start_commit(self._transport)
        try:
            result = await self._commit(stream)
        except LadingError:
            result = None
        finally:
            stream.cancel()
        if result is None:
            while not self._file.is_durable:
                await self._wait()
            self._on_broken(self._file)
        else:
            self._on_result(self._file, result)

    async def _commit(self, stream: CommitStream) -> chunks_pb2.BlobResult | None:
        file = self._file
        await stream.write(start_message(self._session.entity, await self._session.current_id()))
        while not file.is_durable or self._sent_chunks < file.chunk_count:
            # The last known chunk is held back until the file is read: the last part has to have one.
            ready_chunks = file.chunk_count if file.is_durable else min(file.durable_chunks, file.chunk_count - 1)
            ready_chunks = min(ready_chunks, self._sent_chunks + CHUNKS_PER_PART)
            if ready_chunks <= self._sent_chunks:
                await self._wait()
                continue
            message = chunks_pb2.CommitBlobsRequest()
            add_part(message, file, self._sent_chunks, ready_chunks)
            self._sent_chunks = ready_chunks
            await stream.write(message)
            if not file.is_durable:
                await self._wait()
        await stream.done_writing()
        answer = await stream.read()
        if answer is None or len(answer.results) != 1 or answer.results[0].blob_digest != file.digest:
            return None
        return answer.results[0]

    async def _wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()
