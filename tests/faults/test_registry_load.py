"""Two hundred clients at once: in the end the registry tells one story, and every version has its pin."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from lading_proto.registry.v1 import collections_pb2, events_pb2, registry_pb2_grpc, versions_pb2
from lading_server.common.database import open_database
from lading_server.registry.store.rows import EventRow
from lading_server.registry.store.schema import commits, pin_releases
from tests.support.event_log import State, replayed
from tests.support.index import DATABASES, database_url
from tests.support.registry import until
from tests.support.registry_clients import COLLECTIONS, PORTFOLIOS, RegistryClient, Told, Trees
from tests.support.server import ServerProcess, running_server
from tests.support.wire import Wire

SECONDS = float(os.environ.get("LADING_LOAD_SECONDS", "8"))
CLIENTS = 200
CHANNELS = 8
# The entity of the first key.
ENTITY = "default"


@asynccontextmanager
async def served(kind: str, directory: Path) -> AsyncIterator[tuple[ServerProcess, str]]:
    """Give a server, and the URL of its registry's database."""
    async with AsyncExitStack() as stack:
        if kind == "sqlite":
            flags: tuple[str, ...] = ()
            url = f"sqlite:///{directory / 'data/registry.db'}"
        else:
            url = await stack.enter_async_context(database_url(kind, directory))
            flags = ("--registry-database-url", url)
        # Closed before the database goes.
        server = stack.enter_context(running_server(directory / "data", *flags, auth="keys"))
        yield server, url


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATABASES)
async def test_two_hundred_clients_leave_one_story(kind: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("LADING_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"seed {seed}")
    async with served(kind, tmp_path) as (server, url):
        told = await run_clients(server, seed)
        print(sorted(told.outcomes.items()))
        for outcome in [("resolve", "ok"), ("commit", "ok"), ("move", "ok"), ("link", "ok"), ("move", "ALIAS_MOVED")]:
            assert told.outcomes[outcome], f"no {outcome}: nothing was tested"
        # No version was made twice, and none by nobody.
        assert set(told.makers.values()) == {1}
        async with Reader(server) as reader:
            log, current = await reader.events()
            state = await reader.state()
        assert [event.revision for event in log] == list(range(1, current + 1))
        # Ten thousand versions are too many for a comparison to be shown whole.
        assert _others(replayed(log), state) == []
        check_numbers(state)
        assert set(told.numbers.values()) <= set(state.versions)
        assert set(told.makers) == set(state.versions)
        await until_nothing_is_pending(url)
        assert pins(server.data) == {
            uid: version["tree_digest"] for uid, version in state.versions.items() if "source" not in version
        }
        assert server.terminate() == 0


async def run_clients(server: ServerProcess, seed: int) -> Told:
    """Let all clients do what they do for SECONDS. The first that fails ends all."""
    told = Told()
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(Wire(server.target, ENTITY, key=server.api_key))
        trees = await Trees.begin(wire)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.target, options=options))
            for _ in range(CHANNELS)
        ]
        end_at = time.monotonic() + SECONDS

        async def run(client: RegistryClient) -> None:
            while time.monotonic() < end_at:
                await client.step()

        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                channel = channels[number % CHANNELS]
                client = RegistryClient(channel, wire, server.api_key, trees, told, f"{seed}-{number}")
                tasks.create_task(run(client))
    return told


def check_numbers(state: State) -> None:
    """Numbers of each collection are dense, and `latest` is the last."""
    for place in state.collections:
        numbers = sorted(version["number"] for version in state.versions.values() if version["place"] == place)
        assert numbers == list(range(len(numbers)))
        assert state.aliases.get((*place, "latest")) == numbers[-1]
        trees = [version["tree_digest"] for version in state.versions.values() if version["place"] == place]
        assert place[0] == "model-registry" or len(set(trees)) == len(trees), f"{place} has a tree twice"
    assert set(state.collections) == {*COLLECTIONS, *(("model-registry", name) for name in PORTFOLIOS)}


async def until_nothing_is_pending(url: str) -> None:
    """Return when no commit is under way and every pin that is not needed was released."""
    database = open_database(url)
    count = sa.select(sa.func.count())

    async def is_quiet() -> bool:
        async with database.read() as connection:
            return not any([await connection.scalar(count.select_from(table)) for table in (commits, pin_releases)])

    try:
        await until(is_quiet)
    finally:
        await database.close()


def pins(data: Path) -> dict[str, str]:
    """Return the tree of each version that has a pin, as ingest keeps them."""
    with closing(sqlite3.connect(f"file:{data / 'ingest.db'}?mode=ro", uri=True)) as ingest:
        rows = ingest.execute("SELECT version_uid, tree_digest FROM pins WHERE state = 'held'").fetchall()
    return {uid.hex(): f"b3:{tree.hex()}" for uid, tree in rows}


class Reader:
    """Reads everything through the API."""

    def __init__(self, server: ServerProcess) -> None:
        self._channel = grpc.aio.insecure_channel(server.target)
        self._stub: Any = registry_pb2_grpc.RegistryServiceStub(self._channel)
        self._metadata = [("authorization", f"Bearer {server.api_key}")]

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def events(self) -> tuple[list[EventRow], int]:
        """Return all events, and the revision of the last change."""
        pages = await self._pages(self._stub.ListEvents, events_pb2.ListEventsRequest(page_size=1000))
        log = [
            EventRow(
                revision=event.revision,
                time_ms=event.time.ToMilliseconds(),
                actor=event.actor,
                kind=event.kind,
                project=event.project,
                collection=event.collection,
                version_uid=bytes.fromhex(event.version_uid) or None,
                run=event.run_id,
                before=event.before_json,
                after=event.after_json,
                origin=event.origin,
                sequence=event.sequence,
                chain_hash=event.chain_hash,
            )
            for page in pages
            for event in page.events
        ]
        return log, pages[-1].current_revision

    async def state(self) -> State:
        """Return what the tables hold, as calls tell it."""
        state = State(set(), {}, {}, {}, set(), {}, set())
        for page in await self._pages(self._stub.ListProjects, collections_pb2.ListProjectsRequest()):
            state.projects.update(project.name for project in page.projects)
        for page in await self._pages(self._stub.ListCollections, collections_pb2.ListCollectionsRequest()):
            for collection in page.collections:
                await self._add_collection(state, collection)
        return state

    async def _add_collection(self, state: State, collection: collections_pb2.Collection) -> None:
        place = (collection.project, collection.name)
        is_portfolio = collection.kind == collections_pb2.COLLECTION_KIND_PORTFOLIO
        state.collections[place] = {
            "kind": "portfolio" if is_portfolio else "sequence",
            "type": collection.type,
            "description": collection.description,
            "tags": list(collection.tags),
        }
        targets = {target.alias: target.number for target in collection.aliases}
        state.aliases.update({(*place, alias): number for alias, number in targets.items()})
        request = versions_pb2.ListVersionsRequest(project=collection.project, collection=collection.name)
        versions = [
            version for page in await self._pages(self._stub.ListVersions, request) for version in page.versions
        ]
        assert len(versions) == collection.version_count
        for version in versions:
            assert sorted(version.aliases) == sorted(a for a, number in targets.items() if number == version.number)
            state.versions[version.uid] = _told(version)

    async def _pages(self, method: Any, request: Any) -> list[Any]:
        request.entity = ENTITY
        pages: list[Any] = []
        while not pages or request.page_token:
            pages.append(await method(request, metadata=self._metadata))
            request.page_token = pages[-1].next_page_token
        return pages


def _others(one: State, other: State) -> list[object]:
    """Return the first few things of which two stories tell differently."""
    sides: list[tuple[str, Any, Any]] = list(zip(State._fields, one, other, strict=True))
    differing: list[object] = []
    for name, left, right in sides:
        if isinstance(left, dict):
            keys = left.keys() | right.keys()
            differing += [(name, key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]
        else:
            differing += [(name, key) for key in left ^ right]
    return differing[:5]


def _told(version: versions_pb2.Version) -> dict[str, Any]:
    """Return a version as the events tell it."""
    told: dict[str, Any] = {
        "place": (version.project, version.collection),
        "run": version.run_id,
        "expires_at_ms": None,
        "number": version.number,
        "tree_digest": version.tree_digest,
        "file_count": version.file_count,
        "reference_count": version.reference_count,
        "size_bytes": version.size_bytes,
        "tags": list(version.tags),
    }
    if version.is_link:
        return told | {"source": version.source, "source_uid": version.source_uid}
    return told | {"description": version.description, "metadata": json.loads(version.metadata_json)}
