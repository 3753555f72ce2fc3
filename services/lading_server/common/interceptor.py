"""What every call goes through: drain, the limit of streams, errors to statuses, one log line, metrics."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc

from lading_format.errors import ReasonedError
from lading_server.common.drain import Drain
from lading_server.common.errors import Draining, TooManyStreams
from lading_server.common.grpc_status import status_of
from lading_server.common.logs import FIELDS
from lading_server.common.metrics import Metrics

_log = logging.getLogger("lading.calls")

# Health and reflection are asked while a server drains: that is when it matters.
_ALWAYS_ANSWERED = ("/grpc.health.", "/grpc.reflection.")
# A client that is refused in mid-stream is read out so far, so that it sees the status. See `_read_out`.
_READ_OUT_BYTES = 64 << 20
_READ_OUT_IDLE_SECONDS = 5.0


@dataclass(slots=True)
class _Call:
    """What is known of one call when it ends."""

    method: str
    peer: str
    began: float
    entity: str = ""
    received_bytes: int = 0
    sent_bytes: int = 0
    status: str = "OK"
    error: str = ""
    is_logged: bool = False

    def saw_request(self, message: Any) -> None:
        self.received_bytes += message.ByteSize()
        if not self.entity:
            start = getattr(message, "start", None)
            self.entity = str(getattr(message, "entity", "") or getattr(start, "entity", ""))[:64]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler. Holds no rule about content."""

    def __init__(self, drain: Drain, metrics: Metrics, max_streams: int) -> None:
        self._drain = drain
        self._metrics = metrics
        self._max_streams = max_streams
        self._open_streams = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Return the handler, wrapped."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_ALWAYS_ANSWERED):
            return handler
        return self._wrapped(method, handler)

    def _wrapped(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if not handler.request_streaming and not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **coders)
        if not handler.request_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), **coders)
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(self._collecting(method, handler.stream_unary), **coders)
        return grpc.stream_stream_rpc_method_handler(self._streaming(method, handler.stream_stream), **coders)

    def _unary(self, method: str, behavior: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            return await self._run(method, context, request, behavior, is_stream=False)

        return call

    def _collecting(self, method: str, behavior: Any) -> Any:
        async def call(requests: Any, context: Any) -> Any:
            return await self._run(method, context, requests, behavior, is_stream=True)

        return call

    def _streaming(self, method: str, behavior: Any) -> Any:
        async def call(request: Any, context: Any) -> None:
            await self._run(method, context, request, behavior, is_stream=True)

        return call

    async def _run(self, method: str, context: Any, request: Any, behavior: Any, *, is_stream: bool) -> Any:
        call = _Call(method, context.peer(), time.monotonic())
        self._open_streams += is_stream
        self._metrics.streams_open(self._open_streams)
        incoming = request
        if hasattr(request, "__aiter__"):
            incoming = _counted(request, call)
        else:
            call.saw_request(request)
        try:
            self._admit(is_stream)
            response = await behavior(incoming, _CountingContext(context, call))
            if response is not None:
                call.sent_bytes += response.ByteSize()
            return response
        except ReasonedError as error:
            if hasattr(request, "__aiter__") and not isinstance(error, TooManyStreams):
                await _read_out(request)
            await self._abort(context, call, error)
        except asyncio.CancelledError:
            call.status = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            call.status = str(context.code())
            raise
        except Exception as error:  # noqa: BLE001 - becomes a status with an id that finds the traceback
            error_id = uuid.uuid4().hex
            call.status, call.error = "INTERNAL", error_id
            _log.exception("call failed unexpectedly, error id %s", error_id, extra={FIELDS: {"method": method}})
            text = f"the server made a mistake ({type(error).__name__}); tell the operator the error id {error_id}"
            await context.abort(grpc.StatusCode.INTERNAL, text)
        finally:
            self._open_streams -= is_stream
            self._metrics.streams_open(self._open_streams)
            self._ended(call)

    def _admit(self, is_stream: bool) -> None:
        if self._drain.started:
            raise Draining("the server is about to stop; retry with backoff")
        if is_stream and self._open_streams > self._max_streams:
            raise TooManyStreams(
                f"{self._max_streams} streams are open, which is the limit; retry with backoff", limit=self._max_streams
            )

    async def _abort(self, context: Any, call: _Call, error: ReasonedError) -> None:
        status = status_of(error)
        call.status, call.error = status.code.name, error.reason
        # The outcome is known now. Telling it may take until the client reads, or is gone: grpc.aio queues the status
        # behind what was written, and such a call keeps its place among the open streams until then.
        self._ended(call)
        await context.abort(status.code, status.message, status.trailers)

    def _ended(self, call: _Call) -> None:
        if call.is_logged:
            return
        call.is_logged = True
        seconds = time.monotonic() - call.began
        self._metrics.call_ended(call.method, call.status, seconds, call.received_bytes, call.sent_bytes)
        fields = {
            "method": call.method,
            "caller": call.peer,
            "entity": call.entity,
            "status": call.status,
            "milliseconds": round(seconds * 1000, 3),
            "received_bytes": call.received_bytes,
            "sent_bytes": call.sent_bytes,
        }
        if call.error:
            fields["error"] = call.error
        _log.info("call", extra={FIELDS: fields})


class _CountingContext:
    """A servicer context that counts what is sent, and is otherwise the one that it wraps."""

    def __init__(self, context: Any, call: _Call) -> None:
        self._context = context
        self._call = call

    async def write(self, message: Any) -> None:
        self._call.sent_bytes += message.ByteSize()
        await self._context.write(message)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _counted(messages: Any, call: _Call) -> AsyncIterator[Any]:
    async for message in messages:
        call.saw_request(message)
        yield message


async def _read_out(messages: Any) -> None:
    """Take and drop what the client still sends, within limits.

    grpc.aio can lose the status when a server ends a stream that the client is still writing to, and the client then
    sees CANCELLED or UNKNOWN instead of what is wrong.
    """
    left_bytes = _READ_OUT_BYTES
    try:
        while left_bytes > 0:
            async with asyncio.timeout(_READ_OUT_IDLE_SECONDS):
                message = cast(Any, await anext(messages, None))
            if message is None:
                return
            left_bytes -= message.ByteSize()
    except (TimeoutError, grpc.RpcError):
        return
