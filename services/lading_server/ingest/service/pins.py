"""The methods of PinService: each names its rule and converts. No rules here."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lading_format.digest import parse_digest
from lading_proto.ingest.v1 import pins_pb2, pins_pb2_grpc
from lading_server.ingest.domain.entities import check_entity
from lading_server.ingest.domain.pins import Pins
from lading_server.ingest.service import convert

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class PinServicer(pins_pb2_grpc.PinServiceServicer):
    """Serves the pins of one Ingest."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins

    async def AcquirePin(self, request: pins_pb2.AcquirePinRequest, context: Context) -> pins_pb2.AcquirePinResponse:
        entity, tree_digest = check_entity(request.entity), parse_digest(request.tree_digest)
        totals = await self._pins.acquire(entity, request.version_uid, tree_digest)
        return pins_pb2.AcquirePinResponse(tree=convert.totals_to_proto(totals))

    async def ReleasePin(self, request: pins_pb2.ReleasePinRequest, context: Context) -> pins_pb2.ReleasePinResponse:
        await self._pins.release(check_entity(request.entity), request.version_uid)
        return pins_pb2.ReleasePinResponse()

    async def ListPins(self, request: pins_pb2.ListPinsRequest, context: Context) -> pins_pb2.ListPinsResponse:
        pins, token = await self._pins.list_page(check_entity(request.entity), request.page_size, request.page_token)
        return convert.pins_to_proto(pins, token)
