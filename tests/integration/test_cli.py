"""The command line against a real server, each command in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import lading
from tests.support.command_line import LADING, CommandLine
from tests.support.server import ServerProcess, running_server


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants keys, as every one does that is not told otherwise."""
    with running_server(tmp_path_factory.mktemp("keyed") / "server-data", auth="keys") as process:
        yield process


@pytest.fixture
def cli(keyed_server: ServerProcess, tmp_path: Path, request: pytest.FixtureRequest) -> CommandLine:
    """The user next to the server: told its address and no key. Every test has a project of its own."""
    project = re.sub(r"[^a-z0-9]+", "-", request.node.name)[:100]
    return CommandLine(
        tmp_path / "home",
        XDG_RUNTIME_DIR=str(keyed_server.runtime),
        LADING_URL=keyed_server.target,
        LADING_PROJECT=project,
    )


@pytest.fixture
def stranger(keyed_server: ServerProcess, tmp_path: Path) -> CommandLine:
    """A user of the same server who has no key and sees none."""
    runtime = tmp_path / "other-runtime"
    runtime.mkdir(mode=0o700)
    return CommandLine(tmp_path / "other-home", XDG_RUNTIME_DIR=str(runtime), LADING_URL=keyed_server.target)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A directory with what needs care: an executable, an empty file, odd names, bytes that are no text."""
    root = tmp_path / "dataset"
    (root / "train" / "deep").mkdir(parents=True)
    (root / "train/0001.png").write_bytes(bytes(range(256)) * 300)
    (root / "train/deep/empty").write_bytes(b"")
    (root / "a name with 'quotes' and ünïcode").write_bytes(b"odd")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    return root


def _content(root: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), os.access(path, os.X_OK))
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def _read_until(terminal: int, words: bytes) -> bytes:
    """Return what a terminal shows up to these words, and whatever came with them."""
    shown = b""
    while words not in shown:
        shown += os.read(terminal, 4096)
    return shown


def _line(cli: CommandLine, *arguments: str) -> str:
    """Return the only line that a command prints."""
    (line,) = cli(*arguments).splitlines()
    return line


def test_serve_and_put_work_with_nothing_configured_but_the_address(dataset: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    user = CommandLine(tmp_path / "home", XDG_RUNTIME_DIR=str(runtime))
    server = user.start("serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert server.stdout is not None
    try:
        ready = re.search(r"is ready at (\S+) .*admin key in (\S+)\)", server.stdout.readline())
        assert ready is not None
        assert os.stat(ready[2]).st_mode & 0o777 == 0o600
        user = CommandLine(tmp_path / "home", XDG_RUNTIME_DIR=str(runtime), LADING_URL=ready[1])
        assert _line(user, "put", str(dataset), "digits", "--type", "dataset") == "default/default/digits:v0"
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert server.returncode == 0


def test_put_prints_the_reference_and_nothing_else(cli: CommandLine, dataset: Path) -> None:
    done = cli.run("put", str(dataset), "vision/prints", "--type", "dataset")
    assert done.stdout == "default/vision/prints:v0\n"
    assert re.fullmatch(r"stored 4 files, 76\.8 kB; [0-9.]+ k?B sent\n", done.stderr)


def test_what_is_got_is_what_was_put(cli: CommandLine, dataset: Path, tmp_path: Path) -> None:
    reference = _line(cli, "put", str(dataset), "digits", "--type", "dataset")
    copy = tmp_path / "copy"
    assert _line(cli, "get", reference, "-o", str(copy)) == str(copy)
    assert _content(copy) == _content(dataset)
    assert _content(copy)["run.sh"][1]
    assert not _content(copy)["train/0001.png"][1]
    assert cli("get", "digits", "--prefix", "train/", cwd=tmp_path).strip() == "artifacts/digits:v0"
    below = {path: content for path, content in _content(dataset).items() if path.startswith("train/")}
    assert _content(tmp_path / "artifacts/digits:v0") == below


def test_a_single_file_keeps_its_name(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    reference = _line(cli, "put", str(tmp_path / "model.safetensors"), "mlp", "--type", "model")
    assert [entry["path"] for entry in cli.json_lines("ls", reference)] == ["model.safetensors"]


def test_putting_the_same_again_makes_no_version_and_sets_aliases(cli: CommandLine, dataset: Path) -> None:
    first = cli.json("put", str(dataset), "digits", "--type", "dataset")
    again = cli.json("put", str(dataset), "digits", "--alias", "best", "--tag", "checked")
    assert (first["created"], again["created"]) == (True, False)
    assert (again["reference"], again["bytes_sent"]) == (first["reference"], 0)
    assert (again["aliases"], again["tags"]) == (["best", "latest"], ["checked"])


def test_put_takes_everything_that_can_be_said_of_a_version(cli: CommandLine, dataset: Path) -> None:
    said = ["--type", "dataset", "--alias", "a", "--alias", "b", "--tag", "t", "--description", "# Digits"]
    said += ["--metadata", "accuracy=0.93", "--metadata", "note=by hand", "--metadata", 'labels=["0"]']
    cli("put", str(dataset), "digits", *said, "--exclude", "*.sh", "--include", "train", "--include", "*.sh")
    shown = cli.json("show", "digits:a")
    assert shown["aliases"] == ["a", "b", "latest"]
    assert (shown["type"], shown["tags"], shown["description"]) == ("dataset", ["t"], "# Digits")
    assert shown["metadata"] == {"accuracy": 0.93, "note": "by hand", "labels": ["0"]}
    assert [entry["path"] for entry in cli.json_lines("ls", "digits:a", "-r")] == ["train/0001.png", "train/deep/empty"]
    told = cli("show", "digits:a")
    assert re.search(r"^aliases +a, b, latest$", told, re.MULTILINE)
    assert re.search(r"^metadata +accuracy = 0.93$", told, re.MULTILINE)


def test_a_new_collection_without_a_type_says_what_is_missing(cli: CommandLine, dataset: Path) -> None:
    code, told = cli.refused("put", str(dataset), "typeless")
    assert code == 2
    assert "type" in told


def test_ls_goes_from_projects_to_files(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "shelf/digits", "--type", "dataset")
    assert "shelf" in [project["name"] for project in cli.json_lines("ls")]
    assert [found["reference"] for found in cli.json_lines("ls", "shelf")] == ["default/shelf/digits"]
    assert [found["reference"] for found in cli.json_lines("ls", "shelf/digits")] == ["default/shelf/digits:v0"]
    folded = [(entry["path"], entry["kind"]) for entry in cli.json_lines("ls", "shelf/digits:latest")]
    assert ("train/", "directory") in folded
    assert len(folded) == 3
    assert [entry["path"] for entry in cli.json_lines("ls", "shelf/digits:v0", "--prefix", "train/")] == [
        "train/0001.png",
        "train/deep/",
    ]
    assert len(cli.json_lines("ls", "shelf/digits:v0", "--recursive", "-n", "2")) == 2
    lines = cli("ls", "shelf/digits").splitlines()
    assert lines[0].split() == ["VERSION", "ALIASES", "TYPE", "FILES", "SIZE", "CREATED", "BY"]
    assert lines[1].startswith("shelf/digits:v0  latest   dataset  4      76.8 kB  20")
    assert "run.sh*" in cli("ls", "shelf/digits:v0")


def test_a_name_is_a_collection_first_and_a_project_with_a_slash(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "twice", "--type", "dataset")
    cli("put", str(dataset), "twice/inner", "--type", "dataset")
    assert [found["collection"] for found in cli.json_lines("ls", "twice")] == ["twice"]
    assert [found["name"] for found in cli.json_lines("ls", "twice/")] == ["inner"]


def test_what_is_not_there_ends_with_3(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset")
    for arguments in (
        ["show", "digits:v7"],
        ["show", "nothing"],
        ["get", "digits:none"],
        ["cat", "digits", "none.txt"],
        ["ls", "nothing"],
        ["ls", "nothing/"],
        ["runs", "nothing"],
        ["history", "nothing"],
        ["verify", "nothing", str(dataset)],
        ["delete", "digits:v7"],
    ):
        code, told = cli.refused(*arguments)
        assert code == 3, told


def test_cat_prints_bytes_as_they_are(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset")
    command = [*LADING, "cat", "digits", "train/0001.png"]
    done = subprocess.run(command, env=cli.environment, capture_output=True, timeout=60, check=True)
    assert done.stdout == (dataset / "train/0001.png").read_bytes()


def test_aliases_and_tags_are_set_and_removed(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset", "--alias", "old", "--tag", "raw")
    reference = cli.json("show", "digits")["reference"]
    assert _line(cli, "alias", "digits", "--set", "best", "--set", "prod", "--remove", "old") == (
        f"{reference}  best, latest, prod"
    )
    assert _line(cli, "tag", "digits:best", "--add", "clean", "--remove", "raw") == f"{reference}  clean"
    code, told = cli.refused("alias", "digits", "--set", "v7")
    assert code == 2
    assert "looks like a version" in told


def test_a_link_is_numbered_named_and_taken_away(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset")
    link = "default/model-registry/Digit Data"
    assert _line(cli, "link", "digits", "Digit Data", "--alias", "staging") == f"{link}:v0  latest, staging"
    assert _line(cli, "link", "digits", "model-registry/Digit Data", "--alias", "prod") == (
        f"{link}:v0  latest, prod, staging"
    )
    assert cli.json("show", f"{link}:staging")["source"].endswith("/digits:v0")
    code, told = cli.refused("unlink", f"{link}:v0")
    assert code == 1
    assert "staging" in told
    code, told = cli.refused("delete", f"{link}:v0")
    assert code == 1
    assert _line(cli, "unlink", f"{link}:v0", "--force") == f"{link}:v0"
    assert cli.json("show", "digits")["number"] == 0


def test_delete_deletes_what_is_not_in_use_and_more_with_force(cli: CommandLine, dataset: Path) -> None:
    reference = _line(cli, "put", str(dataset), "digits", "--type", "dataset", "--alias", "best")
    code, told = cli.refused("delete", "digits:v0")
    assert code == 1
    assert "best" in told
    assert _line(cli, "delete", "digits:v0", "--force") == reference
    assert cli.refused("show", "digits:v0")[0] == 3


def test_history_tells_who_did_what(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset", "--alias", "best")
    (dataset / "more").write_bytes(b"1")
    cli("put", str(dataset), "digits", "--alias", "best")
    told = cli("history", "digits")
    assert re.search(r"admin +127\.0\.0\.1 +alias\.set +best: v0 -> v1$", told, re.MULTILINE)
    assert re.search(r"admin +127\.0\.0\.1 +version\.committed +v0, 4 files, 76\.8 kB$", told, re.MULTILINE)
    events = cli.json_lines("history", "digits")
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(revisions, reverse=True)
    assert len(cli.json_lines("history", "digits", "-n", "1")) == 1
    (committed,) = [event for event in cli.json_lines("history", "digits:v1") if event["kind"] == "version.committed"]
    assert committed["after"]["number"] == 1


def test_diff_lists_what_differs(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset")
    (dataset / "train/0001.png").write_bytes(b"smaller")
    (dataset / "run.sh").unlink()
    (dataset / "new\x1b[31m").write_bytes(b"")
    cli("put", str(dataset), "digits")
    assert cli("diff", "digits:v0", "digits:v1").splitlines() == [
        "+ new\\x1b[31m  (0 B)",
        "- run.sh  (10 B)",
        "~ train/0001.png  (76.8 kB -> 7 B)",
    ]
    kinds = {change["path"]: change["kind"] for change in cli.json_lines("diff", "digits:v0", "digits:v1")}
    assert kinds == {"new\x1b[31m": "added", "run.sh": "removed", "train/0001.png": "changed"}
    assert cli("diff", "digits:v1", "digits:latest") == ""


def test_verify_ends_with_4_where_something_differs(cli: CommandLine, dataset: Path) -> None:
    cli("put", str(dataset), "digits", "--type", "dataset")
    done = cli.run("verify", "digits", str(dataset))
    assert (done.returncode, done.stdout) == (0, "")
    (dataset / "run.sh").chmod(0o644)
    (dataset / "train/deep/empty").unlink()
    (dataset / "extra").write_bytes(b"")
    done = cli.run("verify", "digits", str(dataset))
    assert done.returncode == 4
    assert sorted(done.stdout.splitlines()) == ["changed  run.sh", "extra  extra", "missing  train/deep/empty"]
    assert done.stderr.count("\n") == 1
    told = json.loads(cli.run("verify", "digits", str(dataset), "--json").stdout)
    assert (told["ok"], told["changed"], told["extra"]) == (False, ["run.sh"], ["extra"])


def test_search_finds_by_what_was_said(cli: CommandLine, dataset: Path) -> None:
    for accuracy in (0.5, 0.95, 0.8):
        (dataset / "weights").write_text(str(accuracy))
        cli("put", str(dataset), "searched", "--type", "model", "--metadata", f"found_accuracy={accuracy}")
    found = cli.json_lines("search", "metadata.found_accuracy > 0.7", "--order-by", "metadata.found_accuracy desc")
    assert [version["number"] for version in found] == [1, 2]
    assert len(cli.json_lines("search", "name=searched", "alias=latest")) == 1
    code, told = cli.refused("search", "created ~")
    assert code == 2
    assert "character" in told


async def test_lineage_and_runs_tell_how_a_version_came_to_be(
    cli: CommandLine, keyed_server: ServerProcess, dataset: Path
) -> None:
    await asyncio.to_thread(cli, "put", str(dataset), "line/digits", "--type", "dataset")
    url, api_key = keyed_server.target, keyed_server.api_key
    async with lading.init("line", name="first-try", job_type="train", url=url, api_key=api_key) as run:
        await run.use_artifact("digits:latest")
        model = lading.Artifact("mlp", type="model")
        model.add_file(dataset / "run.sh")
        await run.log_artifact(model)
    told = await asyncio.to_thread(cli, "lineage", "line/digits:v0")
    assert told.splitlines() == [
        "line/digits:v0 (dataset, latest)",
        "└── to",
        "    └── run first-try (train, finished)",
        "        └── line/mlp:v0 (model, latest)",
    ]
    dot = await asyncio.to_thread(cli, "lineage", "line/mlp", "--format", "dot", "--direction", "upstream")
    assert dot.count("->") == 2
    graph = await asyncio.to_thread(cli.json, "lineage", "line/mlp", "--format", "json", "--depth", "1")
    assert {edge["kind"] for edge in graph["edges"]} == {"used", "logged"}
    (listed,) = await asyncio.to_thread(cli.json_lines, "runs", "line")
    assert (listed["name"], listed["job_type"], listed["state"]) == ("first-try", "train", "finished")
    lines = (await asyncio.to_thread(cli, "runs", "line")).splitlines()
    assert lines[0].split() == ["RUN", "NAME", "PROJECT", "JOB", "STATE", "CREATED", "ENDED"]
    assert len(lines) == 2


def test_without_a_key_the_way_to_one_is_told(stranger: CommandLine) -> None:
    code, told = stranger.refused("ls")
    assert code == 1
    assert "lading login" in told


def test_login_checks_and_keeps_a_key(stranger: CommandLine, keyed_server: ServerProcess) -> None:
    code, told = stranger.refused("login", "-", stdin="lading_wrong\n")
    assert code == 1
    assert stranger.refused("whoami")[0] == 1
    told = stranger("login", "-", "--host", keyed_server.target, stdin=f"{keyed_server.api_key}\n")
    kept = Path(told.strip().rpartition(" in ")[2])
    assert kept.stat().st_mode & 0o777 == 0o600
    assert keyed_server.api_key not in told
    assert {name: value for name, value in stranger.json("whoami").items() if not name.endswith("_bytes")} == {
        "url": f"grpc://{keyed_server.target}",
        "principal": "admin",
        "entity": "default",
        "role": "admin",
        "key_id": keyed_server.api_key.split("_")[1],
    }
    assert "before" in stranger("login")
    # A key that was revoked is not asked about again and again: there is a new one to be given.
    kept.write_text(kept.read_text().replace(keyed_server.api_key, "lading_revoked"))
    assert stranger.refused("login") == (
        2,
        "lading: There is no terminal to ask for the key. Write it to stdin: lading login -",
    )
    assert "before" not in stranger("login", "-", "--relogin", stdin=f"{keyed_server.api_key}\n")


def test_login_asks_without_echo(stranger: CommandLine, keyed_server: ServerProcess) -> None:
    terminal, side = pty.openpty()
    # A session of its own, so that it finds no other terminal to ask at.
    with subprocess.Popen(
        [*LADING, "login"], env=stranger.environment, stdin=side, stdout=side, stderr=side, start_new_session=True
    ) as process:
        shown = _read_until(terminal, b"API key: ")
        os.write(terminal, f"{keyed_server.api_key}\n".encode())
        shown += _read_until(terminal, b"logged in as admin of default")
        assert process.wait(60) == 0
    os.close(terminal)
    os.close(side)
    assert keyed_server.api_key.encode() not in shown
    assert stranger.json("whoami")["principal"] == "admin"


def test_a_transfer_on_a_terminal_shows_a_bar_and_stdout_stays_clean(cli: CommandLine, dataset: Path) -> None:
    terminal, side = pty.openpty()
    environment = {**cli.environment, "TERM": "xterm", "COLUMNS": "120"}
    command = [*LADING, "put", str(dataset), "a/digits", "--type", "dataset"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=side) as process:
        shown = _read_until(terminal, b"stored 4 files")
        out, _ = process.communicate(timeout=60)
    os.close(terminal)
    os.close(side)
    assert (process.returncode, out) == (0, b"default/a/digits:v0\n")
    assert b"uploading" in shown


def test_ctrl_c_ends_with_130_and_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cli = CommandLine(tmp_path, LADING_URL=f"127.0.0.1:{silent.getsockname()[1]}", LADING_API_KEY="key")
        process = cli.start("ls")
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "lading: interrupted\n")


def test_content_that_is_damaged_at_the_server_ends_with_4(tmp_path: Path, dataset: Path) -> None:
    with running_server(tmp_path / "server" / "data", auth="keys") as server:
        cli = CommandLine(tmp_path / "home", XDG_RUNTIME_DIR=str(server.runtime), LADING_URL=server.target)
        cli("put", str(dataset), "digits", "--type", "dataset")
        payload = (dataset / "train/0001.png").read_bytes()
        damaged = 0
        for pack in server.data.rglob("*"):
            content = pack.read_bytes() if pack.is_file() else b""
            if payload in content:
                pack.write_bytes(content.replace(payload, payload[:-1] + b"\x00"))
                damaged += 1
        assert damaged == 1
        code, told = cli.refused("cat", "digits", "train/0001.png")
        assert code == 4, told
        shutil.rmtree(tmp_path / "home", ignore_errors=True)
        assert cli.run("get", "digits", "-o", str(tmp_path / "copy")).returncode == 4
        assert not (tmp_path / "copy/train/0001.png").exists()
