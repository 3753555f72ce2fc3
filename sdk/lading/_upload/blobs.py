"""Commits files whose chunks are all there. Knows recipes and their answers; not how chunks came there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from lading._errors import Incompatible, LadingError, error_from, one_error
from lading._limits import Limits
from lading._retry import Attempts, RetryPolicy
from lading._status import broken_stream
from lading._transport import Stream, Transport
from lading._upload.content import UploadingFile
from lading._upload.flow import Inbox
from lading._upload.recipes import recipe_messages
from lading._upload.session import Session
from lading_proto.ingest.v1 import chunks_pb2

# Of one call: enough to make the call's own cost vanish, few enough that a broken call repeats little.
_FILES_PER_CALL = 10_000

CommitStream = Stream[chunks_pb2.CommitBlobsRequest, chunks_pb2.CommitBlobsResponse]


class Committer:
    """Commits, one call after the other: while one is answered, the files for the next gather."""

    def __init__(
        self,
        transport: Transport,
        session: Session,
        limits: Limits,
        policy: RetryPolicy,
        on_result: Callable[[UploadingFile, chunks_pb2.BlobResult], None],
    ) -> None:
        self._transport = transport
        self._session = session
        self._limits = limits
        self._policy = policy
        self._on_result = on_result
        self._inbox: Inbox[UploadingFile] = Inbox()

    def commit(self, files: Sequence[UploadingFile]) -> None:
        """Take files whose chunks are all durable."""
        self._inbox.put(files)

    def close(self) -> None:
        """Say that no more files come."""
        self._inbox.close()

    async def run(self) -> None:
        """Commit until the inbox ends."""
        while await self._inbox.ready():
            files = self._inbox.take_many(_FILES_PER_CALL)
            attempts = self._policy.start()
            while files:
                session_id = ""
                try:
                    session_id = await self._session.current_id()
                    await self._call(files, session_id, attempts)
                except LadingError as error:
                    self._session.note(error, session_id)
                    await attempts.pause(error)

    async def _call(self, files: list[UploadingFile], session_id: str, attempts: Attempts) -> None:
        """Commit files and take those that were answered off the list."""
        stream = start_commit(self._transport)
        start = start_message(self._session.entity, session_id)
        messages = chain([start], recipe_messages(tuple(files), self._limits))
        try:
            with one_error():
                async with asyncio.TaskGroup() as group:
                    group.create_task(_write(stream, messages))
                    # No deadline: the server hashes every byte of a blob before it answers; keepalive watches it.
                    while (answer := await stream.read()) is not None:
                        attempts.progress()
                        self._take(answer, files)
        finally:
            stream.cancel()
        if files:
            raise broken_stream(self._transport.target)

    def _take(self, answer: chunks_pb2.CommitBlobsResponse, files: list[UploadingFile]) -> None:
        results = list(answer.results)
        if [result.blob_digest for result in results] != [file.digest for file in files[: len(results)]]:
            raise Incompatible(f"{self._transport.target} answered for blobs in another order than they were sent.")
        answered = files[: len(results)]
        del files[: len(results)]
        for file, result in zip(answered, results, strict=True):
            self._on_result(file, result)


def start_commit(transport: Transport) -> CommitStream:
    """Start a CommitBlobs call."""
    return transport.stream(transport.control.CommitBlobs())


def start_message(entity: str, session_id: str) -> chunks_pb2.CommitBlobsRequest:
    """Return the first message of the call."""
    return chunks_pb2.CommitBlobsRequest(start=chunks_pb2.CommitBlobsStart(entity=entity, session_id=session_id))


def failure(file: UploadingFile, result: chunks_pb2.BlobResult) -> LadingError:
    """Return the error for a blob that was not made."""
    error = result.error
    return error_from(error.code, error.reason, f"{file.source.location}: {error.message}")


async def _write(stream: CommitStream, messages: Iterable[chunks_pb2.CommitBlobsRequest]) -> None:
    for message in messages:
        if not await stream.try_write(message):
            return
    await stream.try_done_writing()
