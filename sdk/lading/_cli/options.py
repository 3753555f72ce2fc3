"""Arguments and options that several commands have, and commands that have commands."""

from __future__ import annotations

from typing import Annotated

import typer

from lading_format.references import SCHEME

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="A version: [entity/][project/]name[:alias | :vN | @b3:hex].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: an object; of a listing, one a line.")]
Limit = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=0, show_default=False, help="Print so many at most; 0 for all.")
]
Force = Annotated[bool, typer.Option("--force", help="Do it although aliases or links point at it; they go with it.")]


def group(help_text: str) -> typer.Typer:
    """Return a command that has commands. By itself it shows its help."""
    return typer.Typer(help=help_text, callback=_show_help, invoke_without_command=True)


def _show_help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def means_version(text: str) -> bool:
    """Whether a name says which version of a collection: by alias, number or digest."""
    return ":" in text.removeprefix(SCHEME) or "@" in text
