"""Channels to one server, and calls whose failures are the SDK's errors. Knows gRPC; nothing above it has to."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from lading._address import Address
from lading._errors import LadingError, OutcomeUnknown
from lading._forks import OpenChannels
from lading._grpc import grpc
from lading._status import broken_stream, error_from_rpc
from lading._tls import channel_credentials
from lading._trust import SYSTEM_TRUST, Trust
from lading_proto.ingest.v1 import check_pb2_grpc, chunks_pb2, ingest_pb2_grpc, maintenance_pb2_grpc
from lading_proto.registry.v1 import access_pb2_grpc, registry_pb2_grpc, retention_pb2_grpc

if TYPE_CHECKING:
    from lading_proto.ingest.v1.check_pb2_grpc import CheckServiceAsyncStub
    from lading_proto.ingest.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from lading_proto.ingest.v1.maintenance_pb2_grpc import MaintenanceServiceAsyncStub
    from lading_proto.registry.v1.access_pb2_grpc import AccessServiceAsyncStub
    from lading_proto.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub
    from lading_proto.registry.v1.retention_pb2_grpc import RetentionServiceAsyncStub

# Two streams move twice what one does on loopback; a third moved nothing more (docs/design.md, measurements).
BULK_LANES = 2

# Longer than any pause that a healthy server makes between two messages of a stream that it is busy with.
STALL_SECONDS = 60.0

# The largest message either way. What a server takes is in its limits.
MESSAGE_BYTES = 4 << 20
_RECEIVE_SLACK_BYTES = 64 << 10  # so that a message at exactly the server's limit passes, whatever frames it
# What the far end may send of a stream before it is read. gRPC's own is 16 MiB, or more where it takes a hiccup for a
# long line; each of its threads, one a processor, then keeps as much of freed memory, and a download of one file was
# seen to hold 425 MB. Two streams of this move 1.3 Gbit/s over a line of 100 ms.
_LOOKAHEAD_BYTES = 8 << 20
_KEEPALIVE_MS = 30_000  # servers refuse pings more often than every 10 s

Request = TypeVar("Request")
Response = TypeVar("Response")
RequestIn = TypeVar("RequestIn", contravariant=True)
ResponseOut = TypeVar("ResponseOut", covariant=True)
T = TypeVar("T")

_Metadata = tuple[tuple[str, str], ...]


class _StreamCall(Protocol[RequestIn, ResponseOut]):
    """What this module uses of `grpc.aio.StreamStreamCall` and its kin."""

    async def write(self, request: RequestIn) -> None: ...
    async def done_writing(self) -> None: ...
    async def read(self) -> ResponseOut | object: ...
    def cancel(self) -> bool: ...


class Stream(Generic[Request, Response]):
    """One streaming call, whose failures are the SDK's errors. Safe for one writer and one reader at a time."""

    def __init__(self, call: _StreamCall[Request, Response], address: Address) -> None:
        self._call = call
        self._address = address
        self._target = address.target

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
            raise error_from_rpc(error, self._address) from None
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            # What grpc.aio raises when it is written to after the other side has ended the call.
            raise broken_stream(self._target) from None
        except asyncio.CancelledError:
            # A call that ended with CANCELLED raises the same class as a cancellation of this task does.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise broken_stream(self._target) from None


class _KeyedChannel:
    """A channel whose every call carries the key, of whatever kind it is: what stubs are made of."""

    def __init__(self, channel: grpc.aio.Channel, api_key: str) -> None:
        self.channel = channel
        metadata = (("authorization", f"Bearer {api_key}"),) if api_key else None
        self.unary_unary = _keyed(channel.unary_unary, metadata)
        self.unary_stream = _keyed(channel.unary_stream, metadata)
        self.stream_unary = _keyed(channel.stream_unary, metadata)
        self.stream_stream = _keyed(channel.stream_stream, metadata)


def _keyed(make: Callable[..., Any], metadata: _Metadata | None) -> Callable[..., Any]:
    """Return what makes multicallables that send this metadata."""

    def make_keyed(*args: Any, **kwargs: Any) -> Any:
        return partial(make(*args, **kwargs), metadata=metadata)

    return make_keyed


class _Channels(OpenChannels):
    """The open channels of one transport."""

    def __init__(self, address: Address, api_key: str, trust: Trust) -> None:
        super().__init__()
        credentials = channel_credentials(trust) if address.tls else None
        # The numbers make the argument lists differ: channels with equal ones would share a connection.
        self.channels = [_KeyedChannel(_channel(address, credentials, lane), api_key) for lane in range(BULK_LANES + 1)]
        # The generated async stubs exist for type checkers only.
        self.stubs = [
            cast("IngestServiceAsyncStub", ingest_pb2_grpc.IngestServiceStub(cast(grpc.Channel, channel)))
            for channel in self.channels
        ]
        self.checks = cast(
            "CheckServiceAsyncStub", check_pb2_grpc.CheckServiceStub(cast(grpc.Channel, self.channels[0]))
        )
        self.registry = cast(
            "RegistryServiceAsyncStub", registry_pb2_grpc.RegistryServiceStub(cast(grpc.Channel, self.channels[0]))
        )
        self.access = cast(
            "AccessServiceAsyncStub", access_pb2_grpc.AccessServiceStub(cast(grpc.Channel, self.channels[0]))
        )
        self.retention = cast(
            "RetentionServiceAsyncStub", retention_pb2_grpc.RetentionServiceStub(cast(grpc.Channel, self.channels[0]))
        )
        self.maintenance = cast(
            "MaintenanceServiceAsyncStub",
            maintenance_pb2_grpc.MaintenanceServiceStub(cast(grpc.Channel, self.channels[0])),
        )


def _channel(address: Address, credentials: grpc.ChannelCredentials | None, lane: int) -> grpc.aio.Channel:
    options = [*_OPTIONS, ("lading.lane", lane)]
    if address.is_loopback:
        # gRPC heeds no_proxy and no rule about loopback: a proxy for everything would get what is of this machine.
        options.append(("grpc.enable_http_proxy", 0))
    if credentials is None:
        return grpc.aio.insecure_channel(address.target, options=options)
    return grpc.aio.secure_channel(address.target, credentials, options=options)


_OPTIONS = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Without this, a busy connection that died without a word was given up only after a minute, which is as long as
    # STALL_SECONDS: a transfer would try the same one again. Not much less: on a slow link a ping waits behind
    # megabytes that were sent.
    ("grpc.http2.ping_timeout_ms", 45_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES + _RECEIVE_SLACK_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", _LOOKAHEAD_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How often a server is tried, lading._retry says. This is only how soon a channel finds out that it is back.
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Transport:
    """The connections to one server, of whichever service: one for calls, and a few for bulk streams.

    Opens nothing before the first call. After a fork the child opens its own, or is told that it cannot: gRPC's
    threads do not survive a fork, and what its parent left of it would make the child hang or crash.

    Args:
        address: The server's.
        api_key: Sent with every call; empty for none.
        trust: The files of TLS, where the address has that; read when connections are opened.
    """

    def __init__(self, address: Address, api_key: str = "", trust: Trust = SYSTEM_TRUST) -> None:
        self.target = address.target
        self._address = address
        self._api_key = api_key
        self._trust = trust
        self._open: _Channels | None = None
        self._finalizer: weakref.finalize[[], Transport] | None = None

    @property
    def control(self) -> IngestServiceAsyncStub:
        """Where calls go, so that they never wait behind bulk data."""
        return self._channels().stubs[0]

    @property
    def registry(self) -> RegistryServiceAsyncStub:
        """The same, for the service that knows names."""
        return self._channels().registry

    @property
    def access(self) -> AccessServiceAsyncStub:
        """The same, for the service that says who may do what."""
        return self._channels().access

    @property
    def retention(self) -> RetentionServiceAsyncStub:
        """The same, for the service that says which versions stay."""
        return self._channels().retention

    @property
    def checks(self) -> CheckServiceAsyncStub:
        """The same, for the service that looks for damage."""
        return self._channels().checks

    @property
    def maintenance(self) -> MaintenanceServiceAsyncStub:
        """The same, for the service that keeps the store."""
        return self._channels().maintenance

    def bulk(self, lane: int) -> IngestServiceAsyncStub:
        """Where the streams of one lane go: a connection of their own."""
        return self._channels().stubs[1 + lane % BULK_LANES]

    def put_chunks(self, lane: int) -> object:
        """Start a PutChunks call on a lane that takes its requests as bytes: see lading._upload.wire."""
        channel = self._channels().channels[1 + lane % BULK_LANES]
        return channel.stream_stream(
            "/lading.ingest.v1.IngestService/PutChunks",
            response_deserializer=chunks_pb2.PutChunksResponse.FromString,
        )()

    def read_blobs(self, lane: int, request: chunks_pb2.ReadBlobsRequest, decode: Callable[[bytes], object]) -> object:
        """Start a ReadBlobs call on a lane whose answers are what `decode` makes of them: see lading._download.wire."""
        channel = self._channels().channels[1 + lane % BULK_LANES]
        return channel.unary_stream(
            "/lading.ingest.v1.IngestService/ReadBlobs",
            request_serializer=chunks_pb2.ReadBlobsRequest.SerializeToString,
            response_deserializer=decode,
        )(request)

    async def call(self, method: Callable[..., Awaitable[T]], request: object, *, timeout: float | None = 60.0) -> T:
        """Await one unary call.

        Args:
            method: One of `control`'s.
            request: Its message.
            timeout: Seconds after which the outcome counts as unknown.

        Raises:
            OutcomeUnknown: It broke, or another task closed this meanwhile.
            LadingError: The server's answer.
        """
        try:
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, self._address) from None
        except asyncio.CancelledError:
            # A channel that is closed ends its calls with the class that a cancellation of this task raises.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise OutcomeUnknown(
                f"The call to {self.target} was still open when the connection was closed here. Repeat the call."
            ) from None

    def stream(self, call: object) -> Stream[Request, Response]:
        """Wrap a streaming call that was just started."""
        return Stream(cast("_StreamCall[Request, Response]", call), self._address)

    async def close(self) -> None:
        """Close what this process opened. Another call opens it again."""
        opened, self._open = self._open, None
        if opened is not None and opened.pid == os.getpid():
            for channel in opened.channels:
                await channel.channel.close()
            if self._finalizer is not None:
                self._finalizer()

    def _channels(self) -> _Channels:
        if self._open is None or self._open.pid != os.getpid():
            self._open = _Channels(self._address, self._api_key, self._trust)
            # For those who let go of a transport without closing it.
            self._finalizer = weakref.finalize(self, self._open.forget)
            self._finalizer.atexit = False
        return self._open
