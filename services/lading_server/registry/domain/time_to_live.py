"""Times to live: when a version goes by itself."""

from __future__ import annotations

from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidRange
from lading_server.common.registry_errors import RoleDenied
from lading_server.common.roles import Role
from lading_server.registry.store.change import Change
from lading_server.registry.store.retention_rules import find_rule
from lading_server.registry.store.rows import Expiry, VersionRow

MAX_TTL_SECONDS = 100 * 365 * 86_400
"""Longer than anybody plans for, and far from where milliseconds leave a column. retention.proto has it in words."""


def check_ttl(ttl_seconds: int | None) -> None:
    """Raise InvalidRange unless it is a time to live, or none."""
    if ttl_seconds is not None and not 0 <= ttl_seconds <= MAX_TTL_SECONDS:
        raise InvalidRange(
            f"ttl_seconds is {ttl_seconds:,} and at most {MAX_TTL_SECONDS:,}, a hundred years; give 0 for ever"
        )


def end_of(ttl_seconds: int, now_ms: int) -> int | None:
    """Return when a time to live that begins now is over, in milliseconds; None for never."""
    return now_ms + 1000 * ttl_seconds if ttl_seconds else None


def later(one: int | None, other: int | None) -> int | None:
    """Return the later of two ends; None is never, and so the latest."""
    return None if one is None or other is None else max(one, other)


def check_sooner(caller: Caller, row: VersionRow, expiry: Expiry | None) -> None:
    """Raise RoleDenied where a version would go sooner and the caller is no admin.

    To have a version go in a second is to delete it, which is for admins. Whoever may change it may have it stay
    longer.
    """
    if expiry is None or caller.may(Role.ADMIN) or later(expiry.at_ms, row.expires_at_ms) == expiry.at_ms:
        return
    raise RoleDenied(
        f"{row.name} would go sooner than now, which is for the role admin; ask one, or choose a longer time to live",
        required=Role.ADMIN.value,
        role="" if caller.role is None else caller.role.value,
    )


async def end_of_new(change: Change, project: str, collection: str, ttl_seconds: int | None) -> int | None:
    """Return when a version goes that is committed now. Asks for the rule only where the entity has rules.

    Args:
        ttl_seconds: What the commit asks for; None for what the rule of the collection says.
    """
    if ttl_seconds is None and change.has_retention_rules:
        rule = await find_rule(change.connection, change.entity_id, project, collection)
        ttl_seconds = rule.default_ttl_seconds if rule is not None else 0
    return end_of(ttl_seconds or 0, change.now_ms)
