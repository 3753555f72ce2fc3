"""The method of AccessService about what entities may use: for the operator."""

from __future__ import annotations

from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from lading_server.registry.domain.access import AccessRules
from lading_server.registry.service.callers import Context, operator_of
from lading_server.registry.service.convert_access import entity_to_proto, limits_from_proto


class LimitsServicer(access_pb2_grpc.AccessServiceServicer):
    """Serves the limits of one registry's entities."""

    _access: AccessRules

    async def SetLimits(self, request: access_pb2.SetLimitsRequest, context: Context) -> access_pb2.SetLimitsResponse:
        entity, key = limits_from_proto(request, "limits"), limits_from_proto(request, "key_limits")
        tenant = await self._access.entity_limits.set(operator_of(context), request.name, entity, key)
        return access_pb2.SetLimitsResponse(entity=entity_to_proto(tenant))
