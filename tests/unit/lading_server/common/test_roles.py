"""The table of roles: who may what, and that nothing that changes something is open to those who only read."""

from __future__ import annotations

import re

import pytest

from lading_server.common.registry_errors import RoleDenied
from lading_server.common.roles import ENTITY_ROLES, WHO_MAY_CALL, Required, Role, check_role, lesser, required_for

# The first word of an rpc that only tells.
_READS = {"Get", "List", "Diff", "Stat", "Read", "Search", "Simulate", "Explain"}


@pytest.mark.parametrize("role", ENTITY_ROLES)
def test_a_role_includes_itself_and_those_before_it(role: Role) -> None:
    included = {other for other in Role if role.includes(other)}
    assert included == set(ENTITY_ROLES[: ENTITY_ROLES.index(role) + 1])


def test_the_operator_is_apart() -> None:
    assert {role for role in Role if role.includes(Role.OPERATOR)} == {Role.OPERATOR}
    assert {role for role in Role if Role.OPERATOR.includes(role)} == {Role.OPERATOR}


@pytest.mark.parametrize("one", ENTITY_ROLES)
@pytest.mark.parametrize("other", ENTITY_ROLES)
def test_the_lesser_of_two_roles_is_included_in_both(one: Role, other: Role) -> None:
    assert lesser(one, other) in (one, other)
    assert one.includes(lesser(one, other))
    assert other.includes(lesser(one, other))


def test_each_kind_of_caller_is_allowed_what_its_name_says() -> None:
    allowed = {required: {role for role in Role if required.allows(role)} for required in Required}
    assert allowed == {
        Required.ANYBODY: set(Role),
        Required.KEY: set(Role),
        Required.VIEWER: {Role.VIEWER, Role.MEMBER, Role.ADMIN},
        Required.MEMBER: {Role.MEMBER, Role.ADMIN},
        Required.ADMIN: {Role.ADMIN},
        Required.OPERATOR: {Role.OPERATOR},
        Required.SERVICE: set(),
    }


def test_viewers_and_strangers_call_nothing_but_what_only_tells() -> None:
    for method, required in WHO_MAY_CALL.items():
        if method.startswith("/lading.") and required in (Required.ANYBODY, Required.KEY, Required.VIEWER):
            name = method.rpartition("/")[2]
            verb = re.match(r"[A-Z][a-z]+", name)
            assert verb is not None
            assert verb[0] in _READS or name == "WhoAmI", method


def test_an_rpc_that_is_not_in_the_table_is_nobodys() -> None:
    with pytest.raises(RoleDenied):
        required_for("/lading.registry.v1.RegistryService/Invented")
    with pytest.raises(RoleDenied):
        check_role("/lading.registry.v1.RegistryService/Invented", Role.ADMIN)
