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
from lading._cli.output import print_document, print_fields, print_line, print_message
from lading._cli.session import PATIENCE_SECONDS, connected
from lading._config import settle, wishes_from
from lading._credentials import Login, keep_login, read_credentials

_STDIN = "-"


def login(
    key: Annotated[
        str | None, typer.Argument(metavar="-", help="`-` reads the key from stdin; else it is asked for.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="URL", help="host:port, grpc://host:port, or grpcs://host:port. Default: LADING_URL."),
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
    identity = _checked(address, kept.api_key) if key is None and not relogin else None
    known = identity is not None
    if identity is None:
        kept = replace(kept, api_key=_read_key(key, address))
        identity = asyncio.run(_whoami(address, kept.api_key))
    path = keep_login(address, kept)
    if as_json:
        print_document({"url": address.url, **_identity(identity), "credentials": path})
        return
    who = f"{identity.principal} of {identity.entity} at {address.target}"
    if known:
        print_line(f"logged in as {who} before; the key is in {path} (--relogin for another one)")
    else:
        print_line(f"logged in as {who}; the key is in {path}")


def whoami(as_json: AsJson = False) -> None:
    """Say whose key it is, and which server is meant."""
    address = _address()
    fields = {"url": address.url, **_identity(asyncio.run(_own_identity()))}
    if as_json:
        print_document(fields)
    else:
        print_fields(fields)


def _checked(address: Address, api_key: str) -> lading.Identity | None:
    """Return whom a key belongs to; None where there is none, or the server does not take it any more."""
    if not api_key:
        return None
    try:
        return asyncio.run(_whoami(address, api_key))
    except lading.Unauthenticated:
        return None


async def _whoami(address: Address, api_key: str) -> lading.Identity:
    async with lading.Client(address.url, api_key=api_key, retry=PATIENCE_SECONDS) as client:
        return await client.whoami()


async def _own_identity() -> lading.Identity:
    async with connected() as client:
        return await client.whoami()


def _identity(identity: lading.Identity) -> dict[str, str]:
    return {"principal": identity.principal, "entity": identity.entity}


def _address() -> Address:
    """Return the server that is meant where nobody says."""
    return settle(wishes_from(None, None, None, None, os.environ)).address


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
