"""Between the messages of AccessService and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lading_format.errors import InvalidName
from lading_proto.registry.v1 import access_pb2
from lading_server.common.allowances import Allowance
from lading_server.common.roles import Role
from lading_server.registry.domain.entity_limits import Tenant
from lading_server.registry.domain.issued_keys import KeyRequest
from lading_server.registry.service.convert import timestamp_to_proto
from lading_server.registry.store.keys import KeyRow
from lading_server.registry.store.members import MemberRow
from lading_server.registry.store.schema import MemberKind

ROLES: Mapping[Role, access_pb2.Role.ValueType] = {
    Role.VIEWER: access_pb2.ROLE_VIEWER,
    Role.MEMBER: access_pb2.ROLE_MEMBER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
}
KINDS: Mapping[MemberKind, access_pb2.MemberKind.ValueType] = {
    MemberKind.USER: access_pb2.MEMBER_KIND_USER,
    MemberKind.SERVICE: access_pb2.MEMBER_KIND_SERVICE,
}
_ROLES_BY_NUMBER = {number: role for role, number in ROLES.items()}
_KINDS_BY_NUMBER = {number: kind for kind, number in KINDS.items()} | {
    access_pb2.MEMBER_KIND_UNSPECIFIED: MemberKind.USER
}


def role_from_proto(number: access_pb2.Role.ValueType) -> Role:
    """Return a role. Raises InvalidName when it is unspecified, or of a newer protocol."""
    role = _ROLES_BY_NUMBER.get(number)
    if role is None:
        raise InvalidName(f"role {number} is none; give {', '.join(_names())}", field="role")
    return role


def kind_from_proto(number: access_pb2.MemberKind.ValueType) -> MemberKind:
    """Return what a member is. Raises InvalidName."""
    kind = _KINDS_BY_NUMBER.get(number)
    if kind is None:
        raise InvalidName(f"kind {number} is none; give MEMBER_KIND_USER or MEMBER_KIND_SERVICE", field="kind")
    return kind


def key_request_from_proto(request: access_pb2.CreateKeyRequest) -> KeyRequest:
    """Return what kind of key is wanted. Raises InvalidName."""
    return KeyRequest(
        member=request.member,
        role=None if request.role == access_pb2.ROLE_UNSPECIFIED else role_from_proto(request.role),
        note=request.note,
        ttl_days=request.ttl_days,
    )


def member_to_proto(row: MemberRow) -> access_pb2.Member:
    """Return a member as callers see it."""
    return access_pb2.Member(
        name=row.name, kind=KINDS[row.kind], role=ROLES[row.role], created_at=timestamp_to_proto(row.created_at_ms)
    )


def key_to_proto(row: KeyRow) -> access_pb2.Key:
    """Return a key as callers see it: without its secret."""
    message = access_pb2.Key(
        key_id=row.key_id,
        member=row.principal,
        role=ROLES[row.role],
        note=row.note,
        created_at=timestamp_to_proto(row.created_at_ms),
    )
    for field, time_ms in (
        (message.expires_at, row.expires_at_ms),
        (message.revoked_at, row.revoked_at_ms),
        (message.last_used_at, row.last_used_at_ms),
    ):
        if time_ms is not None:
            field.CopyFrom(timestamp_to_proto(time_ms))
    return message


def entity_to_proto(tenant: Tenant) -> access_pb2.EntityInfo:
    """Return an entity as the operator sees it."""
    return access_pb2.EntityInfo(
        name=tenant.name,
        created_at=timestamp_to_proto(tenant.created_at_ms),
        limits=limits_to_proto(tenant.limits.entity),
        key_limits=limits_to_proto(tenant.limits.key),
    )


def limits_to_proto(allowance: Allowance) -> access_pb2.Limits:
    """Return limits as callers see them."""
    stored_bytes, streams, calls_per_second = allowance
    return access_pb2.Limits(stored_bytes=stored_bytes, streams=streams, calls_per_second=calls_per_second)


def limits_from_proto(request: access_pb2.SetLimitsRequest, field: Literal["limits", "key_limits"]) -> Allowance | None:
    """Return the limits that a request has in a field; None where they are to be left."""
    if not request.HasField(field):
        return None
    limits: access_pb2.Limits = getattr(request, field)
    return Allowance(limits.stored_bytes, limits.streams, limits.calls_per_second)


def _names() -> list[str]:
    return [access_pb2.Role.Name(number) for number in ROLES.values()]
