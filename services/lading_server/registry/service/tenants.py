"""The methods of AccessService about entities themselves: for the operator."""

from __future__ import annotations

from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from lading_server.registry.domain.access import AccessRules
from lading_server.registry.service.callers import Context, operator_of
from lading_server.registry.service.convert_access import entity_to_proto
from lading_server.registry.service.convert_lists import page_from_proto


class TenantsServicer(access_pb2_grpc.AccessServiceServicer):
    """Serves the entities of one registry."""

    _access: AccessRules

    async def CreateEntity(
        self, request: access_pb2.CreateEntityRequest, context: Context
    ) -> access_pb2.CreateEntityResponse:
        key = await self._access.tenants.create(operator_of(context), request.name, request.admin)
        return access_pb2.CreateEntityResponse(secret_key=key.text)

    async def ListEntities(
        self, request: access_pb2.ListEntitiesRequest, context: Context
    ) -> access_pb2.ListEntitiesResponse:
        page = await self._access.tenants.list(page_from_proto(request))
        return access_pb2.ListEntitiesResponse(
            entities=[entity_to_proto(row) for row in page.rows], next_page_token=page.token
        )
