"""Who may set an alias, and to what: `rule` with what it can be told to do."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

import lading
from lading._cli.changes import rule_text
from lading._cli.documents import document
from lading._cli.listing import print_all
from lading._cli.options import AsJson, Limit, group
from lading._cli.output import print_document, print_line
from lading._cli.session import connected

# What no collection is called.
_ALL = "*"

Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias: production.")]
Project = Annotated[str, typer.Option(metavar="PROJECT", help="The project that it counts in.")]
Collection = Annotated[
    str, typer.Option(metavar="NAME", help="The collection that it counts in. Default: all of the project.")
]

app = group("Say who may set an alias, and to what.")


@app.command("list")
def list_rules(
    project: Annotated[
        str, typer.Argument(metavar="PROJECT", help="Only those that count in it.", show_default=False)
    ] = "",
    limit: Limit = 0,
    as_json: AsJson = False,
) -> None:
    """List rules for aliases."""

    async def listing() -> None:
        headings = ("ALIAS", "PROJECT", "COLLECTION", "DEMANDS")
        async with connected() as client:
            await print_all(client.alias_rules(project), limit, as_json, headings, _row)

    asyncio.run(listing())


@app.command("set")
def set_rule(
    alias: Alias,
    project: Project,
    collection: Collection = "",
    protected: Annotated[
        bool, typer.Option("--protected", help="Only admins may set, move or remove the alias.")
    ] = False,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A tag that a version has to have. May be repeated.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="A metadata key that it has to have: eval.accuracy. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say who may set an alias, and to what.

    In place of the rule for the same project, collection and alias. It counts for moves from now on; where the alias
    points already it stays. Rules of a project and of a collection add up."""

    async def change() -> lading.AliasRule:
        async with connected() as client:
            return await client.set_alias_rule(
                alias,
                project=project,
                collection=collection,
                protected=protected,
                required_tags=tag or (),
                required_metadata=metadata or (),
            )

    kept = asyncio.run(change())
    if as_json:
        print_document(document(kept))
    else:
        print_line(f"{_where(kept.alias, kept.project, kept.collection)}: {_demands(kept)}")


@app.command("delete")
def delete_rule(alias: Alias, project: Project, collection: Collection = "", as_json: AsJson = False) -> None:
    """Take a rule for an alias away. One that is not there is no error."""

    async def change() -> None:
        async with connected() as client:
            await client.delete_alias_rule(alias, project=project, collection=collection)

    asyncio.run(change())
    if as_json:
        print_document({"project": project, "collection": collection, "alias": alias})
    else:
        print_line(f"{_where(alias, project, collection)}: no rule")


def _row(rule: lading.AliasRule) -> tuple[str, ...]:
    return rule.alias, rule.project, rule.collection or _ALL, _demands(rule)


def _where(alias: str, project: str, collection: str) -> str:
    return f"{alias} in {project}/{collection or _ALL}"


def _demands(rule: lading.AliasRule) -> str:
    return rule_text(asdict(rule))
