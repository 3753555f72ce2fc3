"""Deleting and undeleting through the SDK and the command line, against the real pair: names, pins and content."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

import lading
from lading_proto.registry.v1 import registry_pb2_grpc, versions_pb2
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("deleting") / "data") as process:
        yield process


@pytest.fixture
def project() -> str:
    """A project of the test's own."""
    return f"p-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def client(server: ServerProcess, project: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[lading.Client]:
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    async with lading.Client(server.target, project=project) as opened:
        yield opened


@pytest.fixture
def cli(server: ServerProcess, project: str, tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "home", LADING_URL=server.target, LADING_PROJECT=project, LADING_CACHE_DIR="")


async def put(client: lading.Client, directory: Path, texts: list[str], name: str = "digits") -> list[lading.Version]:
    """Store a version for each text."""
    made = []
    for text in texts:
        file = directory / "file"
        file.write_text(text)
        made.append((await client.put({"file": file}, name, type="dataset")).version)
    return made


def pin(server: ServerProcess, version: lading.Version) -> str:
    """What ingest's database says of a version's pin."""
    with closing(sqlite3.connect(f"file:{server.data / 'ingest.db'}?mode=ro", uri=True)) as database:
        query = "SELECT state FROM pins WHERE version_uid = ?"
        return str(database.execute(query, (bytes.fromhex(version.uid),)).fetchone()[0])


async def until_released(server: ServerProcess, version: lading.Version) -> None:
    async with asyncio.timeout(30):
        while await asyncio.to_thread(pin, server, version) != "released":
            continue


async def test_a_deleted_version_comes_back_with_its_content(
    client: lading.Client, server: ServerProcess, tmp_path: Path
) -> None:
    (version,) = await put(client, tmp_path, ["one"])
    await client.delete(version)
    with pytest.raises(lading.NotFound, match="it can be undeleted until") as caught:
        await client.version(version.reference)
    assert caught.value.metadata["state"] == "deleted"
    (listed,) = [one async for one in client.versions("digits", deleted=True)]
    assert listed.uid == version.uid
    assert listed.deleted_at is not None
    assert listed.purge_at is not None
    assert (listed.purge_at - listed.deleted_at).days == 7
    back = (await client.undelete(listed)).version
    assert (back.uid, back.aliases) == (version.uid, ("latest",))
    assert pin(server, version) == "held"
    assert (await back.download(tmp_path / "back") / "file").read_text() == "one"


async def test_after_a_purge_the_pin_is_a_tombstone_and_nothing_comes_back(
    client: lading.Client, server: ServerProcess, tmp_path: Path
) -> None:
    first, second = await put(client, tmp_path, ["purged", "deleted first"])
    await client.delete(first, purge=True)
    await client.delete(second)
    assert pin(server, second) == "held"
    await client.delete(second.reference, purge=True)
    for version in (first, second):
        await until_released(server, version)
        with pytest.raises(lading.NotFound, match="was purged"):
            await client.undelete(version.reference)
    (again,) = await put(client, tmp_path, ["purged"])
    assert (again.number, pin(server, again)) == (2, "held")


async def test_links_a_collection_and_a_project_go_and_come_back(client: lading.Client, tmp_path: Path) -> None:
    versions = await put(client, tmp_path, ["0", "1"])
    link = await client.link(versions[0], f"M {uuid.uuid4().hex}", aliases=["staging"])
    await client.delete(versions[0], force=True)
    back = await client.undelete(versions[0].reference, with_links=True)
    assert [one.uid for one in back.links] == [link.uid]
    with pytest.raises(lading.FailedPrecondition, match=link.name) as caught:
        await client.delete_collection("digits")
    assert caught.value.reason == "COLLECTION_IN_USE"
    gone = await client.delete_collection("digits", force=True)
    assert (gone.done, gone.collection.version_count) == (True, 2)
    assert [one.name async for one in client.collections(versions[0].project, deleted=True)] == ["digits"]
    assert (await client.undelete_collection("digits")).collection.version_count == 2
    with pytest.raises(lading.FailedPrecondition, match="digits"):
        await client.delete_project(versions[0].project)
    await client.delete_project(versions[0].project, force=True)
    with pytest.raises(lading.NotFound):
        await client.collection("digits")


async def test_a_filter_tells_first_and_then_deletes(client: lading.Client, tmp_path: Path) -> None:
    versions = await put(client, tmp_path, ["a", "b", "c"])
    await client.set_aliases(versions[1], set=["best"])
    told = [one async for one in client.delete_versions("number<2", "digits")]
    outcomes = [lading.DeleteOutcome.DELETED, lading.DeleteOutcome.HAS_ALIAS]
    assert [(one.outcome, one.version.number) for one in told] == list(zip(outcomes, (0, 1), strict=True))
    assert [one.number async for one in client.versions("digits")] == [2, 1, 0]
    done = [one async for one in client.delete_versions("number<2", "digits", dry_run=False)]
    assert [one.outcome for one in done] == outcomes
    assert [one.number async for one in client.versions("digits")] == [2, 1]


async def test_a_call_that_is_sent_again_deletes_nothing_more(
    client: lading.Client, server: ServerProcess, tmp_path: Path
) -> None:
    versions = await put(client, tmp_path, ["x", "y", "z"])
    request = versions_pb2.DeleteVersionsRequest(
        entity=versions[0].entity,
        project=versions[0].project,
        collection="digits",
        page_size=2,
        request_id=uuid.uuid4().hex,
    )
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub: Any = registry_pb2_grpc.RegistryServiceStub(channel)
        first = await stub.DeleteVersions(request)
        again = await stub.DeleteVersions(request)
    assert first == again
    assert [one.version.number for one in first.results] == [0, 1]
    assert [one.number async for one in client.versions("digits")] == [2]


def test_the_blocking_client_does_the_same(
    server: ServerProcess, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    (tmp_path / "file").write_text("sync")
    with lading.sync.Client(server.target, project=project) as client:
        version = client.put(tmp_path / "file", "digits", type="dataset").version
        client.delete(version)
        assert client.undelete(next(iter(client.versions("digits", deleted=True)))).version.uid == version.uid
        (told,) = client.delete_versions(collection="digits")
        assert told.outcome is lading.DeleteOutcome.DELETED
        assert client.delete_collection("digits").done
        assert client.undelete_collection("digits").collection.version_count == 1
        assert client.delete_project(project, force=True).project.name == project


def test_the_command_line_deletes_and_brings_back(cli: CommandLine, tmp_path: Path) -> None:
    references = []
    for text in ("1", "2", "3"):
        (tmp_path / "file").write_text(text)
        references.append(cli("put", str(tmp_path / "file"), "digits", "--type", "dataset").strip())
    assert cli("delete", references[0], references[1]).split() == references[:2]
    assert [line.split()[0] for line in cli("ls", "digits", "--deleted").splitlines()[1:]] == references[1::-1]
    assert cli("undelete", references[0]).split() == [references[0]]
    dry = cli.run("delete", "--in", "digits", "--filter", "number=0")
    assert (dry.returncode, "would go" in dry.stdout, "say --yes" in dry.stderr) == (0, True, True)
    cli("delete", "--in", "digits", "--filter", "number=0", "--yes")
    assert [one["number"] for one in cli.json_lines("ls", "digits", "--json")] == [2]
    code, told = cli.refused("delete", references[2], "--purge")
    assert (code, "--yes" in told) == (2, True)
    cli("delete", references[2], "--purge", "--yes")
    assert "was purged" in cli.refused("undelete", references[2])[1]
    assert cli("collection", "delete", "digits").endswith("/digits  0 versions\n")
    assert cli.refused("show", references[0])[0] == 3
    cli("collection", "undelete", "digits")
    assert cli.refused("delete")[0] == 2
