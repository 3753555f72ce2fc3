"""Who may do what: `key`, `member` and `entity`, with what each can be told to do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

import lading
from lading._cli.documents import document
from lading._cli.listing import print_all
from lading._cli.options import AsJson, Limit, group
from lading._cli.output import print_document, print_line, print_message, time_text
from lading._cli.session import connected

Role = Annotated[str, typer.Option(metavar="viewer|member|admin", help="What the member may do.")]

key = group("Make, list and revoke API keys.")
member = group("Say who has which role in the entity.")
entity = group("Make and list entities. For the operator of a server.")


@key.command("create")
def create_key(
    name: Annotated[
        str | None, typer.Argument(metavar="MEMBER", help="Whose it is. Default: yours.", show_default=False)
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="viewer|member|admin", help="What it may do at most. Default: what its member may."),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    days: Annotated[int, typer.Option(metavar="N", min=0, help="Days until it stops working; 0 for never.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make an API key, and print it, this once.

    Nobody can read it later: the server keeps a hash of it. Members make keys of their own; admins for all."""

    async def create() -> lading.NewKey:
        async with connected() as client:
            return await client.create_key(name, role, note, days)

    _print_key(asyncio.run(create()), as_json)


@key.command("list")
def list_keys(
    name: Annotated[
        str | None, typer.Argument(metavar="MEMBER", help="Only this member's.", show_default=False)
    ] = None,
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """List API keys, never their secrets.

    Admins see all of the entity, members their own. Keys that ended are listed too."""

    async def listing() -> None:
        headings = ("KEY", "MEMBER", "ROLE", "STATE", "CREATED", "LAST USED", "NOTE")
        async with connected() as client:
            await print_all(client.keys(name), limit, as_json, headings, _key_row)

    asyncio.run(listing())


@key.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `lading key list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """End an API key.

    At once for names; for content of a server that runs as two processes, within a minute."""

    async def revoke() -> lading.Key:
        async with connected() as client:
            return await client.revoke_key(key_id)

    revoked = asyncio.run(revoke())
    if as_json:
        print_document(document(revoked))
    else:
        print_line(f"{revoked.key_id} of {revoked.member}: revoked {time_text(revoked.revoked_at)}")


@member.command("add")
def add_member(
    name: Annotated[str, typer.Argument(metavar="MEMBER", help="Who: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '@', '-'.")],
    role: Role = "member",
    service: Annotated[bool, typer.Option("--service", help="It is a program and not a person.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give somebody a role in the entity, or another one.

    The role counts at once for all keys of the member. It has none yet: `lading key create MEMBER` makes one."""

    async def add() -> lading.Member:
        async with connected() as client:
            return await client.add_member(name, role, "service" if service else "user")

    added = asyncio.run(add())
    if as_json:
        print_document(document(added))
    else:
        print_line(f"{added.name}: {added.role.value} of {added.entity}")


@member.command("list")
def list_members(limit: Limit = 0, as_json: AsJson = False) -> None:
    """List who has a role in the entity."""

    async def listing() -> None:
        async with connected() as client:
            await print_all(client.members(), limit, as_json, ("MEMBER", "ROLE", "KIND", "SINCE"), _member_row)

    asyncio.run(listing())


@member.command("remove")
def remove_member(
    name: Annotated[str, typer.Argument(metavar="MEMBER", help="Who.")],
    as_json: AsJson = False,
) -> None:
    """Take a member's role away, and revoke all its keys."""

    async def remove() -> None:
        async with connected() as client:
            await client.remove_member(name)

    asyncio.run(remove())
    if as_json:
        print_document({"name": name})
    else:
        print_line(f"{name}: removed, and its keys revoked")


@entity.command("create")
def create_entity(
    name: Annotated[str, typer.Argument(metavar="ENTITY", help="1 to 64 of a-z, 0-9, '.', '_', '-'.")],
    admin: Annotated[str, typer.Option(metavar="MEMBER", help="The first admin.")] = "admin",
    as_json: AsJson = False,
) -> None:
    """Make an entity, and print its first admin's key, this once.

    With the operator's key, which the first start of a server left in its data directory: LADING_API_KEY=$(cat
    lading-data/operator.key)."""

    async def create() -> lading.NewKey:
        async with connected() as client:
            return await client.create_entity(name, admin)

    _print_key(asyncio.run(create()), as_json)


@entity.command("list")
def list_entities(limit: Limit = 0, as_json: AsJson = False) -> None:
    """List the server's entities.

    With the operator's key."""

    async def listing() -> None:
        async with connected() as client:
            await print_all(client.entities(), limit, as_json, ("ENTITY", "CREATED"), _entity_row)

    asyncio.run(listing())


def _print_key(made: lading.NewKey, as_json: bool) -> None:
    """Print a key; what is no key goes to stderr, so that a shell can take it into a variable."""
    if as_json:
        print_document({**document(made), "secret_key": made.secret_key})
        return
    until = f", until {time_text(made.expires_at)}" if made.expires_at is not None else ""
    print_message(
        f"key {made.key_id} of {made.member}, {made.role.value} of {made.entity}{until}; it is not shown again"
    )
    print_line(made.secret_key)


def _key_row(one: lading.Key) -> tuple[str, ...]:
    return (
        one.key_id,
        one.member,
        one.role.value,
        _state(one),
        time_text(one.created_at),
        time_text(one.last_used_at),
        one.note,
    )


def _state(one: lading.Key) -> str:
    if one.revoked_at is not None:
        return "revoked"
    if one.expires_at is None:
        return "good"
    is_over = one.expires_at <= datetime.now(UTC)
    return "expired" if is_over else f"until {time_text(one.expires_at)}"


def _member_row(one: lading.Member) -> tuple[str, ...]:
    return one.name, one.role.value, one.kind.value, time_text(one.created_at)


def _entity_row(one: lading.EntityInfo) -> tuple[str, ...]:
    return one.name, time_text(one.created_at)
