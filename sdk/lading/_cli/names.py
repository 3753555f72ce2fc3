"""What changes names and no content: `alias`, `tag`, `ttl`, `link`, `unlink`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

import lading
from lading._cli.documents import document
from lading._cli.durations import parse_ttl
from lading._cli.options import AsJson, Force, Reference
from lading._cli.output import print_document, print_line, time_text
from lading._cli.session import connected


def alias(
    reference: Reference,
    to_set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="ALIAS", help="An alias to point at the version. May be repeated."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="ALIAS", help="An alias that the collection shall not have. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set and remove aliases, all of them or none.

    Prints the version's reference and its aliases."""
    _need_one(to_set, remove, "--set", "--remove")

    async def change() -> lading.Version:
        async with connected() as client:
            return await client.set_aliases(reference, set=to_set or (), remove=remove or ())

    version = asyncio.run(change())
    _print_version(version, version.aliases, as_json)


def tag(
    reference: Reference,
    add: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag that the version shall have. May be repeated.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag that it shall not have. May be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a version's tags.

    Prints its reference and its tags."""
    _need_one(add, remove, "--add", "--remove")

    async def change() -> lading.Version:
        async with connected() as client:
            return await client.tag_version(reference, add=add or (), remove=remove or ())

    version = asyncio.run(change())
    _print_version(version, version.tags, as_json)


def ttl(
    reference: Reference,
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="From now on: 45s, 90m, 12h, 30d, 2w; or never, for ever.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say how long a version stays.

    Prints its reference and when its time is over. It is deleted then, unless an alias other than latest or a link
    points at it. Only admins have a version go sooner."""
    wanted = parse_ttl(time, "TIME")

    async def change() -> lading.Version:
        async with connected() as client:
            return await client.update_version(reference, ttl=wanted)

    version = asyncio.run(change())
    _print_version(version, (time_text(version.expires_at) if version.expires_at else "never",), as_json)


def link(
    reference: Reference,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A registered model: [[entity/]model-registry/]Name.")
    ],
    alias: Annotated[
        list[str] | None,
        typer.Option(metavar="ALIAS", help="An alias of the registered model to point here. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a version a number in a registered model.

    Prints the link's reference and its aliases. The registered model is made if it is not there. Linking a version
    again moves aliases and makes no new number.
    """

    async def change() -> lading.Version:
        async with connected() as client:
            return await client.link(reference, target, aliases=alias or ())

    version = asyncio.run(change())
    _print_version(version, version.aliases, as_json)


def unlink(reference: Reference, force: Force = False, as_json: AsJson = False) -> None:
    """Remove a version of a registered model.

    Prints what it was. What it points at stays."""

    async def change() -> lading.Version:
        async with connected() as client:
            return await client.unlink(reference, force=force)

    _print_version(asyncio.run(change()), (), as_json)


def _need_one(first: list[str] | None, second: list[str] | None, *options: str) -> None:
    if not first and not second:
        raise lading.InvalidArgument(f"There is nothing to change. Give {' or '.join(options)}.")


def _print_version(version: lading.Version, names: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_document(document(version))
    else:
        print_line(f"{version.reference}  {', '.join(names)}".rstrip())
