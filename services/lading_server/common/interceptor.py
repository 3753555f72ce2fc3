"""What every call goes through: drain, key, entity, the limit of streams, errors to statuses, one log line, metrics."""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import grpc

from lading_format.errors import ReasonedError
from lading_server.common.access import Access, check_entity_of
from lading_server.common.callers import ANYBODY, SERVICE, Principal, acting_for
from lading_server.common.calls import Call, MalformedMessage
from lading_server.common.database import told_to_callers
from lading_server.common.drain import Drain
from lading_server.common.errors import Draining, TooManyStreams
from lading_server.common.grpc_status import status_of
from lading_server.common.metrics import Metrics
from lading_server.common.open_streams import OpenStreams
from lading_server.common.rates import CallRates
from lading_server.common.registry_errors import KeyInvalid, RateLimited
from lading_server.common.roles import WHO_MAY_CALL, Required
from lading_server.common.tls import shows_certificate

# Health and reflection are asked while a server drains: that is when it matters. They are not counted or logged.
_ALWAYS_ANSWERED = ("/grpc.health.", "/grpc.reflection.")
# They need no key, and a watch of health lasts for as long as its client likes: without a limit of their own strangers
# could hold every call that the server may have open.
_MOST_KEYLESS_STREAMS = 64
# A client that is refused in mid-stream is read out so far, so that it sees the status. See `_read_out`.
_READ_OUT_BYTES = 64 << 20
_READ_OUT_IDLE_SECONDS = 5.0
# And for so long in all when it was not even admitted: a trickle of bytes must not hold what others need.
_READ_OUT_STRANGER_SECONDS = 5.0

# Whoever has too many streams or calls is not read out: that would take what the limit keeps for others.
_CHEAPLY_REFUSED = (TooManyStreams, RateLimited)

Behavior = Callable[[Any, Any], Any]
Request = TypeVar("Request")
Response = TypeVar("Response")


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler. Holds no rule about content, and no message.

    Bytes are counted where messages are decoded and encoded, so streams flow as if it were not there. A call's line is
    in the log before its status is sent, unless a handler aborts by itself.
    """

    def __init__(
        self,
        drain: Drain,
        metrics: Metrics,
        max_streams: int,
        access: Access,
        *,
        services_show_certificates: bool = False,
    ) -> None:
        """`services_show_certificates`: whether the other service has to, although clients need not."""
        self._services_show_certificates = services_show_certificates
        self._drain = drain
        self._access = access
        self._metrics = metrics
        self._rates = CallRates()
        self._streams = OpenStreams(max_streams, metrics.streams_open)
        self._keyless_streams = OpenStreams(_MOST_KEYLESS_STREAMS, lambda _open: None)
        self._open_calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def open_calls(self) -> int:
        """How many calls were admitted and have not ended."""
        return self._open_calls

    async def until_idle(self) -> None:
        """Return when no admitted call is open."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Request, Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Request, Response] | None:
        """Return the handler, wrapped for this one call."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or (method.startswith(_ALWAYS_ANSWERED) and WHO_MAY_CALL.get(method) is Required.ANYBODY):
            answered = handler if handler is None else self._always_answered(handler)
            return cast("grpc.RpcMethodHandler[Request, Response] | None", answered)
        call = Call(method, self._metrics)
        decode = call.decoding(handler.request_deserializer, is_stream=handler.request_streaming)
        encode = call.encoding(handler.response_serializer)
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                behavior = self._wrapped(call, _encoded(handler.unary_unary, encode))
                return grpc.unary_unary_rpc_method_handler(behavior, decode)
            case True, False:
                behavior = self._wrapped(call, _encoded(handler.stream_unary, encode), reads_stream=True)
                return grpc.stream_unary_rpc_method_handler(behavior, decode)
            case False, True:
                behavior = self._wrapped(call, _writing(handler.unary_stream), is_stream=True)
                return grpc.unary_stream_rpc_method_handler(behavior, decode, encode)
            case _:
                behavior = self._wrapped(call, _writing(handler.stream_stream), reads_stream=True)
                return grpc.stream_stream_rpc_method_handler(behavior, decode, encode)

    def _always_answered(self, handler: Any) -> Any:
        """Return a handler of health or reflection, with a limit where it answers a stream."""
        if not handler.response_streaming:
            return handler
        answer = _writing(handler.stream_stream if handler.request_streaming else handler.unary_stream)

        async def limited(request: Any, context: Any) -> None:
            try:
                with self._keyless_streams.one_more(ANYBODY):
                    await answer(request, context)
            except TooManyStreams as refusal:
                status = status_of(refusal)
                await context.abort(status.code, status.message, status.trailers)

        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(limited, handler.request_deserializer, handler.response_serializer)

    def _wrapped(
        self, call: Call, behavior: Behavior, *, is_stream: bool = False, reads_stream: bool = False
    ) -> Behavior:
        async def wrapped(request: Any, context: Any) -> Any:
            call.peer = context.peer()
            try:
                self._refuse_if_draining()
                # Before the call takes a place among the streams: those without a key must not keep others out.
                with told_to_callers():
                    principal = await self._access.admit(call.method, context.invocation_metadata() or ())
                self._check_certificate(principal, context)
                call.acted_for(principal)
                self._rates.take(principal)
                with self._admitted(principal, is_stream or reads_stream), acting_for(principal):
                    messages = _OfOneEntity(request, principal) if reads_stream else request
                    try:
                        return await _answer(behavior, messages, context, call, principal)
                    except ReasonedError as refusal:
                        # Telling it may take until the client reads, or is gone: grpc.aio queues the status behind
                        # what was written, and such a call keeps its place among the open streams until then.
                        await _refuse(context, call, refusal, request if reads_stream else None)
            except ReasonedError as refusal:
                is_worth_reading = reads_stream and not isinstance(refusal, _CHEAPLY_REFUSED)
                unread = request if is_worth_reading else None
                await _refuse(context, call, refusal, unread, _READ_OUT_STRANGER_SECONDS)
            except MalformedMessage:
                call.status = grpc.StatusCode.INVALID_ARGUMENT.name
                text = f"a message cannot be parsed as what {call.method} takes; compare the .proto files"
                call.ended()
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
            except (asyncio.CancelledError, grpc.aio.InternalError):
                # The client is gone: told by grpc, or found out by a read or a write.
                call.status = grpc.StatusCode.CANCELLED.name
                raise
            except grpc.aio.AbortError:
                call.status = context.code().name
                raise
            except Exception as unexpected:  # noqa: BLE001 - a status with an id that finds the traceback in the log
                call.status, call.error = grpc.StatusCode.INTERNAL.name, uuid.uuid4().hex
                text = (
                    f"the server made a mistake ({type(unexpected).__name__}); "
                    f"tell the operator the error id {call.error}"
                )
                call.ended(unexpected)
                await context.abort(grpc.StatusCode.INTERNAL, text)
            finally:
                call.ended()

        return wrapped

    def _check_certificate(self, principal: Principal, context: Any) -> None:
        """Raise KeyInvalid when the other service came without the certificate that it has to show."""
        if self._services_show_certificates and principal == SERVICE and not shows_certificate(context.auth_context()):
            raise KeyInvalid("a service has to show a certificate here; let it dial the --mutual-listen of this server")

    @contextmanager
    def _admitted(self, principal: Principal, is_stream: bool) -> Iterator[None]:
        """Count the call for as long as it lasts. Raises Draining, TooManyStreams."""
        self._refuse_if_draining()
        with self._streams.one_more(principal) if is_stream else nullcontext():
            self._count(1)
            try:
                yield
            finally:
                self._count(-1)

    def _refuse_if_draining(self) -> None:
        if self._drain.started:
            raise Draining("the server is about to stop; retry with backoff")

    def _count(self, change: int) -> None:
        self._open_calls += change
        if self._open_calls:
            self._idle.clear()
        else:
            self._idle.set()


class _OfOneEntity:
    """The messages of a stream, none of which names an entity that the caller's key is not for."""

    def __init__(self, messages: Any, principal: Principal) -> None:
        self._messages = messages
        self._principal = principal

    def __aiter__(self) -> _OfOneEntity:
        return self

    async def __anext__(self) -> Any:
        message = await anext(self._messages)
        check_entity_of(message, self._principal)
        return message


async def _answer(behavior: Behavior, request: Any, context: Any, call: Call, principal: Principal) -> Any:
    if isinstance(request, MalformedMessage):
        raise request
    check_entity_of(request, principal)
    with told_to_callers():
        response = await behavior(request, context)
    code = context.code()
    if code is not None:
        call.status = code.name
    return response


def _encoded(behavior: Behavior, encode: Callable[[Any], bytes]) -> Behavior:
    """Return a handler that answers in bytes: grpc would encode the one response when the call's line is written."""

    async def answer(request: Any, context: Any) -> bytes:
        return encode(await behavior(request, context))

    return answer


def _writing(behavior: Behavior) -> Behavior:
    """Return a coroutine function, whether the handler is one or yields what it answers."""
    if not inspect.isasyncgenfunction(behavior):
        return behavior

    async def write(request: Any, context: Any) -> None:
        async with aclosing(behavior(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return write


async def _refuse(
    context: Any, call: Call, error: ReasonedError, unread: Any, read_out_seconds: float | None = None
) -> None:
    """End the call with the error's status; `unread` is the stream that the client may still be writing to."""
    status = status_of(error)
    call.status, call.error = status.code.name, error.reason
    if unread is not None:
        await _read_out(unread, call, read_out_seconds)
    call.ended()
    await context.abort(status.code, status.message, status.trailers)


async def _read_out(messages: Any, call: Call, seconds: float | None) -> None:
    """Take and drop what the client still sends, within limits; for `seconds` in all, or as long as it goes on.

    grpc.aio can lose the status when a server ends a stream that the client is still writing to, and the client then
    sees INTERNAL or CANCELLED instead of what is wrong.
    """
    last_byte = call.received_bytes + _READ_OUT_BYTES
    try:
        async with asyncio.timeout(seconds):
            while call.received_bytes < last_byte:
                async with asyncio.timeout(_READ_OUT_IDLE_SECONDS):
                    await anext(messages)
    except (TimeoutError, StopAsyncIteration, MalformedMessage):
        return
