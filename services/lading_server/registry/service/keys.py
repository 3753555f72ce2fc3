"""The methods of KeyService. No rules here."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from lading_proto.registry.v1 import keys_pb2, keys_pb2_grpc
from lading_server.registry.domain.keys import Keys
from lading_server.registry.service.convert_access import limits_to_proto

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """Serves the keys of one registry."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def CheckKey(self, request: keys_pb2.CheckKeyRequest, context: Context) -> keys_pb2.CheckKeyResponse:
        grant = await self._keys.check(request.key_id, request.secret_hash)
        if grant is None:
            return keys_pb2.CheckKeyResponse()
        return keys_pb2.CheckKeyResponse(
            grant=keys_pb2.KeyGrant(
                principal=grant.principal,
                entity=grant.entity,
                role=grant.role.value,
                expires_at_ms=grant.expires_at_ms or 0,
                entity_limits=limits_to_proto(grant.limits.entity),
                key_limits=limits_to_proto(grant.limits.key),
            )
        )
