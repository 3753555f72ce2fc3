"""What calls about members, keys, alias rules and tenants take and return: plain values that know no protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What a member or a key may do in an entity: each what those before it may, and more.

    A viewer reads. A member also logs, links and sets aliases that are not protected. An admin also sets protected
    aliases, deletes, and manages members, keys and rules.
    """

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


class MemberKind(StrEnum):
    """What a member is: a person, or a program."""

    USER = "user"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody with a role in an entity.

    Attributes:
        entity: The tenant.
        name: What events and versions call the member.
        kind: A person or a program.
        role: What the member may do.
        created_at: When the member was added.
    """

    entity: str
    name: str
    kind: MemberKind
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret.

    Attributes:
        entity: The tenant that it is for.
        key_id: Names it; may be seen in logs.
        member: Whose it is.
        role: What it may do at most; where its member may less, that counts.
        note: What it is for.
        created_at: When it was made.
        expires_at: When it stops working; None for never.
        revoked_at: When it was revoked; None when it was not.
        last_used_at: When it was last used, to about a minute; None for never.
    """

    entity: str
    key_id: str
    member: str
    role: Role
    note: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, with its secret: the only time that it is shown.

    Attributes:
        entity: The tenant that it is for.
        key_id: Names it; may be seen in logs.
        member: Whose it is.
        role: What it may do at most.
        expires_at: When it stops working; None for never.
        secret_key: What callers give as `api_key`. Left out where the value is printed or logged.
    """

    entity: str
    key_id: str
    member: str
    role: Role
    expires_at: datetime | None
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AliasRule:
    """Who may set, move and remove an alias, and to what it may point.

    Rules for an alias add up: one of a collection does not weaken one of its project.

    Attributes:
        project: The project that it counts in.
        collection: The collection that it counts in; empty for all of the project.
        alias: The alias: `production`.
        protected: Only admins may set, move or remove it.
        required_tags: Tags that a version has before the alias may point at it. Of a link its source's count too.
        required_metadata: Metadata keys that it has, with dots for what is nested, and a value other than null.
    """

    project: str
    collection: str
    alias: str
    protected: bool
    required_tags: tuple[str, ...]
    required_metadata: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an entity, or each key of it, may use; 0 is no limit.

    Attributes:
        stored_bytes: Bytes that are stored, after deduplication. Not for keys.
        streams: Streaming calls open at once.
        calls_per_second: Calls a second, with bursts of twice as many.
    """

    stored_bytes: int = 0
    streams: int = 0
    calls_per_second: int = 0


@dataclass(frozen=True, slots=True)
class EntityInfo:
    """What an operator may know of a tenant.

    Attributes:
        name: Its name.
        created_at: When it was made.
        limits: Of the whole entity.
        key_limits: Of each of its keys.
    """

    name: str
    created_at: datetime
    limits: Limits
    key_limits: Limits
