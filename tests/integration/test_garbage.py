"""Garbage collection of real servers, in one process and in two: what is kept reads back, the rest leaves the disk."""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

import lading
from lading_proto.ingest.v1 import maintenance_pb2, maintenance_pb2_grpc
from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess
from tests.support.server_operator import bearer
from tests.support.wire import reason_of, text_digest

# Of a tree that was just made a collector keeps its hands off for as long as a session lasts.
SESSION = ("--session-ttl-seconds", "1")
BY_HAND = ("--gc-period-seconds", "0")


def free_port() -> int:
    """A port that is free now; both processes have to be told of it before either runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Store:
    """A server with keys, in one process or in two, that can be stopped and started with other settings."""

    directory: Path
    is_pair: bool
    servers: dict[str, ServerProcess] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def ingest(self) -> ServerProcess:
        return self.servers["ingest" if self.is_pair else "both"]

    @property
    def registry(self) -> ServerProcess:
        return self.servers["registry" if self.is_pair else "both"]

    @property
    def operator_key(self) -> str:
        return (self.registry.data / "operator.key").read_text().strip()

    def start(self, *flags: str) -> None:
        """Start what does not run. `flags` are for whoever has ingest."""
        if not self.is_pair:
            self.servers["both"] = ServerProcess(self.directory / "data", *SESSION, *flags, auth="keys")
            return
        key_file = self.directory / "service.key"
        if not self.addresses:
            key_file.write_text(secrets.token_hex(32))
            self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("ingest", "registry")}
        for name, other in (("ingest", "registry"), ("registry", "ingest")):
            own = ("--services", name, "--listen", self.addresses[name], f"--{other}-target", self.addresses[other])
            more = (*SESSION, *flags) if name == "ingest" else ()
            self.servers[name] = ServerProcess(
                self.directory / name, *own, "--service-key-file", str(key_file), *more, auth="keys"
            )

    def stop(self) -> None:
        for server in self.servers.values():
            if server.process.poll() is None:
                assert server.terminate() == 0, server.log_text()
            server.close()

    def cli(self, key: str = "") -> CommandLine:
        return CommandLine(
            self.directory / "home",
            LADING_URL=self.registry.target,
            LADING_API_KEY=key or self.registry.api_key,
            LADING_PROJECT="vision",
        )

    def gc(self, *options: str) -> dict[str, Any]:
        """Collect as the operator; return what came of the one entity."""
        return self.cli(self.operator_key).json("gc", *options)

    def gc_until(self, *options: str, **report: int) -> dict[str, Any]:
        """Collect until a report says so: pins are released, and young trees grow older, in their own time."""
        while True:
            found: dict[str, Any] = self.gc(*options)["report"]
            if all(found[name] >= least for name, least in report.items()):
                return found

    def purge(self, number: int) -> None:
        """Purge a version while nothing runs: the registry releases its pin when it starts."""
        with closing(sqlite3.connect(self.registry.data / "registry.db")) as database, database:
            ((uid, entity),) = database.execute("SELECT uid, entity_id FROM versions WHERE number = ?", (number,))
            database.execute("DELETE FROM aliases WHERE version_id IN (SELECT id FROM versions WHERE uid = ?)", (uid,))
            database.execute("UPDATE versions SET state = 'purged', deleted_at_ms = 0 WHERE uid = ?", (uid,))
            database.execute("INSERT INTO pin_releases VALUES (?, ?, 0)", (uid, entity))

    def disk_bytes(self) -> int:
        """What the packs take. One that is deleted while they are counted counts for nothing."""
        total = 0
        for path in (self.ingest.data / "packs").rglob("*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size if path.is_file() else 0
        return total


@pytest.fixture(params=["one process", "two processes"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path, request.param == "two processes")
    try:
        yield opened
    finally:
        for server in opened.servers.values():
            server.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path, True)
    try:
        yield opened
    finally:
        for server in opened.servers.values():
            server.close()


async def put(store: Store, files: dict[str, bytes]) -> lading.Version:
    root = store.directory / secrets.token_hex(4)
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    client = lading.Client(store.registry.target, api_key=store.registry.api_key, project="vision")
    async with client:
        return (await client.put(root, "digits", type="dataset")).version


async def check_reads_back(store: Store, number: int, files: dict[str, bytes]) -> None:
    client = lading.Client(store.registry.target, api_key=store.registry.api_key, project="vision")
    async with client:
        root = await (await client.version(f"digits:v{number}")).download(store.directory / secrets.token_hex(4))
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == files


async def test_what_nothing_keeps_goes_to_the_trash_and_then_from_the_disk(store: Store) -> None:
    store.start(*BY_HAND, "--trash-seconds", "3600")
    shared, first, second = (os.urandom(400_000) for _ in range(3))
    dropped, kept = {"shared": shared, "own": first}, {"shared": shared, "own": second}
    await put(store, dropped)
    await put(store, kept)
    assert [one["reference"] for one in store.cli().json("explain", text_digest(first))["versions"]] == [
        "default/vision/digits:v0"
    ]
    both = store.cli().json("explain", text_digest(shared))
    assert sorted(one["reference"] for one in both["versions"]) == [
        "default/vision/digits:v0",
        "default/vision/digits:v1",
    ]
    assert "default/vision/digits:v0" in store.cli()("explain", text_digest(first))

    # What is open is not collected; a stop seals it.
    store.stop()
    before = store.disk_bytes()
    store.purge(0)
    store.start(*BY_HAND, "--trash-seconds", "3600")
    would = store.gc_until("--dry-run", trees_condemned=1, packs_condemned=1)
    assert {("blob", text_digest(first)), ("blob", text_digest(shared))} & {
        (one["kind"], one["id"]) for one in would["examples"]
    } == {("blob", text_digest(first))}
    assert store.disk_bytes() >= before
    assert store.cli().json("explain", text_digest(first))["goes_at"] is None
    shown = store.cli(store.operator_key)("gc", "--dry-run")
    assert "would be condemned" in shown
    assert text_digest(first) in shown

    report = store.gc_until(trees_condemned=1)
    assert (report["trees_condemned"], report["blobs_condemned"]) == (1, 1)
    assert (report["packs_deleted"], report["bytes_freed"]) == (0, 0)
    assert report["bytes_in_trash"] > 0
    in_trash = store.cli().json("explain", text_digest(first))
    assert in_trash["states"][0]["state"] == "condemned"
    assert in_trash["goes_at"] is not None
    assert in_trash["versions"] == []
    await check_reads_back(store, 1, kept)

    store.stop()
    store.start(*BY_HAND, "--trash-seconds", "0")
    report = store.gc_until(packs_in_trash=0)
    assert report["trees_deleted"] == 1
    assert report["packs_deleted"] >= 1
    assert report["bytes_in_trash"] == 0
    assert store.disk_bytes() < before - 300_000
    await check_reads_back(store, 1, kept)
    code, message = store.cli().refused("explain", text_digest(first))
    assert (code, text_digest(first) in message) == (3, True)
    # Nothing is left of it: it is sent again, and is there again.
    await put(store, dropped)
    await check_reads_back(store, 2, dropped)


async def test_garbage_is_collected_by_itself(store: Store) -> None:
    store.start(*BY_HAND)
    kept, dropped = {"own": os.urandom(300_000)}, {"own": os.urandom(300_000)}
    await put(store, dropped)
    await put(store, kept)
    store.stop()
    before = store.disk_bytes()
    store.purge(0)
    store.start("--gc-period-seconds", "0.2", "--trash-seconds", "0")
    while store.disk_bytes() > before - 300_000:
        assert store.ingest.process.poll() is None
    await check_reads_back(store, 1, kept)
    client = lading.Client(store.registry.target, api_key=store.operator_key)
    async with client:
        last = await client.last_collection()
        assert last.outcome is lading.GarbageOutcome.DONE
        assert (last.entities, last.refused_entities, last.message) == (1, 0, "")


async def test_a_database_of_ingest_that_is_too_old_gets_its_pins_back(store: Store) -> None:
    store.start(*BY_HAND, "--trash-seconds", "0")
    files = {"own": os.urandom(300_000)}
    await put(store, files)
    store.stop()
    with closing(sqlite3.connect(store.ingest.data / "ingest.db")) as database, database:
        database.execute("DELETE FROM pins")
    store.start(*BY_HAND, "--trash-seconds", "0")
    client = store.cli(store.operator_key)
    would = client.run("gc", "--dry-run")
    assert would.returncode == 1
    assert "would make 1 lost pin again" in would.stderr
    assert "nothing was collected" in would.stderr
    told = client.run("gc")
    assert told.returncode == 0
    assert "made 1 lost pin again" in told.stderr
    for _ in range(3):
        assert store.gc()["reconciled"]["repinned"] == 0
    await check_reads_back(store, 0, files)


async def test_a_registry_that_forgot_a_version_loses_no_content_until_it_is_told_to(store: Store) -> None:
    store.start(*BY_HAND, "--trash-seconds", "0")
    files = {"own": os.urandom(300_000)}
    version = await put(store, files)
    store.stop()
    with closing(sqlite3.connect(store.registry.data / "registry.db")) as database, database:
        for table in ("aliases", "version_tags", "version_fields", "versions"):
            database.execute(f"DELETE FROM {table}")
    store.start(*BY_HAND, "--trash-seconds", "0")
    told = store.gc()["reconciled"]
    assert (told["unknown_pins"], told["unknown_uids"], told["released_pins"]) == (1, [version.uid], 0)
    explained = store.cli().json("explain", text_digest(files["own"]))
    assert explained["versions"] == [{"uid": version.uid, "reference": ""}]
    assert store.gc("--release-unknown-pins")["reconciled"]["released_pins"] == 1
    while store.cli().run("explain", text_digest(files["own"])).returncode == 0:
        store.gc()


async def test_a_version_whose_content_is_gone_stops_the_collection_of_its_entity(store: Store) -> None:
    store.start(*BY_HAND, "--trash-seconds", "0")
    version = await put(store, {"own": os.urandom(300_000)})
    store.stop()
    with closing(sqlite3.connect(store.ingest.data / "ingest.db")) as database, database:
        database.execute("DELETE FROM pins")
        database.execute("DELETE FROM tree_pages")
        database.execute("DELETE FROM trees")
    store.start(*BY_HAND, "--trash-seconds", "0")
    before = store.disk_bytes()
    done = store.cli(store.operator_key).run("gc")
    assert done.returncode == 1
    assert f"version {version.uid} is lost" in done.stderr
    assert "nothing was collected" in done.stderr
    assert store.disk_bytes() >= before


async def test_with_the_registry_away_nothing_is_deleted(pair: Store) -> None:
    pair.start(*BY_HAND, "--trash-seconds", "0")
    await put(pair, {"own": os.urandom(300_000)})
    operator = bearer(pair.operator_key)
    async with grpc.aio.insecure_channel(pair.ingest.target) as channel:
        stub: Any = maintenance_pb2_grpc.MaintenanceServiceStub(channel)

        async def gc() -> list[Any]:
            request = maintenance_pb2.CollectGarbageRequest()
            return [event async for event in stub.CollectGarbage(request, metadata=operator)]

        # Ingest knows the operator's key from now on.
        assert len(await gc()) == 3
        before = pair.disk_bytes()
        pair.registry.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gc()
        assert (caught.value.code().name, reason_of(caught.value)) == ("UNAVAILABLE", "REGISTRY_UNAVAILABLE")
        assert "nothing is deleted" in str(caught.value.details())
        last = await stub.GetLastCollection(maintenance_pb2.GetLastCollectionRequest(), metadata=operator)
        assert last.outcome == maintenance_pb2.COLLECTION_OUTCOME_FAILED
        assert "registry" in last.message
        assert pair.disk_bytes() == before


async def test_ingest_that_knows_no_registry_says_what_to_set(tmp_path: Path) -> None:
    key_file = tmp_path / "service.key"
    key_file.write_text(secrets.token_hex(32))
    flags = ("--services", "ingest", "--service-key-file", str(key_file))
    server = ServerProcess(tmp_path / "data", *flags, auth="none")
    try:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub: Any = maintenance_pb2_grpc.MaintenanceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.CollectGarbage(maintenance_pb2.CollectGarbageRequest()).read()
            assert (caught.value.code().name, reason_of(caught.value)) == ("FAILED_PRECONDITION", "NO_REGISTRY")
            assert "--registry-target" in str(caught.value.details())
    finally:
        server.close()


async def test_only_the_operator_collects_and_nobody_explains_what_is_not_theirs(store: Store) -> None:
    store.start(*BY_HAND)
    files = {"own": os.urandom(1000)}
    await put(store, files)
    async with lading.Client(store.registry.target, api_key=store.registry.api_key) as admin:
        with pytest.raises(lading.PermissionDenied):
            [event async for event in admin.collect_garbage()]
        with pytest.raises(lading.PermissionDenied):
            await admin.last_collection()
    async with lading.Client(store.registry.target, api_key=store.operator_key) as operator:
        assert (await operator.last_collection()).outcome is None
        rival = await operator.create_entity("rival", "eve")
        with pytest.raises(lading.InvalidArgument):
            [event async for event in operator.collect_garbage(entity="No Entity")]
    async with lading.Client(store.registry.target, api_key=rival.secret_key) as eve:
        with pytest.raises(lading.NotFound):
            await eve.explain(text_digest(files["own"]))
        with pytest.raises(lading.InvalidArgument):
            await eve.explain("own")


def test_the_plain_client_does_the_same(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", *BY_HAND, auth="none")
    try:
        (tmp_path / "file").write_bytes(b"content")
        with lading.sync.Client(server.target, entity="acme") as client:
            client.put(tmp_path / "file", "vision/digits", type="dataset")
            events = list(client.collect_garbage())
            assert [type(event).__name__ for event in events] == [
                "GarbageProgress",
                "GarbageProgress",
                "EntityCollection",
            ]
            assert client.last_collection().outcome == "done"
            (version,) = client.explain(text_digest(b"content")).versions
            assert version.reference == "acme/vision/digits:v0"
    finally:
        server.close()
