"""Other programs that take this one's place: the server, and the tutorial."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

import typer

from lading._cli.exits import Exit
from lading._cli.output import print_message


def serve(context: typer.Context) -> None:
    """Run the server. Its own --help names every setting."""
    _need_server()
    _become("lading_server", context.args)


def backup(context: typer.Context) -> None:
    """Back the server's databases up while it serves. Its own --help names every option."""
    _maintain("backup", context.args)


def restore(context: typer.Context) -> None:
    """Put a backup in the place of lost databases. Its own --help names every option."""
    _maintain("restore", context.args)


def rebuild_index(context: typer.Context) -> None:
    """Make the database of content from the packs. Its own --help names every option."""
    _maintain("rebuild-index", context.args)


def demo(context: typer.Context) -> None:
    """Run the tutorial on real images."""
    need(("sklearn", "PIL"), "the tutorial needs scikit-learn and Pillow; run: pip install 'lading[demo]'")
    _become("lading._demo", context.args)


def need(modules: Sequence[str], message: str) -> None:
    """End with a message unless these modules are installed."""
    if any(find_spec(module) is None for module in modules):
        print_message(f"lading: {message}")
        raise typer.Exit(Exit.FAILED)


def _need_server() -> None:
    # SDK and server never import each other, so it is another program.
    need(("lading_server", "sqlalchemy"), "the server is not installed; run: pip install 'lading[server]'")


def _maintain(command: str, arguments: Sequence[str]) -> NoReturn:
    _need_server()
    _become("lading_server.maintenance", [command, *arguments])


def _become(module: str, arguments: Sequence[str]) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - our own interpreter, no shell
