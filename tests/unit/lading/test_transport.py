"""Channels that a fork leaves behind, and keys on every call."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

import lading
from lading._address import Address
from lading._transport import Transport


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


async def test_nobody_at_the_address_is_told_as_such() -> None:
    policy = lading.RetryPolicy(retry_seconds=0)
    async with lading.IngestClient("127.0.0.1:9", entity="acme", retry=policy) as client:
        with pytest.raises(lading.Unavailable, match=r"127\.0\.0\.1:9.*Is the server running"):
            await client.get_capabilities()
