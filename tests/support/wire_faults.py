"""What can happen to a call on its way: its answer gets lost, it comes twice, or it comes again much later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grpc

from lading_server.common.serving import Component


class Sent(NamedTuple):
    """A call that a client made, as it can be sent once more."""

    method: str
    request: bytes


class WireFaults:
    """Stands between the network and the handlers of a server.

    Attributes:
        sent: Every call with a request id that was answered.
        at_call: Called before each handler and after it, with the method's name.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.at_call: Callable[[str], object] = lambda _name: None
        self._lost: Counter[str] = Counter()
        self._twice: Counter[str] = Counter()

    def lose(self, *names: str) -> None:
        """Let the next answer of each of these methods get lost: it is done, and the client is told UNAVAILABLE."""
        self._lost.update(names)

    def repeat(self, *names: str) -> None:
        """Let the next call of each of these methods come twice; the client is told what the second one came to."""
        self._twice.update(names)

    def clear(self) -> None:
        """Take back what was not used."""
        self._lost.clear()
        self._twice.clear()

    async def answer(self, method: str, behavior: Callable[..., Awaitable[Any]], request: Any, context: Any) -> Any:
        """Have a call with one answer done."""
        name = method.rpartition("/")[2]
        self.at_call(name)
        response = await behavior(request, context)
        if getattr(request, "request_id", ""):
            self.sent.append(Sent(method, request.SerializeToString()))
            if self._twice[name] > 0:
                self._twice[name] -= 1
                response = await behavior(request, context)
        self.at_call(name)
        if self._lost[name] > 0:
            self._lost[name] -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        return response


class FaultyComponent:
    """A component whose calls go through a WireFaults."""

    def __init__(self, component: Component, faults: WireFaults) -> None:
        self._component = component
        self._faults = faults

    @property
    def service_names(self) -> Sequence[str]:
        """The names of the services of the component."""
        return self._component.service_names

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register its services, each handler wrapped."""
        tapped: Any = _Tapped(server, self._faults)
        self._component.add_to(tapped)


class _Tapped:
    """What a component takes for a server."""

    def __init__(self, server: grpc.aio.Server, faults: WireFaults) -> None:
        self._server = server
        self._faults = faults

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._server.add_generic_rpc_handlers(tuple(_Handlers(one, self._faults) for one in handlers))


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, inner: grpc.GenericRpcHandler, faults: WireFaults) -> None:
        self._inner = inner
        self._faults = faults

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler: Any = self._inner.service(handler_call_details)
        if handler is None or handler.response_streaming:
            return handler
        behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def answer(request: Any, context: Any) -> Any:
            return await self._faults.answer(handler_call_details.method, behavior, request, context)

        make = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(answer, handler.request_deserializer, handler.response_serializer)
