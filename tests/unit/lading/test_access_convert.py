"""The tables between AccessService's messages and the SDK's values are total, and lose nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

import lading
from lading._registry import convert_access
from lading_proto.registry.v1 import access_pb2

TIMES = [Timestamp(seconds=1_700_000_000 + number) for number in range(4)]
MOMENTS = [datetime.fromtimestamp(1_700_000_000 + number, UTC) for number in range(4)]


@pytest.mark.parametrize(
    ("enum", "table", "values"),
    [
        (access_pb2.Role, convert_access.ROLES, lading.Role),
        (access_pb2.MemberKind, convert_access.MEMBER_KINDS, lading.MemberKind),
    ],
)
def test_every_value_of_every_enum_has_its_own(enum: Any, table: dict[int, Any], values: Any) -> None:
    assert table.keys() == set(enum.values()) - {0}
    assert set(table.values()) == set(values)


def _key() -> access_pb2.Key:
    return access_pb2.Key(
        key_id="abcdefghijkl",
        member="mia",
        role=access_pb2.ROLE_VIEWER,
        note="laptop",
        created_at=TIMES[0],
        expires_at=TIMES[1],
        revoked_at=TIMES[2],
        last_used_at=TIMES[3],
    )


def test_every_field_of_a_key_arrives() -> None:
    message = _key()
    assert len(message.ListFields()) == len(message.DESCRIPTOR.fields)
    key = convert_access.key(message, "acme")
    assert key == lading.Key("acme", "abcdefghijkl", "mia", lading.Role.VIEWER, "laptop", *MOMENTS)
    assert len(key.__slots__) - 1 == len(message.DESCRIPTOR.fields)
    for name in ("expires_at", "revoked_at", "last_used_at"):
        message.ClearField(name)
    assert convert_access.key(message, "acme") == lading.Key(
        "acme", "abcdefghijkl", "mia", lading.Role.VIEWER, "laptop", MOMENTS[0], None, None, None
    )


def test_every_field_of_a_member_and_an_entity_arrives() -> None:
    member = access_pb2.Member(
        name="mia", kind=access_pb2.MEMBER_KIND_SERVICE, role=access_pb2.ROLE_ADMIN, created_at=TIMES[0]
    )
    assert len(member.ListFields()) == len(member.DESCRIPTOR.fields)
    assert convert_access.member(member, "acme") == lading.Member(
        "acme", "mia", lading.MemberKind.SERVICE, lading.Role.ADMIN, MOMENTS[0]
    )
    entity = access_pb2.EntityInfo(
        name="acme",
        created_at=TIMES[0],
        limits=access_pb2.Limits(stored_bytes=1, streams=2, calls_per_second=3),
        key_limits=access_pb2.Limits(streams=5, calls_per_second=6),
    )
    assert len(entity.ListFields()) == len(entity.DESCRIPTOR.fields)
    assert convert_access.entity_info(entity) == lading.EntityInfo(
        "acme", MOMENTS[0], lading.Limits(1, 2, 3), lading.Limits(0, 5, 6)
    )


def test_every_field_of_an_alias_rule_arrives() -> None:
    rule = access_pb2.AliasRule(
        project="vision",
        collection="digits",
        alias="production",
        protected=True,
        required_tags=["approved", "tested"],
        required_metadata=["eval.accuracy"],
    )
    assert len(rule.ListFields()) == len(rule.DESCRIPTOR.fields)
    assert convert_access.alias_rule(rule) == lading.AliasRule(
        "vision", "digits", "production", True, ("approved", "tested"), ("eval.accuracy",)
    )


def test_a_secret_is_left_out_where_a_value_is_shown() -> None:
    secret = "lading_abcdefghijkl_" + "S" * 43
    made = convert_access.new_key(access_pb2.CreateKeyResponse(key=_key(), secret_key=secret), "acme")
    assert made.secret_key == secret
    first = convert_access.first_key(secret, "acme", "ann")
    assert (first.key_id, first.member, first.role) == ("abcdefghijkl", "ann", lading.Role.ADMIN)
    for shown in (repr(made), str(made), f"{first}", repr([first])):
        assert "SSS" not in shown
        assert "abcdefghijkl" in shown


def test_a_key_that_is_none_is_told_as_such() -> None:
    with pytest.raises(lading.Incompatible):
        convert_access.first_key("nonsense", "acme", "ann")


def test_words_for_roles_and_kinds_are_theirs_or_refused() -> None:
    assert convert_access.role_to_proto("admin") == convert_access.role_to_proto(lading.Role.ADMIN)
    with pytest.raises(lading.InvalidArgument, match="viewer, member, admin"):
        convert_access.role_to_proto("root")
    with pytest.raises(lading.InvalidArgument, match="user, service"):
        convert_access.member_kind_to_proto("robot")
    for days in (-1, 1 << 32):
        with pytest.raises(lading.InvalidArgument):
            convert_access.days_to_proto(days)


def test_a_role_from_the_future_is_told_as_such() -> None:
    with pytest.raises(lading.Incompatible, match="newer"):
        convert_access.member(access_pb2.Member(kind=access_pb2.MEMBER_KIND_USER, role=99), "acme")  # type: ignore[arg-type]
