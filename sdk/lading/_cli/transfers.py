"""Content in and out: `put`, `get`, `cat`, `verify`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import lading
from lading._cli.documents import document
from lading._cli.durations import parse_ttl
from lading._cli.exits import Exit
from lading._cli.options import AsJson, Reference
from lading._cli.output import (
    count_text,
    print_bytes,
    print_document,
    print_line,
    print_message,
    size_text,
)
from lading._cli.progress import shown
from lading._cli.session import connected, connected_for_transfer

# What one message of the protocol carries at most is a little more than this.
_READ_BYTES = 1 << 20


def put(
    path: Annotated[Path, typer.Argument(metavar="PATH", exists=True, help="A directory, or a file.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection: [entity/][project/]name.")],
    type_: Annotated[
        str,
        typer.Option(
            "--type", metavar="TYPE", help="The collection's type: dataset, model. Needed for its first version."
        ),
    ] = "",
    alias: Annotated[
        list[str] | None, typer.Option(metavar="ALIAS", help="An alias to point at the version. May be repeated.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="A tag of the version. May be repeated.")] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="The version's card, in Markdown.")] = "",
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="VALUE is JSON where it can be read as such, else text. May be repeated."
        ),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Of a directory, only what matches. May be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Of a directory, not what matches. May be repeated.")
    ] = None,
    ttl: Annotated[
        str,
        typer.Option(metavar="TIME", help="How long the version stays: 30d, 12h, never. Default: as the rule says."),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Store a directory or a file, and print its name.

    It becomes a version of a collection. Only what the server does not have is sent. Where the collection has a version
    of the same content no other is made: aliases and tags are set on that one. After an interruption, run it again.
    """
    values, time_to_live = parse_metadata(metadata or ()), parse_ttl(ttl, "--ttl")

    async def store() -> tuple[lading.Committed, lading.Progress]:
        async with connected_for_transfer() as client:
            with shown("uploading") as display:
                committed = await client.put(
                    path,
                    name,
                    type=type_,
                    aliases=alias or (),
                    tags=tag or (),
                    description=description,
                    metadata=values,
                    include=include or (),
                    exclude=exclude or (),
                    on_progress=display,
                    ttl=time_to_live,
                )
            return committed, display.latest

    committed, progress = asyncio.run(store())
    what = f"{count_text(progress.files_total, 'file')}, {size_text(progress.bytes_total)}"
    made = "" if committed.created else "; the collection had a version with this content"
    print_message(f"stored {what}; {size_text(progress.bytes_sent)} sent{made}")
    if as_json:
        sent = {"created": committed.created, "bytes_sent": progress.bytes_sent}
        print_document(document(committed.version) | sent)
    else:
        print_line(committed.version.reference)


def get(
    reference: Reference,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to. Default: ./artifacts/<collection>:v<N>."),
    ] = None,
    prefix: Annotated[
        str, typer.Option(metavar="PREFIX", help="Only paths that begin with it: images/ for a directory.")
    ] = "",
    hard_links: Annotated[
        bool,
        typer.Option("--hard-links", help="Read-only names of the local cache's own files, which take no space."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a version's files, verified.

    Prints the directory that has them. Files that are there already with the right content are left alone, and what
    the local cache has is taken from there. After an interruption, run it again.
    """

    async def fetch() -> tuple[lading.Version, Path, lading.Progress]:
        async with connected_for_transfer() as client:
            version = await client.version(reference)
            with shown("downloading") as display:
                root = await version.download(
                    output, prefix=prefix, link="hard" if hard_links else None, on_progress=display
                )
            return version, root, display.latest

    version, root, progress = asyncio.run(fetch())
    there = f"; {count_text(progress.files_deduplicated, 'file')} was there" if progress.files_deduplicated else ""
    what = f"{count_text(progress.files_total, 'file')}, {size_text(progress.bytes_total)}"
    print_message(f"fetched {version.reference}: {what}{there}")
    if as_json:
        got = {"files": progress.files_total, "bytes": progress.bytes_total, "files_there": progress.files_deduplicated}
        print_document({"reference": version.reference, "path": str(root), **got})
    else:
        print_line(str(root))


def cat(
    reference: Reference,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file of the version.")],
) -> None:
    """Print a file of a version, byte for byte."""

    async def read() -> None:
        async with connected() as client:
            version = await client.version(reference)
            async with version.open(path) as file:
                while data := await file.read(_READ_BYTES):
                    print_bytes(data)

    asyncio.run(read())


def verify(
    reference: Reference,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="What `get` wrote, say.")
    ],
    as_json: AsJson = False,
) -> None:
    """Compare a directory with a version.

    Every file is read and hashed. Ends with 4 where something differs."""

    async def compare() -> tuple[lading.Version, lading.VerifyResult]:
        async with connected() as client:
            version = await client.version(reference)
            return version, await version.verify(directory)

    version, result = asyncio.run(compare())
    if as_json:
        print_document({"reference": version.reference, "ok": result.ok, **document(result)})
    else:
        _print_differences(result)
    if not result.ok:
        _differs(version, directory, result)
    print_message(f"{directory} is {version.reference}, byte for byte")


def parse_metadata(pairs: Sequence[str]) -> dict[str, object]:
    """Return what KEY=VALUE options say. A value is JSON where it can be read as such, else text.

    Raises:
        typer.BadParameter: One has no key or no `=`, or a key comes twice.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--metadata")
        if key in values:
            raise typer.BadParameter(f"{key!r} comes twice", param_hint="--metadata")
        try:
            values[key] = json.loads(value, parse_constant=_no_constant)
        except ValueError:
            values[key] = value
    return values


def _no_constant(name: str) -> NoReturn:
    # NaN and Infinity, which Python reads although JSON has none.
    raise ValueError(name)


def _print_differences(result: lading.VerifyResult) -> None:
    for kind, paths in (("missing", result.missing), ("changed", result.changed), ("extra", result.extra)):
        for path in paths:
            print_line(f"{kind}  {path}")


def _differs(version: lading.Version, directory: Path, result: lading.VerifyResult) -> NoReturn:
    counts = f"{len(result.missing)} missing, {len(result.changed)} changed, {len(result.extra)} extra"
    print_message(
        f"lading: {directory} is not {version.reference}: {counts}. "
        f"`lading get {version.reference} -o DIR` writes a whole one."
    )
    raise typer.Exit(Exit.INTEGRITY)
