"""Keeping a store: `gc` collects garbage, `explain` says what keeps content from it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Annotated

import typer

import lading
from lading._cli.documents import document
from lading._cli.exits import Exit
from lading._cli.options import AsJson
from lading._cli.output import (
    Table,
    count_text,
    print_document,
    print_fields,
    print_line,
    print_message,
    size_text,
    time_text,
)
from lading._cli.session import connected


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing, and say what would go, what it would free and why.")
    ] = False,
    release_unknown_pins: Annotated[
        bool,
        typer.Option(
            "--release-unknown-pins",
            help="Also give up what is kept only for versions that the registry does not know: its database was lost.",
        ),
    ] = False,
    entity: Annotated[
        str | None, typer.Option(metavar="ENTITY", help="Only this entity. Default: all.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Collect garbage: what nothing keeps any more goes to the trash, and what was there long enough is deleted.

    The server does so by itself once an hour. With the operator's key, which the first start of a server left in its
    data directory: LADING_API_KEY=$(cat lading-data/operator.key). Ends with 1 where an entity was refused, and says
    why."""
    refused = asyncio.run(_collect(dry_run, release_unknown_pins, entity, as_json))
    if refused:
        raise typer.Exit(Exit.FAILED)


def explain(
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="A file, a tree or a chunk: b3:<64 hex>.")],
    as_json: AsJson = False,
) -> None:
    """Say what keeps content from being collected: versions, trees, uploads; or that it is in the trash, and until
    when."""

    async def ask() -> lading.Explanation:
        async with connected() as client:
            return await client.explain(digest)

    found = asyncio.run(ask())
    if as_json:
        print_document(document(found))
    else:
        print_fields(_explained(found))


async def _collect(dry_run: bool, release_unknown_pins: bool, entity: str | None, as_json: bool) -> bool:
    """Collect, and tell while it goes on; return whether an entity was refused."""
    refused = False
    async with (
        connected() as client,
        aclosing(
            client.collect_garbage(dry_run=dry_run, release_unknown_pins=release_unknown_pins, entity=entity)
        ) as events,
    ):
        async for event in events:
            if isinstance(event, lading.EntityCollection):
                refused = refused or bool(event.refused)
                if as_json:
                    print_document(document(event))
                else:
                    _print_entity(event, dry_run)
            elif not as_json and event.step is lading.GarbageStep.COLLECT:
                print_message(f"{event.entity}: looking for garbage")
    return refused


def _print_entity(one: lading.EntityCollection, dry_run: bool) -> None:
    if one.reconciled is not None:
        _print_reconciled(one.entity, one.reconciled, dry_run)
    if one.report is None:
        print_message(f"{one.entity}: nothing was collected: {one.refused}")
        return
    report = one.report
    would = "would be " if dry_run else ""
    condemned = _counts(report.trees_condemned, report.blobs_condemned, report.packs_condemned)
    deleted = _counts(report.trees_deleted, report.blobs_deleted, report.packs_deleted)
    print_line(f"{one.entity}: {condemned} {would}condemned, {size_text(report.bytes_condemned)}")
    if report.packs_compacted:
        copied = size_text(report.bytes_compacted)
        print_line(f"{one.entity}: {count_text(report.packs_compacted, 'pack')} {would}compacted, {copied} copied")
    print_line(f"{one.entity}: {deleted} {would}deleted, {size_text(report.bytes_freed)} {would}freed")
    trash = f"{count_text(report.packs_in_trash, 'pack')}, {size_text(report.bytes_in_trash)}"
    print_line(f"{one.entity}: {trash} in the trash")
    for pack in report.unreadable_packs:
        print_message(f"{one.entity}: pack {pack} cannot be read and was left alone; `lading check` says what is lost")
    for line in report.skipped:
        print_message(f"{one.entity}: {line}")
    if dry_run and report.examples:
        with Table("KIND", "SIZE", "ID", "WHY") as table:
            for example in report.examples:
                table.add(example.kind, size_text(example.size_bytes), example.id, example.why)


def _print_reconciled(entity: str, found: lading.Reconciliation, dry_run: bool) -> None:
    """Tell what was not as it should be. What was is not worth a line."""
    if found.repinned:
        trash = f", {found.revived:,} out of the trash" if found.revived else ""
        made = f"{'would make' if dry_run else 'made'} {count_text(found.repinned, 'lost pin')} again{trash}"
        print_message(f"{entity}: {made}: the database of one of the services was put back")
    if found.unknown_pins:
        released = f"{found.released_pins:,} released" if found.released_pins else "what they hold is kept"
        unknown = count_text(found.unknown_pins, "pin")
        print_message(f"{entity}: {unknown} of versions that the registry does not know; {released}")
    for lost in found.lost:
        print_message(f"{entity}: version {lost.uid} is lost, {lost.digest}: {lost.message}")


def _counts(trees: int, blobs: int, packs: int) -> str:
    return f"{count_text(trees, 'tree')}, {count_text(blobs, 'blob')}, {count_text(packs, 'pack')}"


def _explained(found: lading.Explanation) -> dict[str, str]:
    states = [
        f"{one.kind}, {one.state}, {size_text(one.size_bytes)}" if one.state else one.kind for one in found.states
    ]
    lines = {
        "digest": [found.digest],
        "is": states,
        "versions": [one.reference or f"{one.uid} (deleted, and not purged yet)" for one in found.versions],
        "uploads": list(found.upload_ids),
        "sessions": [f"{found.session_count:,}"] if found.session_count else [],
        "kept": [] if found.versions or found.upload_ids or found.session_count else ["by nothing"],
        "goes": [time_text(found.goes_at)] if found.goes_at is not None else [],
        "blobs": list(found.blobs),
        "trees": list(found.trees),
        "packs": [f"{one.id} {one.state}" for one in found.packs],
        "unreadable": list(found.unreadable_pages),
    }
    return {name: "\n".join(some) for name, some in lines.items() if some}
