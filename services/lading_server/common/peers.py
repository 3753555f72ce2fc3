"""Calls from one of the two services to the other: deadlines, repetitions, and errors back from the wire.

Only calls that may be repeated go this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lading_server.common.grpc_status import DETAILS_KEY, DOMAIN
from lading_server.common.tls import Certificates

# Between the attempts while the other service does not answer: a restart takes a few seconds.
_BACKOFF_SECONDS = (0.1, 0.3, 1.0, 2.0)
# The outcome is unknown, or there was none.
_REPEATED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
_OPTIONS = [
    # A process that was just started is found soon, and one that hangs is noticed.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.use_local_subchannel_pool", 1),
    # The two services speak with each other, whatever proxy this process finds in its environment.
    ("grpc.enable_http_proxy", 0),
]
# Longer than any call between the services: those that are open on a channel that was replaced end by themselves.
_REPLACED_SECONDS = 300.0


class Refusal(NamedTuple):
    """What a failed call said: the reason of its ErrorInfo, or "" where it has none."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]


class PeerFailed(Exception):
    """The other service refused the call, or did not answer in spite of repetitions."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code.name}: {refusal.message}")
        self.refusal = refusal


class _Redialed:
    """A channel, as far as stubs of unary methods need one, whose certificates can be replaced under open calls."""

    def __init__(self, target: str, certificates: Certificates | None) -> None:
        self._target = target
        self._certificates = certificates
        self._channel = self._dial()
        self._closing: set[asyncio.Task[None]] = set()
        if certificates is not None:
            certificates.watch_peer(self._redial)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See grpc.aio.Channel.unary_unary. Each call goes over the channel that is the current one when it begins."""

        def call(request: Any, **options: Any) -> Any:
            return self._channel.unary_unary(method, *args, **kwargs)(request, **options)

        return call

    async def close(self) -> None:
        """Close the channel, and those that it took the place of."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close()

    def _dial(self) -> grpc.aio.Channel:
        credentials = self._certificates.peer_credentials() if self._certificates is not None else None
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options=_OPTIONS)
        return grpc.aio.secure_channel(self._target, credentials, options=_OPTIONS)

    def _redial(self) -> None:
        replaced, self._channel = self._channel, self._dial()
        task = asyncio.get_running_loop().create_task(replaced.close(_REPLACED_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class Peer:
    """A channel to the other service, with the service key."""

    def __init__(self, channel: Any, service_key: str) -> None:
        """`channel` is a `grpc.aio.Channel`, or what stubs take for one."""
        self.channel = channel
        self._metadata = (("authorization", f"Bearer {service_key}"),)

    async def ask(self, method: Any, request: Any, seconds: float) -> Any:
        """Call a unary method; repeat it while the other service does not answer.

        Args:
            method: Of a stub over `channel`.
            seconds: The deadline of each attempt. One that runs into it is not repeated.

        Raises:
            PeerFailed: No attempt was answered, or one was refused.
        """
        for pause_seconds in (*_BACKOFF_SECONDS, None):
            try:
                return await method(request, timeout=seconds, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                refusal = _refusal(error)
                if refusal.code not in _REPEATED or pause_seconds is None:
                    raise PeerFailed(refusal) from error
            await asyncio.sleep(pause_seconds)
        raise AssertionError("the last attempt returns or raises")


@asynccontextmanager
async def dialed(target: str, service_key: str, certificates: Certificates | None = None) -> AsyncIterator[Peer]:
    """Give a peer for the length of the block. Nothing is connected before the first call.

    Args:
        certificates: Whom to trust and what to show; the channel follows when they are read again. Without any for
            the other service, the channel has no TLS.
    """
    channel = _Redialed(target, certificates)
    try:
        yield Peer(channel, service_key)
    finally:
        await channel.close()


def _refusal(error: grpc.aio.AioRpcError) -> Refusal:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info) and info.domain == DOMAIN:
                    return Refusal(error.code(), info.reason, error.details() or "", dict(info.metadata))
    return Refusal(error.code(), "", error.details() or "", {})
