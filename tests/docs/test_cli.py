"""docs/cli.md says what the command line is, and the README's session with it runs."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

import lading
from lading._cli.exits import Exit
from lading._cli.main import app
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess, running_server

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/cli.md").read_text()


def _commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Return every command by its words: those of a group in its place."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= _commands(command, f"{prefix}{name} ") if hasattr(command, "commands") else {prefix + name: command}
    return found


COMMANDS = _commands(typer.main.get_command(app))
VALUES: dict[str, type] = {
    "version": lading.Version,
    "collection": lading.Collection,
    "project": lading.Project,
    "delete result": lading.DeleteResult,
    "undeleted version": lading.Undeleted,
    "collection progress": lading.CollectionProgress,
    "project progress": lading.ProjectProgress,
    "file": lading.ListedEntry,
    "change": lading.PathChange,
    "event": lading.Event,
    "run": lading.RunInfo,
    "lineage": lading.Lineage,
    "key": lading.Key,
    "new key": lading.NewKey,
    "member": lading.Member,
    "rule": lading.AliasRule,
    "retention rule": lading.RetentionRule,
    "retention verdict": lading.RetentionVerdict,
    "entity": lading.EntityInfo,
    "audit report": lading.AuditReport,
    "cache": lading.CacheInfo,
    "pruning": lading.CachePruned,
    "cache check": lading.CacheCheck,
    "finding": lading.CheckFinding,
    "hurt version": lading.HurtVersion,
    "check summary": lading.CheckSummary,
    "entity collection": lading.EntityCollection,
    "explanation": lading.Explanation,
}


def _sections(heading: str) -> dict[str, str]:
    """Return the sections of a chapter of docs/cli.md by their headings."""
    chapter = re.split(r"^## ", REFERENCE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    _, *parts = re.split(r"^### (.+)$", chapter, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _rows(command: Any) -> set[str]:
    """Return the rows that the table of a command should have."""
    rows = set()
    for parameter in command.params:
        if not getattr(parameter, "help", None) or parameter.name == "help":
            continue
        if parameter.param_type_name == "argument":
            label = f"`{parameter.metavar}`"
        else:
            names = ", ".join(f"`{name}`" for name in parameter.opts)
            label = names if parameter.is_flag else f"{names} `{parameter.metavar}`"
        rows.add(f"| {label} | {parameter.help} |".replace("|", "\\|").replace("\\| ", "| ").replace(" \\|", " |"))
    return rows


def test_every_command_has_its_section_in_the_order_of_the_help() -> None:
    assert list(_sections("Commands")) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_says_what_the_help_says(name: str) -> None:
    section, command = _sections("Commands")[name], COMMANDS[name]
    assert _squeezed(inspect.cleandoc(command.help)) in _squeezed(section)
    told = {row.replace("\\|", "|") for row in re.findall(r"^\| .+ \|$", section, re.MULTILINE)}
    assert told - {"| | |"} == {row.replace("\\|", "|") for row in _rows(command)}
    usage = section.partition("    lading ")[2].splitlines()[0].replace("[", "").replace("]", "").split()
    arguments = [parameter.metavar for parameter in command.params if parameter.param_type_name == "argument"]
    assert [word.removesuffix("...") for word in usage] == [*name.split(), *arguments, "OPTIONS"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_with_json_says_of_what_form(name: str) -> None:
    has_json = any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert ("\n`--json`: " in _sections("Commands")[name]) == has_json
    assert has_json == (name not in {"serve", "backup", "restore", "rebuild-index", "cat", "demo"})


@pytest.mark.parametrize("name", VALUES)
def test_a_document_has_the_fields_that_are_listed(name: str) -> None:
    listed = re.findall(r"`(\w+)`", _sections("JSON")[name].partition("Fields: ")[2].partition(".\n")[0])
    expected = [field.name for field in fields(VALUES[name]) if field.repr]
    assert listed == (["reference"] if hasattr(VALUES[name], "reference") else []) + expected


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", REFERENCE, re.MULTILINE)] == sorted(Exit)


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server as the README starts one."""
    with running_server(tmp_path_factory.mktemp("keyed") / "lading-data", auth="keys") as process:
        yield process


def test_the_session_of_the_readme_runs(keyed_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "dataset/train").mkdir(parents=True)
    (tmp_path / "dataset/train/0001.png").write_bytes(b"image")
    (tmp_path / "dataset/labels.csv").write_bytes(b"0001,7\n")
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("\n## From the shell\n")[2].partition("\n## ")[0]
    session = re.findall(r"^    \$ lading (.+)\n((?:    (?!\$).*\n)*)", section, re.MULTILINE)
    assert len(session) > 5
    cli = CommandLine(tmp_path / "home", XDG_RUNTIME_DIR=str(keyed_server.runtime), LADING_URL=keyed_server.target)
    for command, shown in session:
        told = cli(*shlex.split(command), cwd=tmp_path)
        expected = re.escape(inspect.cleandoc(shown)).replace("…", ".*")
        assert re.fullmatch(expected, told.rstrip("\n")), (command, told)
