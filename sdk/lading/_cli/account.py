"""Who the caller is: `login`, `whoami`."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from typing import Annotated

import typer

import lading
from lading._address import Address, parse_address
from lading._cli.options import AsJson
from lading._cli.output import print_document, print_fields, print_line, print_message, size_text
from lading._cli.session import PATIENCE_SECONDS, connected
from lading._config import settle, wishes_from
from lading._credentials import Login, keep_login, read_credentials
from lading._trust import trust_from

_STDIN = "-"


def login(
    key: Annotated[
        str | None, typer.Argument(metavar="-", help="`-` reads the key from stdin; else it is asked for.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="URL", help="host:port, grpc://host:port, or grpcs://host:port. Default: LADING_URL."),
    ] = None,
    ca_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Whose certificates to believe there, PEM, if not whose the system believes. Default: LADING_CA_FILE; "
            "what is kept.",
        ),
    ] = None,
    relogin: Annotated[bool, typer.Option("--relogin", help="Ask for a key although one is kept.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check and keep an API key for a server.

    That server is then the default one. The key is checked with the server before it is kept, in a file that only you
    can read.
    """
    address = parse_address(host) if host is not None else _address()
    kept = read_credentials().logins.get(address.url, Login(""))
    wanted = replace(kept, ca_file=_believed(ca_file, kept, address))
    identity = _checked(address, wanted) if key is None and not relogin else None
    known = identity is not None
    if identity is None:
        wanted = replace(wanted, api_key=_read_key(key, address))
        identity = asyncio.run(_whoami(address, wanted))
    path = keep_login(address, wanted)
    if as_json:
        print_document({"url": address.url, **_identity(identity), "credentials": path})
        return
    who = f"{identity.principal} of {identity.entity or 'the server'} at {address.target}"
    if known:
        print_line(f"logged in as {who} before; the key is in {path} (--relogin for another one)")
    else:
        print_line(f"logged in as {who}; the key is in {path}")


def whoami(as_json: AsJson = False) -> None:
    """Say whose key it is, which server is meant, and how much the entity stores there."""
    address = _address()
    identity, usage = asyncio.run(_own_identity())
    fields = {"url": address.url, **_identity(identity)}
    if as_json:
        told = {} if usage is None else {"used_bytes": usage.used_bytes, "limit_bytes": usage.limit_bytes}
        print_document({**fields, **told})
    else:
        print_fields(fields if usage is None else {**fields, "stored": _stored(usage)})


def _checked(address: Address, login_: Login) -> lading.Identity | None:
    """Return whom a kept key belongs to; None where there is none, or the server does not take it any more."""
    if not login_.api_key:
        return None
    try:
        return asyncio.run(_whoami(address, login_))
    except lading.Unauthenticated:
        return None


async def _whoami(address: Address, login_: Login) -> lading.Identity:
    client = lading.Client(address.url, api_key=login_.api_key, ca_file=login_.ca_file, retry=PATIENCE_SECONDS)
    async with client:
        return await client.whoami()


async def _own_identity() -> tuple[lading.Identity, lading.Usage | None]:
    """Return who the caller is, and what the entity stores; None where that cannot be told."""
    async with connected() as client:
        identity = await client.whoami()
        # An operator is in no entity.
        if not identity.entity:
            return identity, None
        try:
            return identity, await client.usage()
        except lading.LadingError as error:
            # Who the caller is is known all the same.
            print_message(f"What is stored cannot be told: {error.message}")
            return identity, None


def _stored(usage: lading.Usage) -> str:
    used = size_text(usage.used_bytes)
    return used if usage.limit_bytes is None else f"{used} of {size_text(usage.limit_bytes)}"


def _identity(identity: lading.Identity) -> dict[str, str]:
    return {
        "principal": identity.principal,
        "entity": identity.entity,
        "role": identity.role,
        "key_id": identity.key_id,
    }


def _address() -> Address:
    """Return the server that is meant where nobody says."""
    return settle(wishes_from(None, None, None, None, os.environ)).address


def _believed(ca_file: str | None, kept: Login, address: Address) -> str:
    """Return the file to keep for a server: the named one, and else that of before."""
    named = trust_from(ca_file, None, None, os.environ).ca_file
    if ca_file and not address.tls:
        raise lading.InvalidArgument(f"--ca-file is for TLS, and {address.url} has none. Give --host grpcs://…")
    if named and address.tls:
        # It will be read from other directories than this one.
        return os.path.abspath(named)
    return kept.ca_file if ca_file is None else ""


def _read_key(source: str | None, address: Address) -> str:
    """Return a key that the caller gives. Never from the command line, which every process of the machine can see."""
    if source == _STDIN:
        key = sys.stdin.readline().strip()
    elif source is not None:
        raise lading.InvalidArgument("A key on the command line is seen by others. Write it to stdin: lading login -")
    elif not sys.stdin.isatty():
        raise lading.InvalidArgument("There is no terminal to ask for the key. Write it to stdin: lading login -")
    else:
        print_message(
            f"The admin key of a server is in its data directory: `lading serve` said where. ({address.target})"
        )
        key = typer.prompt("API key", hide_input=True, err=True).strip()
    if not key:
        raise lading.InvalidArgument("The key is empty. Copy it again.")
    return key
