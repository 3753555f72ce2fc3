"""The `lading` command: its commands in order, and what becomes of errors.

Starts without gRPC and rich, for every command waits for what is imported here; tests/unit/lading/cli/test_start.py.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer

from lading._cli import (
    account,
    audit,
    cache,
    check,
    deleting,
    garbage,
    lists,
    members,
    names,
    programs,
    retention,
    rules,
    transfers,
    versions,
)
from lading._cli.exits import ADVICE, EXITS, Exit
from lading._cli.output import OutputClosed, discard_output, flush_output, print_message
from lading._errors import LadingError

# Typer has a copy of click of its own, or uses click's: either way this is the class of all mistakes in usage.
_UsageError: Any = typer.BadParameter.__mro__[1]

_EPILOG = """\b
Exit codes:
  0    fine
  1    failed; stderr says why, and what to do next
  2    a mistake in usage, or a malformed name
  3    there is no such version, collection, path or run
  4    content is not what its digest says or is lost, or events are not those that were written
  130  interrupted by Ctrl-C

\b
Settings:
  LADING_URL          host:port, grpc://host:port, or grpcs://host:port for TLS
  LADING_API_KEY      where `lading login` keeps none
  LADING_ENTITY       the entity where a name says none; else the key's
  LADING_PROJECT      the project where a name says none; else `default`
  LADING_CACHE_DIR    where fetched files and digests are kept; `off` for nowhere
  LADING_CACHE_BYTES  how much of files; else 10737418240
  LADING_CA_FILE      whose certificates to believe, if not whose the system believes
  LADING_CLIENT_CERT  what to show to a server that asks, with LADING_CLIENT_KEY
  https_proxy         the way to servers that are not on this machine; no_proxy leaves some out
"""

# What other programs do, which have logs of their own.
_PROGRAMS = ("serve", "backup", "restore", "rebuild-index", "demo")

app = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False, rich_markup_mode=None, epilog=_EPILOG)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lading {version('lading')}")
        raise typer.Exit


@app.callback()
def lading(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keep data sets, checkpoints and models.

    A version is written [entity/][project/]name and then :alias, :vN or @b3:hex; without, :latest is meant. Next to a
    `lading serve` of the same user nothing has to be set.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif context.invoked_subcommand not in _PROGRAMS:
        # gRPC tells of connections that fail by lines of its own on stderr, before the one that says what to do.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


# They take the arguments of the program that they become, its --help too.
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

for _program in (programs.serve, programs.backup, programs.restore, programs.rebuild_index):
    app.command(context_settings=_PASSED_ON)(_program)
for _command in (
    account.login,
    account.whoami,
    transfers.put,
    transfers.get,
    lists.ls,
    versions.show,
    transfers.cat,
    names.alias,
    names.tag,
    names.ttl,
    names.link,
    names.unlink,
    versions.lineage,
    lists.search,
    versions.history,
    versions.diff,
    transfers.verify,
    deleting.delete,
    deleting.undelete,
    lists.runs,
    check.check,
    garbage.gc,
    garbage.explain,
):
    app.command()(_command)
for _name, _group in (
    ("collection", deleting.collection),
    ("project", deleting.project),
    ("key", members.key),
    ("member", members.member),
    ("rule", rules.app),
    ("retention", retention.app),
    ("entity", members.entity),
    ("audit", audit.app),
    ("cache", cache.app),
):
    app.add_typer(_group, name=_name)
app.command(context_settings=_PASSED_ON)(programs.demo)


def run(arguments: Sequence[str]) -> int:
    """Run a command; return what a shell is to see. Of what goes wrong, stderr has one line."""
    try:
        code = app(list(arguments), prog_name="lading", standalone_mode=False)
        flush_output()
        return _interrupted() if code == Exit.INTERRUPTED else int(code or Exit.FINE)
    except OutputClosed:
        return Exit.FINE
    except SystemExit as ended:
        # What Typer makes of help that nobody reads to its end; completion ends so too.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        discard_output()
        return Exit.FINE
    except LadingError as error:
        return _failed(" ".join([error.message, *_advice(error)]), EXITS[type(error)])
    except _UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "lading"
        return _failed(f"{error.format_message().rstrip('.')}. See `{where} --help`.".replace("?.", "?"), Exit.USAGE)
    except OSError as error:
        return _failed(f"{error.filename or 'the system'}: {error.strerror or error}", Exit.FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()


def _advice(error: LadingError) -> list[str]:
    return [ADVICE[type(error)]] if type(error) in ADVICE else []


def _failed(message: str, code: Exit) -> Exit:
    try:
        flush_output()
    except OSError:
        # It may be what the message is about; the interpreter would try once more, and end with a code of its own.
        discard_output()
    print_message(f"lading: {message}")
    return code


def _interrupted() -> Exit:
    return _failed("interrupted", Exit.INTERRUPTED)


def main() -> None:
    """Run the command line."""
    # After `>&-` Python has no stream there at all, and work would end at the first thing to print.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
