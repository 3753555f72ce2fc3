"""Whether all that was stored is there and right: `check`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from importlib import import_module
from typing import Annotated

import typer

from lading._check_models import CheckFinding, CheckProgress, CheckSummary, HurtVersion
from lading._cli.documents import document
from lading._cli.exits import Exit
from lading._cli.options import AsJson
from lading._cli.output import count_text, print_document, print_line, print_message, size_text
from lading._cli.session import connected

# As often as a transfer says where it is.
_LINE_EVERY_SECONDS = 5.0


def check(
    level: Annotated[
        int,
        typer.Option(
            metavar="1-4",
            min=1,
            max=4,
            help="1 the database, 2 the frames of packs, 3 every checksum, 4 every digest.",
        ),
    ] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, and not where a check stopped.")] = False,
    max_bytes: Annotated[
        int, typer.Option("--max-bytes", metavar="N", min=0, help="Stop when so much was read; 0 for all.")
    ] = 0,
    entity: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this entity stores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look for damage in the store, beside all that goes on there. For the operator.

    What is lost is sent again by the next upload of the same files, which heals it. Names the versions that need it. A
    check that was interrupted continues where it was.
    """
    summary = asyncio.run(_check(level, restart, max_bytes, entity, as_json))
    if summary.losses or summary.hurt_versions:
        raise typer.Exit(Exit.INTEGRITY)


async def _check(level: int, restart: bool, max_bytes: int, entity: str | None, as_json: bool) -> CheckSummary:
    async with connected() as client:
        checking = client.check(level, restart=restart, entity=entity, max_bytes=max_bytes)
        with _shown() as show:
            async with aclosing(checking) as events:
                async for event in events:
                    if isinstance(event, CheckProgress):
                        show(event)
                    elif as_json:
                        print_document({"what": _WHAT[type(event)], **document(event)})
                    elif isinstance(event, CheckFinding):
                        print_line(_finding_text(event))
                    elif isinstance(event, HurtVersion):
                        print_line(_hurt_text(event))
                    if isinstance(event, CheckSummary):
                        summary = event
    if not as_json:
        print_line(_summary_text(summary))
    return summary


_WHAT = {
    CheckFinding: "finding",
    HurtVersion: "hurt version",
    CheckSummary: "check summary",
}


def _finding_text(finding: CheckFinding) -> str:
    whose = f" (entity {finding.entity})" if finding.entity else ""
    return f"{'LOST' if finding.is_loss else 'found'}: {finding.kind}{whose}: {finding.message}"


def _hurt_text(version: HurtVersion) -> str:
    name = version.version or f"{version.entity}, version {version.version_uid}"
    if version.tree_damaged and not version.damaged_files:
        return f"HURT: {name}: a part of the list of its files is lost"
    files = count_text(version.damaged_files, "file")
    if not version.damaged_paths:
        return f"HURT: {name}: {files}"
    more = version.damaged_files - len(version.damaged_paths)
    paths = ", ".join(version.damaged_paths) + (f" and {more:,} more" if more else "")
    return f"HURT: {name}: {files}: {paths}"


def _summary_text(summary: CheckSummary) -> str:
    how_far = "checked" if summary.complete else "checked so far, `lading check` continues:"
    healed = f", {summary.healed:,} whole again" if summary.healed else ""
    hurt = f", {count_text(summary.hurt_versions, 'version')} hurt" if summary.hurt_versions else ""
    return (
        f"{how_far} {count_text(summary.items_done, 'item')}, {size_text(summary.bytes_done)}: "
        f"{count_text(summary.findings, 'finding')}, {summary.losses:,} lost{healed}{hurt}"
    )


class _Lines:
    """A line every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said_at = clock()

    def __call__(self, progress: CheckProgress) -> None:
        if self._clock() - self._said_at >= _LINE_EVERY_SECONDS:
            self._said_at = self._clock()
            total = f" of {size_text(progress.bytes_total)}" if progress.bytes_total else ""
            items = count_text(progress.items_done, "item")
            print_message(f"checking {progress.phase}: {items}, {size_text(progress.bytes_done)}{total}")


@contextmanager
def _shown() -> Iterator[Callable[[CheckProgress], None]]:
    """Give what a check's progress is told to."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    # By name: rich is loaded where it is looked at, and nowhere else.
    with import_module("lading._cli.bars").check_bar() as show:
        yield show
