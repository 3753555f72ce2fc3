"""The simple path: one file, one stream of bytes, either way. Needs no chunks and no sessions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Protocol

import aiofiles
import aiofiles.os

from lading._errors import (
    FailedPrecondition,
    FileChanged,
    IntegrityError,
    LadingError,
    NotFound,
    OutcomeUnknown,
)
from lading._model import FileInfo, StrPath
from lading._progress import ProgressMeter
from lading._retry import Attempts, RetryPolicy
from lading._transport import STALL_SECONDS, Stream, Transport
from lading_format.digest import format_digest, new_hasher
from lading_proto.ingest.v1 import files_pb2

# The protocol calls 256 KiB to 1 MiB fastest.
_MESSAGE_BYTES = 1 << 20


class _BinaryFile(Protocol):
    async def read(self, size: int, /) -> bytes: ...
    async def seek(self, offset: int, /) -> int: ...


class FileUpload:
    """One UploadFile, over as many streams as it takes.

    Invariant: the hasher has seen exactly the first `_hashed_bytes` bytes of the file, in order.
    """

    def __init__(
        self,
        transport: Transport,
        entity: str,
        policy: RetryPolicy,
        path: StrPath,
        upload_id: str,
        meter: ProgressMeter,
    ) -> None:
        self._transport = transport
        self._entity = entity
        self._policy = policy
        self._path = path
        self._upload_id = upload_id
        self._meter = meter
        self._hasher = new_hasher()
        self._hashed_bytes = 0
        self._size_bytes = 0
        self._done_bytes = 0

    async def run(self, *, continues: bool) -> FileInfo:
        """Upload from where the server is, until it has all.

        Args:
            continues: Whether an earlier run may have sent a part.
        """
        attempts = self._policy.start()
        before = await aiofiles.os.stat(self._path)
        self._size_bytes = before.st_size
        self._meter.expect(bytes_total=self._size_bytes, files_total=1)
        while True:
            try:
                durable_bytes, digest = await self._durable() if continues else (0, "")
                if digest:
                    return FileInfo(digest, self._size_bytes, 0)
                info = await self._send(durable_bytes, attempts)
            except LadingError as error:
                continues = True
                await attempts.pause(_as_retryable(error))
                continue
            after = await aiofiles.os.stat(self._path)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise FileChanged(f"{self._path!s} changed while it was uploaded. Upload it again.")
            self._meter.add(files_done=1)
            return info

    async def _durable(self) -> tuple[int, str]:
        """Return how many bytes are durable, and the digest when the upload is complete."""
        request = files_pb2.GetUploadRequest(entity=self._entity, upload_id=self._upload_id)
        try:
            response = await self._transport.call(self._transport.control.GetUpload, request)
        except NotFound:
            return 0, ""
        if response.state != files_pb2.UPLOAD_STATE_COMPLETE:
            return response.durable_bytes, ""
        async with aiofiles.open(self._path, "rb") as file:
            while await self._read(file):
                pass
        if response.digest != format_digest(self._hasher.digest()):
            raise FailedPrecondition(
                f"Upload {self._upload_id} is complete, with other content than {self._path!s}. Use another upload_id."
            )
        self._meter.add(files_done=1, bytes_done=self._size_bytes - self._done_bytes)
        return response.durable_bytes, response.digest

    async def _send(self, offset_bytes: int, attempts: Attempts) -> FileInfo:
        stream: Stream[files_pb2.UploadFileRequest, files_pb2.UploadFileResponse]
        stream = self._transport.stream(self._transport.bulk(0).UploadFile())
        start = files_pb2.UploadFileStart(entity=self._entity, upload_id=self._upload_id, offset_bytes=offset_bytes)
        try:
            async with aiofiles.open(self._path, "rb") as file:
                going = await stream.try_write(files_pb2.UploadFileRequest(start=start))
                going = going and await self._send_data(stream, file, offset_bytes, attempts)
            if going and await stream.try_write(self._finish()):
                await stream.try_done_writing()
            response = await stream.result()
        finally:
            stream.cancel()
        return FileInfo(response.digest, response.size_bytes, response.new_bytes)

    async def _send_data(
        self,
        stream: Stream[files_pb2.UploadFileRequest, files_pb2.UploadFileResponse],
        file: _BinaryFile,
        offset_bytes: int,
        attempts: Attempts,
    ) -> bool:
        """Send the file from an offset on; return False when the call has ended. Hashes what was not hashed before."""
        while self._hashed_bytes < offset_bytes and await self._read(file, offset_bytes - self._hashed_bytes):
            pass
        position = offset_bytes
        self._count_done(position)
        while position < self._size_bytes:
            if position < self._hashed_bytes:
                await file.seek(position)
                data = await file.read(min(_MESSAGE_BYTES, self._hashed_bytes - position))
            else:
                data = await self._read(file)
            if not data:
                raise FileChanged(f"{self._path!s} became shorter while it was uploaded. Upload it again.")
            if not await stream.try_write(files_pb2.UploadFileRequest(data=data)):
                return False
            attempts.progress()
            position += len(data)
            self._meter.add(bytes_sent=len(data))
            self._count_done(position)
        return True

    async def _read(self, file: _BinaryFile, at_most_bytes: int = _MESSAGE_BYTES) -> bytes:
        """Read and hash the first bytes that were not hashed yet."""
        await file.seek(self._hashed_bytes)
        data = await file.read(min(_MESSAGE_BYTES, at_most_bytes, self._size_bytes - self._hashed_bytes))
        self._hasher.update(data)
        self._hashed_bytes += len(data)
        return data

    def _finish(self) -> files_pb2.UploadFileRequest:
        finish = files_pb2.UploadFileFinish(
            expected_digest=format_digest(self._hasher.digest()), expected_size_bytes=self._size_bytes
        )
        return files_pb2.UploadFileRequest(finish=finish)

    def _count_done(self, position: int) -> None:
        self._meter.add(bytes_done=position - self._done_bytes)
        self._done_bytes = position


async def read_file(
    transport: Transport,
    policy: RetryPolicy,
    request: files_pb2.ReadFileRequest,
    length_bytes: int | None,
    name: str,
) -> AsyncGenerator[bytes, None]:
    """Yield a file's bytes; continue where a broken stream ended.

    Args:
        request: Which file, and from where on.
        length_bytes: How many bytes at most; None for all.
        name: What the file is called in messages.
    """
    verifies = request.blob_digest and not request.offset_bytes and length_bytes is None
    hasher = new_hasher()
    attempts = policy.start()
    start_bytes = position = request.offset_bytes
    while length_bytes is None or position < start_bytes + length_bytes:
        request.offset_bytes = position
        request.length_bytes = 0 if length_bytes is None else start_bytes + length_bytes - position
        try:
            async with contextlib.aclosing(_read_once(transport, request, name)) as messages:
                async for data in messages:
                    attempts.progress()
                    position += len(data)
                    hasher.update(data)
                    yield data
            break
        except LadingError as error:
            await attempts.pause(error)
    if verifies and format_digest(hasher.digest()) != request.blob_digest:
        raise IntegrityError(f"The bytes that came for {name} do not have its digest. Discard them.")


async def _read_once(
    transport: Transport, request: files_pb2.ReadFileRequest, name: str
) -> AsyncGenerator[bytes, None]:
    """Yield what one ReadFile call sends, checked for gaps, for missing bytes and for bytes that nobody asked for."""
    stream: Stream[files_pb2.ReadFileRequest, files_pb2.ReadFileResponse]
    stream = transport.stream(transport.bulk(0).ReadFile(request))
    position = request.offset_bytes
    end = None
    try:
        while (message := await stream.read(STALL_SECONDS)) is not None:
            if end is None:
                end = message.size_bytes
                if request.length_bytes:
                    end = min(end, request.offset_bytes + request.length_bytes)
            if message.offset_bytes != position or position + len(message.data) > end:
                raise IntegrityError(f"The server sent bytes of {name} that were not asked for.")
            if not message.data and position < end:
                raise IntegrityError(f"The server sent a message of {name} without bytes.")
            position += len(message.data)
            if message.data:
                yield message.data
        if end is None or position < end:
            raise IntegrityError(f"The server ended {name} early, at byte {position}.")
    finally:
        stream.cancel()


def _as_retryable(error: LadingError) -> LadingError:
    """Return what to make of a failed stream: whoever asks GetUpload next learns the right offset."""
    if error.reason in {"OFFSET_MISMATCH", "UPLOAD_COMPLETE"}:
        return OutcomeUnknown(error.message, reason=error.reason, metadata=error.metadata)
    return error
