"""Between AccessService's messages and plain values. Total: tests/unit/lading/test_access_convert.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from lading._errors import Incompatible, InvalidArgument
from lading._registry.access_models import AliasRule, EntityInfo, Key, Limits, Member, MemberKind, NewKey, Role
from lading._registry.convert import known, moment
from lading_proto.registry.v1 import access_pb2

T = TypeVar("T")

ROLES: Mapping[int, Role] = {
    access_pb2.ROLE_VIEWER: Role.VIEWER,
    access_pb2.ROLE_MEMBER: Role.MEMBER,
    access_pb2.ROLE_ADMIN: Role.ADMIN,
}
MEMBER_KINDS: Mapping[int, MemberKind] = {
    access_pb2.MEMBER_KIND_USER: MemberKind.USER,
    access_pb2.MEMBER_KIND_SERVICE: MemberKind.SERVICE,
}


def role_to_proto(role: Role | str) -> access_pb2.Role.ValueType:
    """Return the number of a role. Raises InvalidArgument."""
    return access_pb2.Role.ValueType(_number(ROLES, role, "role"))


def member_kind_to_proto(kind: MemberKind | str) -> access_pb2.MemberKind.ValueType:
    """Return the number of what a member is. Raises InvalidArgument."""
    return access_pb2.MemberKind.ValueType(_number(MEMBER_KINDS, kind, "kind"))


def days_to_proto(days: int) -> int:
    """Return a number of days. Raises InvalidArgument where the protocol has no form for it."""
    if not 0 <= days < 1 << 32:
        raise InvalidArgument(f"{days} is no number of days. Give 0 for no end, or how many.")
    return days


def member(message: access_pb2.Member, entity: str) -> Member:
    """Return a member."""
    return Member(
        entity=entity,
        name=message.name,
        kind=known(MEMBER_KINDS, message.kind, "the kind of a member"),
        role=known(ROLES, message.role, "a role"),
        created_at=moment(message.created_at),
    )


def key(message: access_pb2.Key, entity: str) -> Key:
    """Return a key."""
    return Key(
        entity=entity,
        key_id=message.key_id,
        member=message.member,
        role=known(ROLES, message.role, "a role"),
        note=message.note,
        created_at=moment(message.created_at),
        expires_at=_moment_of(message, "expires_at"),
        revoked_at=_moment_of(message, "revoked_at"),
        last_used_at=_moment_of(message, "last_used_at"),
    )


def new_key(message: access_pb2.CreateKeyResponse, entity: str) -> NewKey:
    """Return a key with its secret."""
    made = key(message.key, entity)
    return NewKey(entity, made.key_id, made.member, made.role, made.expires_at, message.secret_key)


def first_key(secret_key: str, entity: str, admin: str) -> NewKey:
    """Return the key of a new entity's first admin. Raises Incompatible."""
    parts = secret_key.split("_", 2)
    if len(parts) != 3:
        raise Incompatible("The server sent a key that is none. Use a server and an SDK of the same release.")
    return NewKey(entity, parts[1], admin, Role.ADMIN, None, secret_key)


def alias_rule(message: access_pb2.AliasRule) -> AliasRule:
    """Return a rule for an alias."""
    return AliasRule(
        project=message.project,
        collection=message.collection,
        alias=message.alias,
        protected=message.protected,
        required_tags=tuple(message.required_tags),
        required_metadata=tuple(message.required_metadata),
    )


def entity_info(message: access_pb2.EntityInfo) -> EntityInfo:
    """Return a tenant."""
    return EntityInfo(
        name=message.name,
        created_at=moment(message.created_at),
        limits=_limits(message.limits),
        key_limits=_limits(message.key_limits),
    )


def _limits(message: access_pb2.Limits) -> Limits:
    return Limits(message.stored_bytes, message.streams, message.calls_per_second)


def _moment_of(message: access_pb2.Key, field: str) -> datetime | None:
    return moment(getattr(message, field)) if message.HasField(field) else None  # type: ignore[arg-type]


def _number(table: Mapping[int, T], value: T | str, what: str) -> int:
    for number, one in table.items():
        if one == value:
            return number
    raise InvalidArgument(f"{value!r} is no {what}. Take {', '.join(map(str, table.values()))}.")
