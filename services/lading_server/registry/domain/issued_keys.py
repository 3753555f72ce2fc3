"""Keys as their entity sees them: made, revoked and listed. The secret is shown when a key is made, and never again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lading_format.names import check_key_id, check_member
from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidRange
from lading_server.common.keys import ApiKey, new_key
from lading_server.common.registry_errors import KeyNotFound, RoleDenied, TextTooLong
from lading_server.common.roles import ENTITY_ROLES, Role, lesser
from lading_server.common.settings import Settings
from lading_server.registry.domain.members import Forget, member_not_found
from lading_server.registry.domain.named_pages import open_page
from lading_server.registry.domain.pages import Page, PageRequest
from lading_server.registry.store.keys import KeyRow
from lading_server.registry.store.store import RegistryStore

_MOST_TTL_DAYS = 3_650
_DAY_MS = 86_400_000
_NOTE_CHARACTERS = 256
# A key takes up to 1,300 bytes of an answer, most of them its note.
_MOST_KEYS = 2_000


class KeyRequest(NamedTuple):
    """What kind of key is wanted. An empty member is the caller; without a role it is what the member may.

    `ttl_days` of 0 is for ever.
    """

    member: str
    role: Role | None
    note: str
    ttl_days: int


@dataclass(frozen=True, slots=True)
class IssuedKeys:
    """The rules of keys. Inside the entity of the caller, who is a member at least, and has to do with its own keys.

    An admin has to do with those of all members.
    """

    settings: Settings
    store: RegistryStore
    forget: Forget

    async def create(self, caller: Caller, request: KeyRequest) -> tuple[KeyRow, ApiKey]:
        """Make a key; return it, and its secret, which is not kept.

        Raises:
            InvalidName, InvalidRange, TextTooLong: The request cannot be taken.
            MemberNotFound: The entity has no such member.
            RoleDenied: It is for somebody else, or for more than the caller may, who is no admin.
        """
        name = check_member(request.member or caller.principal)
        _check_own(caller, name, "make keys for others")
        if request.role is not None and not caller.may(request.role):
            raise RoleDenied(
                f"the caller's role is {caller.role}, and a key may have that at most; ask an admin",
                required=request.role.value,
                role=caller.role or "",
            )
        if request.ttl_days > _MOST_TTL_DAYS:
            raise InvalidRange(f"ttl_days is {request.ttl_days:,}; give at most {_MOST_TTL_DAYS:,}, or 0 for no end")
        note, key = _checked_note(request.note), new_key()
        async with self.store.change(caller) as change:
            member = await self.store.members.find(change.connection, change.entity_id, name)
            if member is None:
                raise member_not_found(name)
            role = request.role or lesser(member.role, caller.role or ENTITY_ROLES[-1])
            ends_ms = change.now_ms + request.ttl_days * _DAY_MS if request.ttl_days else None
            row = await self.store.keys.add(change, key, name, role, note=note, expires_at_ms=ends_ms)
        return row, key

    async def revoke(self, caller: Caller, key_id: str) -> KeyRow:
        """End a key; one that was revoked before stays so. Raises InvalidName, KeyNotFound."""
        check_key_id(key_id)
        async with self.store.change(caller) as change:
            row = await self.store.keys.find(change.connection, change.entity_id, key_id)
            if row is None or not _is_own(caller, row.principal):
                raise KeyNotFound(
                    f"the entity has no key {key_id}, or it is another member's; list those that you may revoke",
                    key_id=key_id,
                )
            if row.revoked_at_ms is None:
                row = await self.store.keys.revoke(change, row)
        self.forget([key_id])
        return row

    async def list(self, caller: Caller, member: str, page: PageRequest) -> Page[KeyRow]:
        """Return keys, sorted by id, revoked and expired ones too.

        Args:
            member: Only this member's; empty for all that the caller may see.

        Raises:
            InvalidName, InvalidPageSize, InvalidPageToken: The request cannot be taken.
            RoleDenied: They are somebody else's, and the caller is no admin.
        """
        name = check_member(member) if member else ""
        if not caller.may(Role.ADMIN):
            name = name or caller.principal
        if name:
            _check_own(caller, name, "see keys of others")
        scope = (caller.entity, "ListKeys", name)
        opened = open_page(page, scope, min(self.settings.max_page_size, _MOST_KEYS))
        entity_id = await self.store.entities.find(caller.entity)
        if entity_id is None:
            return Page([], "")
        async with self.store.database.read() as connection:
            rows = await self.store.keys.page(connection, entity_id, name, opened.after, opened.limit + 1)
        return opened.of(rows, lambda row: row.key_id)


def _is_own(caller: Caller, member: str) -> bool:
    return member == caller.principal or caller.may(Role.ADMIN)


def _check_own(caller: Caller, member: str, what: str) -> None:
    if not _is_own(caller, member):
        raise RoleDenied(
            f"only an admin of the entity may {what}; ask one", required=Role.ADMIN.value, role=caller.role or ""
        )


def _checked_note(note: str) -> str:
    if len(note) > _NOTE_CHARACTERS:
        raise TextTooLong(
            f"the note has {len(note):,} characters; give at most {_NOTE_CHARACTERS}", limit=_NOTE_CHARACTERS
        )
    # As in cards: databases do not keep NUL.
    return note.replace("\0", "\N{REPLACEMENT CHARACTER}")
