"""Channels that a fork leaves behind, and keys on every call."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

import lading
from lading._address import Address
from lading._transport import Transport
from lading_proto.registry.v1 import registry_pb2, registry_pb2_grpc


async def test_a_forked_child_is_told_that_its_parent_was_connected(
    forked: Callable[[Callable[[], None]], int],
) -> None:
    transport = Transport(Address("127.0.0.1", 9))
    assert transport.control is transport.control

    def child() -> None:
        # The same one, and a fresh one: both would hang, or crash.
        for mine in (transport, Transport(Address("127.0.0.1", 9))):
            with pytest.raises(lading.FailedPrecondition, match="spawn"):
                mine.control  # noqa: B018

    assert forked(child) == 0
    await transport.close()
    assert transport.control is not None
    await transport.close()


async def test_a_forked_child_does_not_destroy_what_its_parent_let_go_of(
    forked: Callable[[Callable[[], None]], int],
) -> None:
    transport = Transport(Address("127.0.0.1", 9))
    garbage: list[object] = [transport.control]
    garbage.append(garbage)
    gc.disable()
    try:
        await transport.close()
        del garbage, transport
        # Without help this never ends: the destructor joins a thread that the fork did not copy.
        assert forked(lambda: print(gc.collect())) == 0
    finally:
        gc.enable()
    assert gc.get_freeze_count() == 0
    assert gc.collect() > 0


class Slow(registry_pb2_grpc.RegistryServiceServicer):
    """Answers when it is told to, and knows how many wait for it."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self._called = asyncio.Semaphore(0)

    async def WhoAmI(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Wait."""
        self._called.release()
        await self.answers.wait()
        return registry_pb2.WhoAmIResponse(principal="admin", entity="acme")

    async def until_called(self) -> None:
        """Wait for one more call."""
        async with asyncio.timeout(60):
            await self._called.acquire()


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Slow, Transport]]:
    """A server and the way to it."""
    servicer = Slow()  # type: ignore[abstract]  # the other methods answer UNIMPLEMENTED
    server = grpc.aio.server()
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    transport = Transport(Address("127.0.0.1", port))
    try:
        yield servicer, transport
    finally:
        await transport.close()
        await server.stop(None)


async def test_a_call_that_another_task_closes_the_channel_under_is_repeated(slow: tuple[Slow, Transport]) -> None:
    servicer, transport = slow
    request = registry_pb2.WhoAmIRequest()
    call = asyncio.create_task(transport.call(transport.registry.WhoAmI, request))
    repeated = asyncio.create_task(
        lading.RetryPolicy().call(lambda: transport.call(transport.registry.WhoAmI, request))
    )
    for _ in range(2):
        await servicer.until_called()
    await transport.close()
    with pytest.raises(lading.OutcomeUnknown, match="Repeat the call"):
        await call
    await servicer.until_called()
    servicer.answers.set()
    assert (await repeated).principal == "admin"


async def test_a_call_whose_task_is_cancelled_is_cancelled(slow: tuple[Slow, Transport]) -> None:
    servicer, transport = slow
    call = asyncio.create_task(transport.call(transport.registry.WhoAmI, registry_pb2.WhoAmIRequest()))
    await servicer.until_called()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await transport.call(transport.registry.WhoAmI, registry_pb2.WhoAmIRequest())


async def test_nobody_at_the_address_is_told_as_such() -> None:
    policy = lading.RetryPolicy(retry_seconds=0)
    async with lading.IngestClient("127.0.0.1:9", entity="acme", retry=policy) as client:
        with pytest.raises(lading.Unavailable, match=r"127\.0\.0\.1:9.*Is the server running"):
            await client.get_capabilities()
