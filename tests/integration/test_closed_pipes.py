"""Commands whose reader went away, as in `lading … | head`. A listing ends; all else goes on to its own exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lading.sync
from tests.support.check import flip
from tests.support.command_line import LADING, CommandLine
from tests.support.server import ServerProcess

# By default Python keeps a few kilobytes: then a short output fails when it is flushed at the end, and not before.
BUFFERED, EVERY_WRITE_FAILS = "", "1"


@dataclass(frozen=True)
class Ended:
    """How a command ended. `told` is what stderr had, where somebody read that."""

    code: int
    told: str = ""


def unread(cli: CommandLine, *arguments: str, unbuffered: str = BUFFERED, stderr_too: bool = False) -> Ended:
    """Run a command whose output goes into a pipe that its reader has closed; with `stderr_too`, as after 2>&1."""
    environment = {**cli.environment, "PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        stderr = subprocess.STDOUT if stderr_too else subprocess.PIPE
        done = subprocess.run(
            [*LADING, *arguments], env=environment, stdout=writer, stderr=stderr, text=True, timeout=120, check=False
        )
    finally:
        os.close(writer)
    return Ended(done.returncode, done.stderr or "")


@pytest.fixture
def cli(shared_server: ServerProcess, tmp_path: Path, request: pytest.FixtureRequest) -> CommandLine:
    """A user of the module's server. Every test has a project of its own."""
    project = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:100]
    return CommandLine(tmp_path / "home", LADING_URL=shared_server.target, LADING_PROJECT=project)


@pytest.fixture
def client(cli: CommandLine) -> Iterator[lading.sync.Client]:
    """The same user from Python, which sets up and looks in a tenth of the time."""
    with lading.sync.Client(cli.environment["LADING_URL"], project=cli.environment["LADING_PROJECT"]) as opened:
        yield opened


@pytest.fixture
def references(client: lading.sync.Client, tmp_path: Path) -> list[str]:
    """The versions of a collection `digits`."""
    made = []
    for number in range(3):
        (tmp_path / "file").write_text(str(number))
        made.append(client.put(tmp_path / "file", "digits", type="model").version.reference)
    return made


@pytest.fixture
def dataset(client: lading.sync.Client, tmp_path: Path) -> Path:
    """A directory that is stored as `dataset`."""
    root = tmp_path / "dataset"
    root.mkdir()
    (root / "file").write_bytes(bytes(1 << 20))
    client.put(root, "dataset", type="dataset")
    return root


def numbers(client: lading.sync.Client) -> list[int]:
    """Which versions of `digits` there are."""
    return sorted(version.number for version in client.versions("digits"))


@pytest.mark.parametrize("stderr_too", [False, True])
@pytest.mark.parametrize("unbuffered", [BUFFERED, EVERY_WRITE_FAILS])
def test_verify_ends_with_4_where_something_differs(
    cli: CommandLine, dataset: Path, unbuffered: str, stderr_too: bool
) -> None:
    for number in range(3):
        (dataset / f"extra{number}").write_bytes(b"")
    ended = unread(cli, "verify", "dataset", str(dataset), unbuffered=unbuffered, stderr_too=stderr_too)
    assert ended.code == 4
    assert stderr_too or re.fullmatch(r"lading: .* 3 extra\. .*\n", ended.told)


def test_verify_ends_with_4_where_more_differs_than_is_buffered(cli: CommandLine, dataset: Path) -> None:
    for number in range(3000):
        (dataset / f"extra{number:04}").write_bytes(b"")
    assert unread(cli, "verify", "dataset", str(dataset)).code == 4


@pytest.mark.parametrize(("as_json", "stderr_too"), [([], False), (["--json"], False), ([], True)])
def test_delete_deletes_all_that_it_was_told_to(
    cli: CommandLine, client: lading.sync.Client, references: list[str], as_json: list[str], stderr_too: bool
) -> None:
    ended = unread(cli, "delete", *references, *as_json, unbuffered=EVERY_WRITE_FAILS, stderr_too=stderr_too)
    assert ended == Ended(0)
    assert numbers(client) == []


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&-"])
def test_delete_deletes_all_where_there_is_no_stdout_at_all(
    cli: CommandLine, client: lading.sync.Client, references: list[str], redirected: str
) -> None:
    command = ["sh", "-c", f'exec "$@" {redirected}', "sh", *LADING, "delete", *references]
    done = subprocess.run(command, env=cli.environment, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert numbers(client) == []


@pytest.mark.parametrize("unbuffered", [BUFFERED, EVERY_WRITE_FAILS])
def test_a_delete_that_fails_ends_with_its_own_code_and_one_line(
    cli: CommandLine, client: lading.sync.Client, references: list[str], unbuffered: str
) -> None:
    ended = unread(cli, "delete", *references[:2], "digits:v9", unbuffered=unbuffered)
    assert ended.code == 3
    assert re.fullmatch(r"lading: .*v9.*\n", ended.told)
    assert numbers(client) == [2]


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_delete_by_a_filter_tells_what_it_came_to(
    cli: CommandLine, client: lading.sync.Client, as_json: list[str]
) -> None:
    client.set_aliases("digits:v0", set=["best"])
    ended = unread(cli, "delete", "--in", "digits", "--yes", *as_json, unbuffered=EVERY_WRITE_FAILS)
    assert ended.code == 0
    assert ended.told.startswith("2 versions deleted, 1 left; ")
    assert numbers(client) == [0]


def test_undelete_brings_all_back(cli: CommandLine, client: lading.sync.Client, references: list[str]) -> None:
    for reference in references:
        client.delete(reference)
    assert unread(cli, "undelete", *references, unbuffered=EVERY_WRITE_FAILS) == Ended(0)
    assert numbers(client) == [0, 1, 2]


@pytest.mark.usefixtures("references")
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_retention_is_applied_to_its_end(cli: CommandLine, client: lading.sync.Client, as_json: list[str]) -> None:
    client.set_retention_rule("digits", keep_last=1)
    ended = unread(cli, "retention", "apply", "digits", *as_json, unbuffered=EVERY_WRITE_FAILS)
    assert ended.code == 0
    assert ended.told.startswith("deleted 2 versions, ")
    assert numbers(client) == [2]


def test_check_ends_with_4_where_something_is_lost(server: ServerProcess, tmp_path: Path) -> None:
    cli = CommandLine(tmp_path / "home", LADING_URL=server.target)
    payload = bytes(range(256)) * 300
    (tmp_path / "file").write_bytes(payload)
    cli("put", str(tmp_path / "file"), "digits", "--type", "dataset")
    (pack,) = [path for path in (server.data / "packs").rglob("*.pack") if payload in path.read_bytes()]
    flip(pack, pack.read_bytes().index(payload))
    for unbuffered in (BUFFERED, EVERY_WRITE_FAILS):
        assert unread(cli, "check", "--level", "4", unbuffered=unbuffered) == Ended(4)


@pytest.mark.parametrize(
    "command",
    [
        ["ls", "digits"],
        ["ls", "digits", "--json"],
        ["history", "digits"],
        ["history", "digits", "--json"],
        ["diff", "digits:v0", "digits:v1"],
        ["diff", "digits:v0", "digits:v1", "--json"],
        ["show", "digits"],
    ],
)
@pytest.mark.usefixtures("references")
def test_a_listing_is_fine(cli: CommandLine, command: list[str]) -> None:
    assert unread(cli, *command) == Ended(0)
    assert unread(cli, *command, unbuffered=EVERY_WRITE_FAILS, stderr_too=True) == Ended(0)


@pytest.mark.usefixtures("dataset")
def test_a_file_that_nobody_reads_is_fine(cli: CommandLine) -> None:
    assert unread(cli, "cat", "dataset", "file") == Ended(0)


def test_a_listing_whose_reader_has_seen_enough_is_fine(
    cli: CommandLine, client: lading.sync.Client, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(3000):
        (many / f"{number:05}").write_bytes(b"")
    client.put(many, "many", type="dataset")
    process = cli.start("ls", "many:latest", "-r", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["path"] == "00000"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize("command", [["--help"], ["delete", "--help"], ["cache"]])
def test_help_is_fine(cli: CommandLine, command: list[str]) -> None:
    assert unread(cli, *command) == Ended(0)


@pytest.mark.usefixtures("references")
def test_a_full_disk_is_told_in_one_line(cli: CommandLine) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*LADING, "ls"],
            env=cli.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left" in done.stderr
