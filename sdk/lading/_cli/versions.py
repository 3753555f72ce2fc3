"""What is known of versions: `show`, `history`, `diff`, `lineage`."""

from __future__ import annotations

import asyncio
import json
from enum import Enum
from typing import Annotated

import typer

import lading
from lading._cli import graph
from lading._cli.changes import change_text
from lading._cli.documents import document
from lading._cli.listing import print_all
from lading._cli.options import AsJson, Limit, Reference, means_version
from lading._cli.output import (
    count_text,
    print_document,
    print_fields,
    print_line,
    print_message,
    print_text,
    size_text,
    time_text,
)
from lading._cli.session import connected

_MARKS = {"added": "+", "removed": "-", "changed": "~"}


class Direction(Enum):
    """Which way a lineage is followed."""

    BOTH = "both"
    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


class Format(Enum):
    """How a lineage is printed."""

    TREE = "tree"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


def show(reference: Reference, as_json: AsJson = False) -> None:
    """Tell what is known of a version."""

    async def resolve() -> lading.Version:
        async with connected() as client:
            return await client.version(reference)

    version = asyncio.run(resolve())
    if as_json:
        print_document(document(version))
    else:
        print_fields({name: value for name, value in _fields(version).items() if value})


def history(
    name: Annotated[str, typer.Argument(metavar="REF|COLLECTION", help="With :alias, :vN or @b3:hex, a version.")],
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """Tell who did what to a collection or a version, when, and from where.

    The newest first."""

    async def listing() -> None:
        async with connected() as client:
            if means_version(name):
                events = client.events(version=name, newest_first=True)
            else:
                await client.collection(name)  # an unknown one has no events, and that should not look like an answer
                events = client.events(collection=name, newest_first=True)
            await print_all(events, limit, as_json, ("TIME", "BY", "FROM", "WHAT", "CHANGE"), _event_row)

    asyncio.run(listing())


def diff(
    before: Annotated[str, typer.Argument(metavar="REF", help="The version before.")],
    after: Annotated[str, typer.Argument(metavar="REF", help="The version after.")],
    as_json: AsJson = False,
) -> None:
    """List the paths that differ between two versions.

    + is added, - removed, ~ changed."""

    async def compare() -> None:
        async with connected() as client:
            old, new = await client.version(before), await client.version(after)
            async for change in old.diff(new):
                if as_json:
                    print_document(document(change), may_end=True)
                else:
                    print_line(f"{_MARKS[change.kind.value]} {change.path}{_sizes(change)}", may_end=True)

    asyncio.run(compare())


def lineage(
    reference: Reference,
    format_: Annotated[
        Format, typer.Option("--format", metavar="tree|mermaid|dot|json", help="How to print it.")
    ] = Format.TREE,
    direction: Annotated[
        Direction,
        typer.Option(metavar="both|upstream|downstream", help="To what it came from, to what came from it, or both."),
    ] = Direction.BOTH,
    depth: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many runs to pass on the way.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Tell what a version was made from, and by which runs.

    And what was made from it, several runs far."""

    async def follow() -> lading.Lineage:
        async with connected() as client:
            return await client.lineage(reference, direction.value, depth)

    found = asyncio.run(follow())
    if as_json or format_ is Format.JSON:
        print_document(document(found))
        return
    draw = {Format.TREE: graph.tree, Format.MERMAID: graph.mermaid, Format.DOT: graph.dot}[format_]
    print_text(draw(found))
    if found.truncated:
        print_message("the graph goes on: ask with a larger --depth, or from another version")


def _event_row(event: lading.Event) -> tuple[str, ...]:
    return time_text(event.time), event.actor, event.origin or "-", event.kind, change_text(event)


def _sizes(change: lading.PathChange) -> str:
    before, after = (entry.size_bytes if entry is not None else None for entry in (change.before, change.after))
    if before is None and after is None:
        return ""
    sizes = [size_text(size) for size in (before, after) if size is not None]
    return f"  ({' -> '.join(dict.fromkeys(sizes))})"


def _fields(version: lading.Version) -> dict[str, str]:
    """Return what people want to know first, in that order. What is empty is left out by the caller."""
    references = f", {count_text(version.reference_count, 'reference')}" if version.reference_count else ""
    return {
        "version": version.reference,
        "type": version.type,
        "aliases": ", ".join(version.aliases),
        "tags": ", ".join(version.tags),
        "content": f"{count_text(version.file_count, 'file')}{references}, {size_text(version.size_bytes)}",
        "digest": version.digest,
        "link to": version.source,
        "created": f"{time_text(version.created_at)} by {version.created_by}",
        "expires": time_text(version.expires_at) if version.expires_at is not None else "",
        "run": version.run_id,
        "metadata": "\n".join([f"{key} = {json.dumps(value)}" for key, value in version.metadata.items()]),
        "card": version.description,
    }
