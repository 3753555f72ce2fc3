"""Which versions stay: `retention` with what it can be told to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

import lading
from lading._cli.changes import retention_text
from lading._cli.documents import document
from lading._cli.durations import parse_ttl
from lading._cli.listing import print_all
from lading._cli.options import AsJson, Limit, group
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

# What no collection is called.
_ALL = "*"


class BestOrder(Enum):
    """Which end of a field is the best."""

    MAX = "max"
    MIN = "min"


Place = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The collection: [entity/][project/]name; or project/* for all of a project."),
]
KeepLast = Annotated[
    int, typer.Option(metavar="N", min=0, show_default=False, help="Keep so many versions with the highest numbers.")
]
KeepBest = Annotated[
    int, typer.Option(metavar="K", min=0, show_default=False, help="Keep so many of the best, by --by.")
]
By = Annotated[str, typer.Option("--by", metavar="FIELD", help="What the best are compared by: metadata.accuracy.")]
Order = Annotated[BestOrder, typer.Option(metavar="max|min", help="Whether the largest are the best, or the smallest.")]
KeepDays = Annotated[
    int, typer.Option(metavar="DAYS", min=0, show_default=False, help="Keep those that are younger than so many days.")
]
KeepTag = Annotated[
    list[str] | None, typer.Option(metavar="TAG", help="Keep those that have this tag. May be repeated.")
]
KeepAll = Annotated[bool, typer.Option("--keep-all", help="Keep all: the rule of the project shall not count here.")]

app = group("Say which versions stay, and see what would go.")


@app.command("set")
def set_rule(
    name: Place,
    keep_last: KeepLast = 0,
    keep_best: KeepBest = 0,
    by: By = "",
    order: Order = BestOrder.MAX,
    keep_days: KeepDays = 0,
    keep_tag: KeepTag = None,
    keep_all: KeepAll = False,
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="The time to live of new versions that bring none: 30d, 12h.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Say which versions of a collection stay.

    In place of the rule that was there. A version that no part keeps is deleted, by the server from time to time, and
    can be undeleted as ever; what an alias other than latest or a link points at never is. `lading retention simulate`
    with the same options tells what would go."""
    default_ttl = parse_ttl(ttl, "--ttl")

    async def change() -> lading.RetentionRule:
        async with connected() as client:
            return await client.set_retention_rule(
                name,
                keep_last=keep_last,
                keep_best=keep_best,
                best_by=by,
                best_order=order.value,
                keep_days=keep_days,
                keep_tags=keep_tag or (),
                keep_all=keep_all,
                default_ttl=default_ttl,
            )

    kept = asyncio.run(change())
    if as_json:
        print_document(document(kept))
    else:
        print_line(f"{_where(kept)}: {_parts(kept)}")


@app.command("show")
def show_rule(name: Place, as_json: AsJson = False) -> None:
    """Tell which rule counts for a collection.

    Its own, or that of its project. Ends with 3 where there is neither."""

    async def ask() -> lading.RetentionRule | None:
        async with connected() as client:
            return await client.retention_rule(name)

    rule = asyncio.run(ask())
    if rule is None:
        raise lading.NotFound(f"No rule counts for {name}: its versions go by their time to live alone.")
    if as_json:
        print_document(document(rule))
    else:
        print_fields(
            {"rule for": _where(rule), "keeps": _parts(rule), "set": f"{time_text(rule.set_at)} by {rule.set_by}"}
        )


@app.command("list")
def list_rules(
    project: Annotated[
        str, typer.Argument(metavar="PROJECT", help="Only those of this project.", show_default=False)
    ] = "",
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """List rules of retention."""

    async def listing() -> None:
        headings = ("COLLECTION", "KEEPS", "SET", "BY")
        async with connected() as client:
            await print_all(client.retention_rules(project), limit, as_json, headings, _row)

    asyncio.run(listing())


@app.command("clear")
def clear_rule(name: Place, as_json: AsJson = False) -> None:
    """Take a rule away. One that is not there is no error."""

    async def change() -> None:
        async with connected() as client:
            await client.delete_retention_rule(name)

    asyncio.run(change())
    if as_json:
        print_document({"name": name})
    else:
        print_line(f"{name}: no rule of its own")


@app.command("simulate")
def simulate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection: [entity/][project/]name.")],
    keep_last: KeepLast = 0,
    keep_best: KeepBest = 0,
    by: By = "",
    order: Order = BestOrder.MAX,
    keep_days: KeepDays = 0,
    keep_tag: KeepTag = None,
    keep_all: KeepAll = False,
    as_json: AsJson = False,
) -> None:
    """Tell what would go of a collection now, and why.

    By the rule that the options make; without any, by the one that counts. Changes nothing. The newest version comes
    first; the sums go to stderr."""
    totals = {True: [0, 0], False: [0, 0]}

    async def counted(
        verdicts: AsyncGenerator[lading.RetentionVerdict, None],
    ) -> AsyncGenerator[lading.RetentionVerdict, None]:
        async with aclosing(verdicts):
            async for verdict in verdicts:
                totals[verdict.goes][0] += 1
                totals[verdict.goes][1] += verdict.size_bytes
                yield verdict

    async def listing() -> None:
        async with connected() as client:
            verdicts = client.simulate_retention(
                name,
                keep_last=keep_last,
                keep_best=keep_best,
                best_by=by,
                best_order=order.value,
                keep_days=keep_days,
                keep_tags=keep_tag or (),
                keep_all=keep_all,
            )
            await print_all(counted(verdicts), 0, as_json, ("", "VERSION", "SIZE", "WHY"), _verdict_row)

    asyncio.run(listing())
    (going, freed), (kept, _) = totals[True], totals[False]
    print_message(f"{count_text(going, 'version')} would go, {size_text(freed)} at most; {kept:,} would stay")


@app.command("apply")
def apply(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Only this collection, or project/* for all of a project.", show_default=False
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Delete now what goes by its time to live or by the rules.

    Without waiting for the server to do it by itself. Prints what was deleted; it can be undeleted as ever."""

    async def work(table: Table | None) -> lading.RetentionApplied:
        def told(verdict: lading.RetentionVerdict) -> None:
            if table is None:
                print_document(document(verdict))
            else:
                table.add(verdict.reference, size_text(verdict.size_bytes), verdict.why)

        async with connected() as client:
            return await client.apply_retention(name or None, told)

    if as_json:
        applied = asyncio.run(work(None))
    else:
        with Table("VERSION", "SIZE", "WHY") as table:
            applied = asyncio.run(work(table))
    print_message(f"deleted {count_text(applied.deleted, 'version')}, {size_text(applied.size_bytes)} at most")


def _row(rule: lading.RetentionRule) -> tuple[str, ...]:
    return _where(rule), _parts(rule), time_text(rule.set_at), rule.set_by


def _verdict_row(verdict: lading.RetentionVerdict) -> tuple[str, ...]:
    return "goes" if verdict.goes else "stays", verdict.reference, size_text(verdict.size_bytes), verdict.why


def _where(rule: lading.RetentionRule) -> str:
    return f"{rule.project}/{rule.collection or _ALL}"


def _parts(rule: lading.RetentionRule) -> str:
    parts = asdict(rule)
    return retention_text(
        parts | {"best_key": rule.best_by.removeprefix("metadata."), "best_is_smallest": rule.best_order.value == "min"}
    )
