"""What the services do by themselves, waited for: ingest comes to have the pins of what is kept, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc

from lading_proto.ingest.v1 import pins_pb2, pins_pb2_grpc
from tests.support.killable_pair import Pair
from tests.support.server_operator import bearer

# How long releases of pins may take.
PATIENCE_SECONDS = 120.0


async def check_pins(pair: Pair, uids: Mapping[str, str]) -> None:
    """Return when ingest has the pins of these versions and no other. Fails when that never comes."""
    held: dict[str, str] = {}
    async with grpc.aio.insecure_channel(pair.ingest_address) as channel:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while held != uids:
                    held = await _held_pins(channel, pair.service_key)
        except TimeoutError:
            raise AssertionError(
                f"pins without a version: {held.keys() - uids.keys()}, versions without: {uids.keys() - held.keys()}"
            ) from None


async def _held_pins(channel: Any, service_key: str) -> dict[str, str]:
    stub: Any = pins_pb2_grpc.PinServiceStub(channel)
    held: dict[str, str] = {}
    token = ""
    while True:
        request = pins_pb2.ListPinsRequest(entity="default", page_token=token)
        page = await stub.ListPins(request, metadata=bearer(service_key))
        held |= {pin.version_uid.hex(): pin.tree_digest for pin in page.pins}
        token = page.next_page_token
        if not token:
            return held
