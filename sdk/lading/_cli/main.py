"""The `lading` command. Knows the SDK's public face and nothing below it."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated

import typer

# What a shell sees; the README lists them.
EXIT_FAILED = 1

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lading {version('lading')}")
        raise typer.Exit


@app.callback()
def lading(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keep data sets, checkpoints and models."""


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Run the server. `lading serve --help` names every setting.",
)
def serve(context: typer.Context) -> None:
    """Become the server: SDK and server never import each other, so it is another program in this process's place."""
    if find_spec("lading_server") is None or find_spec("sqlalchemy") is None:
        typer.echo("the server is not installed; run: pip install 'lading[server]'", err=True)
        raise typer.Exit(EXIT_FAILED)
    arguments = [sys.executable, "-m", "lading_server", *context.args]
    os.execv(sys.executable, arguments)  # noqa: S606 - our own interpreter, and no shell


def main() -> None:
    """Run the command line."""
    app()
