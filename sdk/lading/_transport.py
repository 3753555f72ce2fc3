"""Channels to one server, and calls whose failures are the SDK's errors. Knows gRPC; nothing above it has to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import grpc.aio

from lading._errors import InvalidArgument, LadingError, OutcomeUnknown
from lading._status import broken_stream, error_from_rpc
from lading_proto.ingest.v1 import chunks_pb2, ingest_pb2_grpc

if TYPE_CHECKING:
    from lading_proto.ingest.v1.ingest_pb2_grpc import IngestServiceAsyncStub

# Two streams move twice what one does on loopback; a third moved nothing more (docs/design.md, measurements).
BULK_LANES = 2

# Longer than any pause that a healthy server makes between two messages of a stream that it is busy with.
STALL_SECONDS = 60.0

_MESSAGE_BYTES = 4 << 20
_RECEIVE_SLACK_BYTES = 64 << 10  # so that a message at exactly the server's limit passes, whatever frames it
_KEEPALIVE_MS = 30_000  # servers refuse pings more often than every 10 s

Request = TypeVar("Request")
Response = TypeVar("Response")
RequestIn = TypeVar("RequestIn", contravariant=True)
ResponseOut = TypeVar("ResponseOut", covariant=True)
T = TypeVar("T")


class _StreamCall(Protocol[RequestIn, ResponseOut]):
    """What this module uses of `grpc.aio.StreamStreamCall` and its kin."""

    async def write(self, request: RequestIn) -> None: ...
    async def done_writing(self) -> None: ...
    async def read(self) -> ResponseOut | object: ...
    def cancel(self) -> bool: ...


def parse_target(address: str) -> str:
    """Return the `host:port` of an address.

    Args:
        address: `host:port` or `grpc://host:port`.

    Raises:
        InvalidArgument: It is neither, or asks for TLS.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "grpcs":
        raise InvalidArgument(f"{address}: TLS is not supported yet. Use grpc://{rest}, through a tunnel if need be.")
    if separator and scheme != "grpc":
        raise InvalidArgument(f"{address}: an address is host:port or grpc://host:port, not {scheme}://.")
    target = (rest if separator else address).rstrip("/")
    host, colon, port = target.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
        raise InvalidArgument(f"{address!r} is not an address. Give host:port, such as 127.0.0.1:7420.")
    return target


class Stream(Generic[Request, Response]):
    """One streaming call, whose failures are the SDK's errors. Safe for one writer and one reader at a time."""

    def __init__(self, call: _StreamCall[Request, Response], target: str) -> None:
        self._call = call
        self._target = target

    async def write(self, request: Request) -> None:
        """Send a message; return when the transport has taken it."""
        async with self._errors():
            await self._call.write(request)

    async def done_writing(self) -> None:
        """Half-close."""
        async with self._errors():
            await self._call.done_writing()

    async def try_write(self, request: Request) -> bool:
        """Send a message; return False when the call has ended. For calls that have a reader.

        The reader sees why the call ended; a write only sees that it did.
        """
        try:
            await self.write(request)
        except LadingError:
            return False
        return True

    async def try_done_writing(self) -> None:
        """Half-close, if the call has not ended. For calls that have a reader."""
        with suppress(LadingError):
            await self.done_writing()

    async def read(self, stall_seconds: float | None = None) -> Response | None:
        """Return the next message, or None at the end of a call that went well.

        Args:
            stall_seconds: How long to wait for it; None for as long as the connection lives.

        Raises:
            OutcomeUnknown: Nothing came in that time.
        """
        async with self._errors():
            try:
                async with asyncio.timeout(stall_seconds):
                    message = await self._call.read()
            except TimeoutError:
                raise OutcomeUnknown(f"{self._target} sent nothing for {stall_seconds:.0f} s.") from None
        return None if message is grpc.aio.EOF else cast(Response, message)

    async def result(self) -> Response:
        """Return the one response of a call that streams requests only."""
        async with self._errors():
            return await cast(Awaitable[Response], self._call)

    def cancel(self) -> None:
        """End the call, if it has not ended."""
        self._call.cancel()

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._target) from None
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            # What grpc.aio raises when it is written to after the other side has ended the call.
            raise broken_stream(self._target) from None
        except asyncio.CancelledError:
            # A call that ended with CANCELLED raises the same class as a cancellation of this task does.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise broken_stream(self._target) from None


class _Channels:
    """The open channels of one process."""

    def __init__(self, target: str) -> None:
        self.pid = os.getpid()
        # The numbers make the argument lists differ: channels with equal ones would share a connection.
        self.channels = [
            grpc.aio.insecure_channel(target, options=[*_OPTIONS, ("lading.lane", lane)])
            for lane in range(BULK_LANES + 1)
        ]
        # The generated async stub exists for type checkers only.
        self.stubs = [
            cast("IngestServiceAsyncStub", ingest_pb2_grpc.IngestServiceStub(channel)) for channel in self.channels
        ]


_OPTIONS = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES + _RECEIVE_SLACK_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class Transport:
    """The connections to one server: one for calls, and a few for bulk streams.

    Opens nothing before the first call. After a fork the child forgets the parent's channels and opens its own:
    DataLoader workers fork, and a channel does not survive it.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._open: _Channels | None = None
        self._forgotten: list[_Channels] = []

    @property
    def control(self) -> IngestServiceAsyncStub:
        """Where calls go, so that they never wait behind bulk data."""
        return self._channels().stubs[0]

    def bulk(self, lane: int) -> IngestServiceAsyncStub:
        """Where the streams of one lane go: a connection of their own."""
        return self._channels().stubs[1 + lane % BULK_LANES]

    def put_chunks(self, lane: int) -> object:
        """Start a PutChunks call on a lane that takes its requests as bytes: see lading._upload.wire."""
        channel = self._channels().channels[1 + lane % BULK_LANES]
        method: grpc.aio.StreamStreamMultiCallable[bytes, chunks_pb2.PutChunksResponse] = channel.stream_stream(
            "/lading.ingest.v1.IngestService/PutChunks",
            response_deserializer=chunks_pb2.PutChunksResponse.FromString,
        )
        return method()

    async def call(self, method: Callable[..., Awaitable[T]], request: object, *, timeout: float | None = 60.0) -> T:
        """Await one unary call.

        Args:
            method: One of `control`'s.
            request: Its message.
            timeout: Seconds after which the outcome counts as unknown.
        """
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self.target) from None

    def stream(self, call: object) -> Stream[Request, Response]:
        """Wrap a streaming call that was just started."""
        return Stream(cast("_StreamCall[Request, Response]", call), self.target)

    async def close(self) -> None:
        """Close what this process opened. Another call opens it again."""
        opened, self._open = self._open, None
        if opened is not None and opened.pid == os.getpid():
            for channel in opened.channels:
                await channel.close()

    def _channels(self) -> _Channels:
        if self._open is not None and self._open.pid != os.getpid():
            # Kept, for its destructor would touch threads that the fork did not copy.
            self._forgotten.append(self._open)
            self._open = None
        if self._open is None:
            self._open = _Channels(self.target)
        return self._open
