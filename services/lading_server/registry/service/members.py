"""The methods of AccessService about members and their keys."""

from __future__ import annotations

from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from lading_server.registry.domain.access import AccessRules
from lading_server.registry.service.callers import Context, caller_of
from lading_server.registry.service.convert_access import (
    key_request_from_proto,
    key_to_proto,
    kind_from_proto,
    member_to_proto,
    role_from_proto,
)
from lading_server.registry.service.convert_lists import page_from_proto


class MembersServicer(access_pb2_grpc.AccessServiceServicer):
    """Serves the members of one registry."""

    _access: AccessRules

    async def AddMember(self, request: access_pb2.AddMemberRequest, context: Context) -> access_pb2.AddMemberResponse:
        caller = caller_of(request.entity, context)
        kind, role = kind_from_proto(request.kind), role_from_proto(request.role)
        row = await self._access.members.add(caller, request.name, kind, role)
        return access_pb2.AddMemberResponse(member=member_to_proto(row))

    async def RemoveMember(
        self, request: access_pb2.RemoveMemberRequest, context: Context
    ) -> access_pb2.RemoveMemberResponse:
        await self._access.members.remove(caller_of(request.entity, context), request.name)
        return access_pb2.RemoveMemberResponse()

    async def ListMembers(
        self, request: access_pb2.ListMembersRequest, context: Context
    ) -> access_pb2.ListMembersResponse:
        page = await self._access.members.list(caller_of(request.entity, context), page_from_proto(request))
        return access_pb2.ListMembersResponse(
            members=[member_to_proto(row) for row in page.rows], next_page_token=page.token
        )

    async def CreateKey(self, request: access_pb2.CreateKeyRequest, context: Context) -> access_pb2.CreateKeyResponse:
        caller = caller_of(request.entity, context)
        row, key = await self._access.issued_keys.create(caller, key_request_from_proto(request))
        return access_pb2.CreateKeyResponse(key=key_to_proto(row), secret_key=key.text)

    async def RevokeKey(self, request: access_pb2.RevokeKeyRequest, context: Context) -> access_pb2.RevokeKeyResponse:
        row = await self._access.issued_keys.revoke(caller_of(request.entity, context), request.key_id)
        return access_pb2.RevokeKeyResponse(key=key_to_proto(row))

    async def ListKeys(self, request: access_pb2.ListKeysRequest, context: Context) -> access_pb2.ListKeysResponse:
        caller = caller_of(request.entity, context)
        page = await self._access.issued_keys.list(caller, request.member, page_from_proto(request))
        return access_pb2.ListKeysResponse(keys=[key_to_proto(row) for row in page.rows], next_page_token=page.token)
