"""How a client finds its server, its key and its entity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import lading
from lading._address import parse_address
from lading._credentials import Login, keep_login
from tests.support.server import ServerProcess, running_server


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants keys, as every one does that is not told otherwise."""
    with running_server(tmp_path_factory.mktemp("keyed") / "server-data", auth="keys") as process:
        yield process


@pytest.fixture(autouse=True)
def fresh_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who never logged in, and for whom no server left word."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    (tmp_path / "runtime").mkdir(mode=0o700)


async def test_without_a_key_nobody_is_answered(keyed_server: ServerProcess) -> None:
    async with lading.Client(keyed_server.target, entity="default") as client:
        for call in (client.whoami(), client.version("digits"), client.put({}, "digits", type="dataset")):
            with pytest.raises(lading.Unauthenticated) as caught:
                await call
            assert caught.value.reason == "KEY_MISSING"


async def test_a_key_that_is_none_is_told_as_such(keyed_server: ServerProcess) -> None:
    async with lading.Client(keyed_server.target, api_key="lading_wrong") as client:
        with pytest.raises(lading.Unauthenticated) as caught:
            await client.whoami()
        assert caught.value.reason == "KEY_INVALID"


async def test_a_key_says_which_entity_is_meant(keyed_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0")
    async with lading.Client(keyed_server.target, api_key=keyed_server.api_key) as client:
        identity = await client.whoami()
        put = await client.put(tmp_path / "file", "digits", type="dataset")
        assert put.version.reference == f"{identity.entity}/default/digits:v0"
        assert put.version.created_by == identity.principal
        assert await put.version.read_bytes("file") == b"0"


async def test_a_key_is_good_for_its_own_entity(keyed_server: ServerProcess) -> None:
    async with lading.Client(keyed_server.target, api_key=keyed_server.api_key, entity="other") as client:
        for call in (client.version("digits"), client.put({}, "digits", type="dataset")):
            with pytest.raises(lading.PermissionDenied) as caught:
                await call
            assert caught.value.reason == "ENTITY_DENIED"


async def test_variables_are_enough(keyed_server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADING_URL", f"grpc://{keyed_server.target}")
    monkeypatch.setenv("LADING_API_KEY", keyed_server.api_key)
    monkeypatch.setenv("LADING_PROJECT", "vision")
    async with lading.Client() as client:
        assert (await client.create_collection("variables", type="dataset")).project == "vision"


async def test_a_login_is_enough(keyed_server: ServerProcess) -> None:
    keep_login(parse_address(keyed_server.target), Login(keyed_server.api_key, project="vision"))
    async with lading.Client() as client:
        assert (await client.create_collection("login", type="dataset")).project == "vision"


async def test_beside_the_server_nothing_is_needed(
    keyed_server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(keyed_server.runtime))
    async with lading.Client(keyed_server.target) as client:
        assert (await client.whoami()).entity == "default"


async def test_a_client_of_content_alone_takes_a_key(keyed_server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0")
    files = {"file": tmp_path / "file"}
    async with lading.IngestClient(keyed_server.target, entity="default", api_key=keyed_server.api_key) as client:
        assert (await client.upload_tree(files)).tree.file_count == 1
    async with lading.IngestClient(keyed_server.target, entity="default") as client:
        with pytest.raises(lading.Unauthenticated):
            await client.upload_tree(files)


async def test_nobody_at_the_address_is_told_as_such() -> None:
    async with lading.Client("127.0.0.1:9", retry=0) as client:
        with pytest.raises(lading.Unavailable, match=r"127\.0\.0\.1:9.*Is the server running"):
            await client.whoami()


async def test_a_client_that_was_closed_opens_again(keyed_server: ServerProcess) -> None:
    client = lading.Client(keyed_server.target, api_key=keyed_server.api_key)
    first = await client.whoami()
    await client.close()
    await client.close()
    assert (await client.create_collection("closed", type="dataset")).entity == first.entity
    await client.close()
