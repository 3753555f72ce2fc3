"""Members, their keys and tenants, on each database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash
from lading_format.errors import InvalidName
from lading_server.common.callers import Caller
from lading_server.common.errors import InvalidEntity, InvalidPageToken, InvalidRange
from lading_server.common.keys import ApiKey
from lading_server.common.registry_errors import (
    EntityExists,
    KeyNotFound,
    LastAdmin,
    MemberNotFound,
    RoleDenied,
    TextTooLong,
)
from lading_server.common.roles import Role
from lading_server.common.settings import Settings
from lading_server.registry.domain.access import AccessRules, run_access
from lading_server.registry.domain.issued_keys import KeyRequest
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.store.schema import MemberKind, api_keys, entities, events
from lading_server.registry.store.store import RegistryStore
from tests.support.index import DATABASES, FakeClock, database_url

OPERATOR = Caller("", "operator", "ipv4:192.0.2.1:5", Role.OPERATOR)
ROOT = Caller("acme", "root", "ipv4:192.0.2.2:5", Role.ADMIN)
MIA = Caller("acme", "mia", "", Role.MEMBER)
VIC = Caller("acme", "vic", "", Role.VIEWER)
ALL = PageRequest(0, "")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=DATABASES)
async def access(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[AccessRules]:
    """An entity with an admin, a member and a viewer."""
    async with database_url(request.param, tmp_path) as url:
        store = await RegistryStore.open(url, clock=clock)
        try:
            async with run_access(Settings(), store) as rules:
                await rules.tenants.create(OPERATOR, "acme", "root")
                await rules.members.add(ROOT, "mia", MemberKind.USER, Role.MEMBER)
                await rules.members.add(ROOT, "vic", MemberKind.SERVICE, Role.VIEWER)
                yield rules
        finally:
            await store.close()


async def make(
    access: AccessRules, caller: Caller, member: str = "", role: Role | None = None, note: str = "", ttl_days: int = 0
) -> ApiKey:
    _, key = await access.issued_keys.create(caller, KeyRequest(member, role, note, ttl_days))
    return key


async def role_of(access: AccessRules, key: ApiKey) -> Role | None:
    """What a call with the key may do in this process."""
    grant = await access.remembered.check(key.key_id, key.secret_hash)
    return None if grant is None else grant.role


async def told(access: AccessRules) -> list[Any]:
    async with access.store.database.read() as connection:
        return list((await connection.execute(sa.select(events).order_by(events.c.revision))).all())


# --- tenants ---


async def test_a_tenant_has_an_admin_with_a_key(access: AccessRules) -> None:
    key = await access.tenants.create(OPERATOR, "umbrella", "ann")
    grant = await access.keys.check(key.key_id, key.secret_hash)
    assert grant is not None
    assert (grant.principal, grant.entity, grant.role) == ("ann", "umbrella", Role.ADMIN)
    assert [row.name for row in (await access.tenants.list(ALL)).rows] == ["acme", "umbrella"]


async def test_there_is_one_tenant_of_a_name(access: AccessRules) -> None:
    with pytest.raises(EntityExists):
        await access.tenants.create(OPERATOR, "acme", "eve")
    made = await asyncio.gather(
        *(access.tenants.create(OPERATOR, "umbrella", f"admin-{number}") for number in range(5)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["ApiKey", *["EntityExists"] * 4]
    page = await access.members.list(ROOT._replace(entity="umbrella"), ALL)
    assert len(page.rows) == 1


async def test_what_was_stored_without_keys_becomes_the_new_tenants(access: AccessRules) -> None:
    await access.store.entities.ensure("early", access.store.now_ms())
    key = await access.tenants.create(OPERATOR, "early", "ann")
    assert await role_of(access, key) is Role.ADMIN


@pytest.mark.parametrize(("name", "admin"), [("", "ann"), ("Not A Name", "ann"), ("new", ""), ("new", "a b")])
async def test_a_tenant_needs_names(access: AccessRules, name: str, admin: str) -> None:
    with pytest.raises((InvalidEntity, InvalidName)):
        await access.tenants.create(OPERATOR, name, admin)
    assert [row.name for row in (await access.tenants.list(ALL)).rows] == ["acme"]


# --- members ---


async def test_members_are_listed_by_name_and_by_pages(access: AccessRules) -> None:
    first = await access.members.list(ROOT, PageRequest(2, ""))
    rest = await access.members.list(ROOT, PageRequest(2, first.token))
    assert [(row.name, row.kind, row.role) for row in (*first.rows, *rest.rows)] == [
        ("mia", MemberKind.USER, Role.MEMBER),
        ("root", MemberKind.USER, Role.ADMIN),
        ("vic", MemberKind.SERVICE, Role.VIEWER),
    ]
    assert rest.token == ""
    with pytest.raises(InvalidPageToken):
        await access.members.list(ROOT._replace(entity="umbrella"), PageRequest(2, first.token))


async def test_another_role_counts_at_once_for_keys_that_are_remembered(access: AccessRules) -> None:
    key = await make(access, ROOT, "mia", Role.ADMIN)
    assert await role_of(access, key) is Role.MEMBER
    await access.members.add(ROOT, "mia", MemberKind.USER, Role.VIEWER)
    assert await role_of(access, key) is Role.VIEWER
    await access.members.add(ROOT, "mia", MemberKind.USER, Role.ADMIN)
    assert await role_of(access, key) is Role.ADMIN


async def test_adding_a_member_twice_makes_one_event(access: AccessRules) -> None:
    before = len(await told(access))
    row = await access.members.add(ROOT, "mia", MemberKind.USER, Role.MEMBER)
    assert row.role is Role.MEMBER
    assert len(await told(access)) == before


async def test_the_keys_of_a_removed_member_end_at_once_and_for_good(access: AccessRules) -> None:
    keys = [await make(access, MIA), await make(access, ROOT, "mia", Role.VIEWER)]
    assert [await role_of(access, key) for key in keys] == [Role.MEMBER, Role.VIEWER]
    await access.members.remove(ROOT, "mia")
    assert [await role_of(access, key) for key in keys] == [None, None]
    await access.members.add(ROOT, "mia", MemberKind.USER, Role.ADMIN)
    assert [await role_of(access, key) for key in keys] == [None, None]
    with pytest.raises(MemberNotFound):
        await access.members.remove(ROOT, "nobody")


async def test_the_last_admin_stays(access: AccessRules) -> None:
    with pytest.raises(LastAdmin):
        await access.members.remove(ROOT, "root")
    with pytest.raises(LastAdmin):
        await access.members.add(ROOT, "root", MemberKind.USER, Role.MEMBER)
    await access.members.add(ROOT, "mia", MemberKind.USER, Role.ADMIN)
    await access.members.remove(ROOT, "root")
    with pytest.raises(LastAdmin):
        await access.members.remove(ROOT, "mia")


async def test_two_admins_who_remove_each_other_leave_one(access: AccessRules) -> None:
    await access.members.add(ROOT, "mia", MemberKind.USER, Role.ADMIN)
    done = await asyncio.gather(
        access.members.remove(ROOT, "mia"),
        access.members.remove(MIA._replace(role=Role.ADMIN), "root"),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in done) == ["LastAdmin", "NoneType"]


# --- keys ---


async def test_a_key_without_a_wish_may_what_its_member_may(access: AccessRules) -> None:
    assert await role_of(access, await make(access, ROOT)) is Role.ADMIN
    assert await role_of(access, await make(access, ROOT, "vic")) is Role.VIEWER
    assert await role_of(access, await make(access, MIA)) is Role.MEMBER
    # An admin at work with a key of a member gives no more than that.
    assert await role_of(access, await make(access, ROOT._replace(role=Role.MEMBER))) is Role.MEMBER


async def test_a_key_may_less_than_its_member_and_never_more(access: AccessRules) -> None:
    assert await role_of(access, await make(access, MIA, role=Role.VIEWER)) is Role.VIEWER
    assert await role_of(access, await make(access, ROOT, "vic", Role.ADMIN)) is Role.VIEWER


async def test_a_member_has_to_do_with_its_own_keys_alone(access: AccessRules) -> None:
    roots = await make(access, ROOT)
    for refused in (
        make(access, MIA, "vic"),
        make(access, MIA, role=Role.ADMIN),
        access.issued_keys.list(MIA, "root", ALL),
    ):
        with pytest.raises(RoleDenied) as denied:
            await refused
        assert denied.value.metadata["required"] == "admin"
    with pytest.raises(KeyNotFound):
        await access.issued_keys.revoke(MIA, roots.key_id)
    assert await role_of(access, roots) is Role.ADMIN
    own = await make(access, MIA)
    assert [row.key_id for row in (await access.issued_keys.list(MIA, "", ALL)).rows] == [own.key_id]
    await access.issued_keys.revoke(MIA, own.key_id)
    assert await role_of(access, own) is None


async def test_a_revoked_key_is_refused_at_once_and_told_as_revoked(access: AccessRules, clock: FakeClock) -> None:
    key = await make(access, ROOT, "mia", note="laptop")
    assert await role_of(access, key) is Role.MEMBER
    clock.seconds += 5
    row = await access.issued_keys.revoke(ROOT, key.key_id)
    assert await role_of(access, key) is None
    assert row.revoked_at_ms == int(clock.seconds * 1000)
    clock.seconds += 5
    assert await access.issued_keys.revoke(ROOT, key.key_id) == row
    (listed,) = [one for one in (await access.issued_keys.list(ROOT, "mia", ALL)).rows if one.key_id == key.key_id]
    assert listed == row
    assert listed.note == "laptop"


async def test_a_key_of_another_tenant_is_none(access: AccessRules) -> None:
    key = await access.tenants.create(OPERATOR, "umbrella", "ann")
    with pytest.raises(KeyNotFound) as missing:
        await access.issued_keys.revoke(ROOT, key.key_id)
    with pytest.raises(KeyNotFound) as never_made:
        await access.issued_keys.revoke(ROOT, "aaaaaaaaaaaa")
    assert missing.value.message.replace(key.key_id, "") == never_made.value.message.replace("aaaaaaaaaaaa", "")
    assert await role_of(access, key) is Role.ADMIN
    with pytest.raises(MemberNotFound):
        await make(access, ROOT, "ann")


async def test_a_key_ends_when_it_was_told_to(access: AccessRules, clock: FakeClock) -> None:
    key = await make(access, MIA, ttl_days=2)
    assert await role_of(access, key) is Role.MEMBER
    clock.seconds += 2 * 86_400 - 1
    assert await role_of(access, key) is Role.MEMBER
    clock.seconds += 1
    assert await role_of(access, key) is None
    with pytest.raises(InvalidRange):
        await make(access, MIA, ttl_days=3651)


async def test_a_note_is_kept_within_its_limit(access: AccessRules) -> None:
    await make(access, MIA, note="é" * 255 + "\0")
    (row,) = (await access.issued_keys.list(MIA, "", ALL)).rows
    assert row.note == "é" * 255 + "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(TextTooLong):
        await make(access, MIA, note="é" * 257)


async def test_keys_are_listed_by_id_and_by_pages(access: AccessRules) -> None:
    made = sorted([(await make(access, MIA)).key_id for _ in range(5)])
    seen: list[str] = []
    token = ""
    while True:
        page = await access.issued_keys.list(MIA, "", PageRequest(2, token))
        seen += [row.key_id for row in page.rows]
        token = page.token
        if not token:
            break
    assert seen == made


async def test_uses_are_written_together_and_only_forwards(access: AccessRules, clock: FakeClock) -> None:
    key = await make(access, MIA)

    async def last_used() -> int | None:
        (row,) = (await access.issued_keys.list(MIA, "", ALL)).rows
        return row.last_used_at_ms

    await access.keys.check(key.key_id, key.secret_hash)
    assert await last_used() is None, "a call does not wait for it"
    await access.keys.uses.write()
    first_ms = int(clock.seconds * 1000)
    assert await last_used() == first_ms
    clock.seconds += 90
    await access.keys.check(key.key_id, key.secret_hash)
    await access.keys.uses.write()
    assert await last_used() == first_ms + 90_000
    await access.store.keys.used({key.key_id: first_ms})
    assert await last_used() == first_ms + 90_000


async def test_a_bad_secret_is_no_use(access: AccessRules) -> None:
    key = await make(access, MIA)
    assert await access.keys.check(key.key_id, b"x" * 32) is None
    await access.keys.uses.write()
    (row,) = (await access.issued_keys.list(MIA, "", ALL)).rows
    assert row.last_used_at_ms is None


# --- events ---


async def test_every_change_is_told_and_no_secret_is(access: AccessRules) -> None:
    key = await make(access, ROOT, "mia", note="a note")
    await access.issued_keys.revoke(ROOT, key.key_id)
    other = await make(access, MIA)
    await access.members.remove(ROOT, "mia")
    rows = await told(access)
    assert [(row.kind, row.actor, row.origin) for row in rows] == [
        ("entity.created", "operator", OPERATOR.origin),
        ("member.added", "operator", OPERATOR.origin),
        ("key.created", "operator", OPERATOR.origin),
        ("member.added", "root", ROOT.origin),
        ("member.added", "root", ROOT.origin),
        ("key.created", "root", ROOT.origin),
        ("key.revoked", "root", ROOT.origin),
        ("key.created", "mia", ""),
        ("key.revoked", "root", ROOT.origin),
        ("member.removed", "root", ROOT.origin),
    ]
    assert json.loads(rows[5].after)["key_id"] == key.key_id
    assert json.loads(rows[8].before)["key_id"] == other.key_id
    text = repr([tuple(row) for row in rows])
    for made in (key, other):
        assert made.secret not in text
        assert made.secret_hash.hex() not in text
        assert repr(made.secret_hash)[2:-1] not in text


async def test_the_chain_of_a_tenant_goes_on_through_them(access: AccessRules) -> None:
    await make(access, MIA)
    last = CHAIN_START
    for row in await told(access):
        event = ChainedEvent(
            **{name: getattr(row, name) for name in ChainedEvent._fields if name != "version_uid"}, version_uid=""
        )
        last = chain_hash(last, event)
        assert row.chain_hash == last
    async with access.store.database.read() as connection:
        assert await connection.scalar(sa.select(entities.c.chain_hash)) == last


async def test_the_database_has_no_secret(access: AccessRules) -> None:
    key = await make(access, MIA)
    async with access.store.database.read() as connection:
        rows = (await connection.execute(sa.select(api_keys))).all()
    assert key.key_id in repr(rows)
    assert key.secret not in repr(rows)
