"""The command line before it reaches a server: usage, starting, completion, metadata."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lading._cli import programs
from lading._cli.main import run
from lading._cli.transfers import parse_metadata

LADING = [sys.executable, "-c", "from lading._cli.main import main; main()"]


def _lading(*arguments: str, home: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LADING_", "XDG_"))}
    return subprocess.run(
        [*LADING, *arguments],
        env={**kept, "HOME": str(home), **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["put", "--help"]])
def test_help_and_version_load_neither_grpc_nor_rich(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from lading._cli.main import run\n"
        f"code = run({arguments!r})\n"
        "print(code, sorted({'grpc', 'google.protobuf', 'lading_proto', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert capsys.readouterr().out.startswith("Usage: lading ")


@pytest.mark.parametrize(
    ("arguments", "problem", "advice"),
    [
        (["put", "."], "Missing argument", "See `lading put --help`."),
        (["pout"], "No such command 'pout'", "See `lading --help`."),
        (["ls", "--no-such-option"], "No such option: --no-such-option", "See `lading ls --help`."),
        (["put", ".", "x", "--metadata", "a"], "'a' is not KEY=VALUE", "See `lading put --help`."),
        (["lineage", "x", "--depth", "101"], "--depth", "See `lading lineage --help`."),
        (["alias", "x"], "There is nothing to change.", "Give --set or --remove."),
        (["tag", "x"], "There is nothing to change.", "Give --add or --remove."),
    ],
)
def test_a_mistake_in_usage_is_one_line_and_ends_with_2(
    arguments: list[str], problem: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("lading: ")
    assert problem in captured.err
    assert captured.err.endswith(f"{advice}\n")


def test_a_malformed_reference_is_a_mistake_in_usage(tmp_path: Path) -> None:
    done = _lading("show", "a/b/c/d:v1", home=tmp_path, LADING_ENTITY="acme", LADING_URL="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lading: ")
    assert "too many parts" in done.stderr


def test_a_path_that_is_not_there_is_a_mistake_in_usage(tmp_path: Path) -> None:
    done = _lading("put", str(tmp_path / "nothing"), "digits", home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nothing" in done.stderr


def test_a_server_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = _lading("ls", home=tmp_path, LADING_URL=address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"lading: No answer from {address}")


def test_an_address_that_is_none_is_told_before_anything_is_tried(tmp_path: Path) -> None:
    done = _lading("whoami", home=tmp_path, LADING_URL="http://example.com")
    assert done.returncode == 2
    assert "grpcs://" in done.stderr


def test_login_takes_no_key_from_the_command_line(tmp_path: Path) -> None:
    done = _lading("login", "secret", home=tmp_path)
    assert done.returncode == 2
    assert "stdin: lading login -" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_login_without_a_terminal_says_what_to_do(tmp_path: Path) -> None:
    done = _lading("login", home=tmp_path)
    assert done.returncode == 2
    assert "stdin: lading login -" in done.stderr


def test_metadata_is_json_where_it_can_be_and_else_text() -> None:
    pairs = ["accuracy=0.93", "ok=true", 'labels=["a"]', "note=hand = checked", "empty=", "nan=NaN", 'text="7"']
    assert parse_metadata(pairs) == {
        "accuracy": 0.93,
        "ok": True,
        "labels": ["a"],
        "note": "hand = checked",
        "empty": "",
        "nan": "NaN",
        "text": "7",
    }


@pytest.mark.parametrize("pairs", [["accuracy"], ["=1"], ["a=1", "a=2"]])
def test_metadata_that_is_no_pair_or_comes_twice_is_refused(pairs: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        parse_metadata(pairs)


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    done = _lading(home=tmp_path, _LADING_COMPLETE="complete_bash", COMP_WORDS="lading li", COMP_CWORD="1")
    assert sorted(done.stdout.split()) == ["lineage", "link"]


def test_a_program_that_is_not_installed_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        programs.need(("no_such_module",), "it is not installed; run: pip install it")
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "lading: it is not installed; run: pip install it\n"


def test_serve_hands_its_arguments_to_the_server(tmp_path: Path) -> None:
    done = _lading("serve", "--help", home=tmp_path)
    assert done.returncode == 0
    assert "--data" in done.stdout
