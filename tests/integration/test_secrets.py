"""Secrets: what a whole session leaves behind, searched for every secret that it used."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

import lading
from lading._config import Settings, Wishes, settle, wishes_from
from lading_server.common.database import open_database
from lading_server.common.keys import new_key, parse_key
from lading_server.registry.store.schema import metadata
from tests.support.command_line import LADING, CommandLine
from tests.support.postgres import create_database, drop_database
from tests.support.server import ServerProcess, running_server

# The files that may hold a key, by name: of the first start, of `lading login`, and the one that the test writes.
KEY_FILES = {"admin.key", "operator.key", "service.key", "credentials"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Site(NamedTuple):
    """Ingest and registry as two processes at debug level, the registry over PostgreSQL with a password."""

    directory: Path
    ingest: ServerProcess
    registry: ServerProcess
    metrics_ports: tuple[int, int]
    database_url: str
    secrets: dict[str, str]
    """By what they are: searched for in everything that is left behind."""


@asynccontextmanager
async def site_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    password = f"pw{secrets.token_hex(16)}"
    plain_url = await create_database()
    url = make_url(plain_url).set(password=password).render_as_string(hide_password=False)
    service_key = secrets.token_hex(32)
    (directory / "service.key").write_text(service_key)
    ports = free_port(), free_port()
    at = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    shared = ("--service-key-file", str(directory / "service.key"), "--log-level", "debug", "--key-cache-seconds", "0")
    # A password belongs into the environment: every user of a machine sees its command lines.
    monkeypatch.setenv("LADING_REGISTRY_DATABASE_URL", url)
    try:
        with ExitStack() as stack:
            ingest = stack.enter_context(
                running_server(
                    directory / "ingest",
                    *("--services", "ingest", "--listen", at[0], "--registry-target", at[1]),
                    *("--metrics-port", str(ports[0]), *shared),
                    auth="keys",
                )
            )
            registry = stack.enter_context(
                running_server(
                    directory / "registry",
                    *("--services", "registry", "--listen", at[1], "--ingest-target", at[0]),
                    *("--metrics-port", str(ports[1]), *shared),
                    auth="keys",
                )
            )
            monkeypatch.delenv("LADING_REGISTRY_DATABASE_URL")
            known = {"the database's password": password, "the service key": service_key}
            yield Site(directory, ingest, registry, ports, url, known)
    finally:
        await drop_database(plain_url)


async def test_a_whole_session_leaves_its_secrets_in_their_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site_in(tmp_path, monkeypatch) as site:
        left = await session(site)
        # The search finds what is there: everything below is worth something.
        assert "ann" in left["events"]
        assert "lading_" in left["metrics"]
        assert "CommitVersion" in left["the registry's log"]
        assert '"debug"' in left["the registry's log"] + left["ingest's log"]
        left |= {f"table {table.name}": text for table, text in (await tables(site)).items()}
    for where, text in left.items():
        for what, secret in site.secrets.items():
            assert secret not in text, f"{what} is in {where}"
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name not in KEY_FILES:
            content = path.read_bytes()
            for what, secret in site.secrets.items():
                assert secret.encode() not in content, f"{what} is in {path.relative_to(tmp_path)}"
    held = [path for path in tmp_path.rglob("*") if path.is_file() and path.name in KEY_FILES]
    assert {path.name for path in held} == KEY_FILES
    for path in held:
        assert path.name == "service.key" or path.stat().st_mode & 0o077 == 0, path


async def session(site: Site) -> dict[str, str]:
    """Do what people do, with good keys and wrong ones; return what it left, by where."""
    home = site.directory / "home"
    home.mkdir()
    admin, operator = site.registry.api_key, (site.registry.data / "operator.key").read_text().strip()
    note(site, "the admin's key", admin)
    note(site, "the operator's key", operator)
    command = CommandLine(home, LADING_URL=site.registry.target)
    said = [command("login", "-", stdin=f"{admin}\n"), command("login"), command("whoami")]
    said += [command("member", "add", "ann", "--role", "member")]
    made = command("key", "create", "ann", "--note", "for the test").strip()
    note(site, "a key that was made", made)
    ann = CommandLine(home, LADING_URL=site.registry.target, LADING_API_KEY=made)
    as_operator = CommandLine(home, LADING_URL=site.registry.target, LADING_API_KEY=operator)
    note(site, "another entity's key", as_operator("entity", "create", "rival", "--admin", "eve").strip())
    (site.directory / "a.txt").write_text("content")
    said += [
        ann("put", str(site.directory / "a.txt"), "digits", "--type", "dataset", "--alias", "best"),
        ann("get", "digits:best", "-o", str(site.directory / "copy")),
        ann("key", "list", "--json"),
        command("key", "list"),
        command("history", "digits"),
        command("audit", "verify"),
        as_operator("entity", "list"),
        *(ann(*words, "--help") for words in ([], ["put"], ["login"], ["key", "create"], ["serve"])),
    ]
    said += [command("key", "revoke", parse_key(made).key_id)]
    said += [text for wrong in wrong_keys(site, made) for text in await refusals(site, home, wrong)]
    async with lading.Client(site.registry.target, api_key=admin) as client:
        events = "\n".join([repr(event) async for event in client.events()])
        kept = await client.connection.settings()
        said += [repr(client), repr(kept), repr(vars(client.connection))]
    return {
        "what commands and errors said": "\n".join(said),
        "events": events,
        "metrics": "\n".join(metrics(port) for port in site.metrics_ports),
        "command lines": "\n".join(command_lines(site, home, admin)),
        "ingest's log": site.ingest.log_text(),
        "the registry's log": site.registry.log_text(),
    }


def note(site: Site, what: str, key: str) -> None:
    """Search for a key's secret from now on. Its id may be seen."""
    site.secrets[what] = parse_key(key).secret


def wrong_keys(site: Site, revoked: str) -> Iterator[str]:
    """Keys that are refused: one unknown, one with another's secret, one cut short, one revoked, and no key at all."""
    unknown, guessed = new_key(), new_key()
    for what, key in (("an unknown key", unknown), ("a guessed secret", guessed)):
        note(site, what, key.text)
    # Of what is cut short or is no key the search is for all of it that was sent.
    site.secrets["a key that was cut short"] = unknown.secret[:-5]
    site.secrets["what is no key"] = noise = f"noise{secrets.token_hex(16)}"
    yield from (unknown.text, f"lading_{parse_key(revoked).key_id}_{guessed.secret}", unknown.text[:-5], revoked, noise)


async def refusals(site: Site, home: Path, wrong: str) -> list[str]:
    """Use a wrong key for names and for content; return what was said."""
    said = list(CommandLine(home, LADING_URL=site.registry.target, LADING_API_KEY=wrong).refused("ls")[1:])
    said += CommandLine(home, LADING_URL=site.registry.target).refused("login", "-", stdin=f"{wrong}\n")[1:]
    async with lading.IngestClient(site.ingest.target, entity="default", api_key=wrong) as content:
        with pytest.raises(lading.Unauthenticated) as refused:
            await content.get_tree("b3:" + "0" * 64)
    return [*said, str(refused.value), repr(refused.value), repr(refused.value.metadata)]


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        return str(response.read().decode())


def command_lines(site: Site, home: Path, admin: str) -> list[str]:
    """What every user of the machine sees of the servers, and of a login that waits for its key."""
    environment = CommandLine(home, LADING_URL=site.registry.target, LADING_API_KEY=admin).environment
    with subprocess.Popen(
        [*LADING, "login", "-"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as login:
        pids = (site.ingest.pid, site.registry.pid, login.pid)
        # Right after its start the system shows nothing of a process yet.
        while not all(seen := [shown(pid) for pid in pids]):
            assert login.poll() is None
        login.communicate(f"{admin}\n", timeout=60)
    return seen


def shown(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


async def tables(site: Site) -> dict[sa.Table, str]:
    """Everything that the registry's database holds."""
    database = open_database(site.database_url)
    try:
        async with database.read() as connection:
            return {table: repr((await connection.execute(sa.select(table))).all()) for table in metadata.sorted_tables}
    finally:
        await database.close()


@pytest.mark.parametrize("flag", ["--database-url", "--registry-database-url"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:{}@127.0.0.1:1/lading",
        "postgresql://127.0.0.1:1/lading?user=ada&password={}",
        "postgresql://ada:{}@127.0.0.1:port/lading",
        "postgresql://ada:{}@",
        "mysql://ada:{}@127.0.0.1/lading",
        "postgresql:ada:{}@127.0.0.1",
        "{}",
    ],
)
def test_the_password_of_a_database_that_cannot_be_used_is_not_told(tmp_path: Path, flag: str, url: str) -> None:
    password = f"pw{secrets.token_hex(16)}"
    variable = "LADING_" + flag[2:].upper().replace("-", "_")
    command = [sys.executable, "-m", "lading_server", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    done = subprocess.run(
        [*command, "--log-level", "debug"],
        env=os.environ | {variable: url.format(password), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "lading serve: " in done.stderr
    assert "Traceback" not in done.stderr
    assert password not in done.stdout + done.stderr


def test_no_secret_is_in_the_help_of_a_server_that_has_them(tmp_path: Path) -> None:
    secret = f"pw{secrets.token_hex(16)}"
    names = ("LADING_DATABASE_URL", "LADING_REGISTRY_DATABASE_URL", "LADING_API_KEY", "LADING_SERVICE_KEY_FILE")
    environment = os.environ | dict.fromkeys(names, f"postgresql://ada:{secret}@127.0.0.1/x")
    for command in ([sys.executable, "-m", "lading_server", "--help"], [*LADING, "--help"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert "LADING_" in done.stdout
        assert secret not in done.stdout + done.stderr


def test_what_the_sdk_knows_of_a_key_is_not_in_its_repr() -> None:
    secret = new_key()
    wishes = wishes_from("127.0.0.1:1", secret.text, None, None, {})
    settings = settle(wishes)
    assert (isinstance(wishes, Wishes), isinstance(settings, Settings)) == (True, True)
    assert (wishes.api_key, settings.api_key) == (secret.text, secret.text)
    assert secret.secret not in repr(wishes) + repr(settings) + repr(secret)
