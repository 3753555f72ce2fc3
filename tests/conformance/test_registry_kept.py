"""Which versions the registry keeps and expects, on each database: what ingest's collector goes by."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lading_server.common.callers import Caller
from lading_server.common.errors import TooManyItems
from lading_server.common.kept_versions import KeptVersion
from lading_server.common.registry_errors import IngestUnavailable
from lading_server.registry.domain.kept import MAX_ITEMS, Kept
from lading_server.registry.domain.registry import Registry
from lading_server.registry.store.pending import release_pin
from lading_server.registry.store.schema import VersionState, commits, versions
from tests.support.index import DATABASES, FakeClock
from tests.support.registry import ANN, PinsInMemory, commit, opened_registry
from tests.support.registry_rows import Made, delete, new_version

OTHER = Caller("rival", "eve")


@pytest.fixture
def pins() -> PinsInMemory:
    return PinsInMemory()


@pytest.fixture(params=DATABASES)
async def registry(request: pytest.FixtureRequest, tmp_path: Path, pins: PinsInMemory) -> AsyncIterator[Registry]:
    async with opened_registry(request.param, tmp_path, pins, FakeClock()) as opened:
        yield opened


@pytest.fixture
def kept(registry: Registry) -> Kept:
    return Kept(registry.store)


async def purge(registry: Registry, version: Made) -> None:
    async with registry.store.change(ANN) as change:
        mine = sa.update(versions).where(versions.c.id == version.id)
        await change.connection.execute(mine.values(state=VersionState.PURGED.value))
        await release_pin(change, version.uid)


async def all_kept(kept: Kept, limit: int, entity: str = "acme") -> list[KeptVersion]:
    found: list[KeptVersion] = []
    while page := await kept.page(entity, found[-1].uid if found else b"", limit):
        assert len(page) <= limit
        found += page
    return found


async def test_versions_come_by_their_uids_with_their_trees_a_page_at_a_time(registry: Registry, kept: Kept) -> None:
    made = [await new_version(registry, "vision/digits") for _ in range(7)]
    found = await all_kept(kept, 3)
    assert [one.uid for one in found] == sorted(version.uid for version in made)
    async with registry.store.database.read() as connection:
        rows = await connection.execute(sa.select(versions.c.uid, versions.c.tree_digest).order_by(versions.c.uid))
        assert found == [KeptVersion(*row) for row in rows]


async def test_deleted_versions_are_kept_and_purged_ones_and_links_are_not(registry: Registry, kept: Kept) -> None:
    live, deleted, purged = [await new_version(registry, "vision/digits") for _ in range(3)]
    link = await new_version(registry, "model-registry/Reader", source=live)
    await delete(registry, deleted)
    await purge(registry, purged)
    uids = sorted([live.uid, deleted.uid])
    assert [one.uid for one in await all_kept(kept, 10)] == uids
    assert await kept.expected("acme", [live.uid, deleted.uid, purged.uid, link.uid, os.urandom(16)]) == set(uids)


async def test_what_is_being_committed_is_expected_and_not_listed(
    registry: Registry, kept: Kept, pins: PinsInMemory
) -> None:
    pins.answers.clear()
    committing = asyncio.create_task(commit(registry, pins.new_tree()))
    await pins.until_called(1)
    async with registry.store.database.read() as connection:
        (uid,) = (await connection.scalars(sa.select(commits.c.uid))).all()
    assert await all_kept(kept, 10) == []
    assert await kept.expected("acme", [uid]) == {uid}
    assert await kept.expected("rival", [uid]) == set()
    pins.answers.set()
    await committing
    assert [one.uid for one in await all_kept(kept, 10)] == [uid]
    assert await kept.expected("acme", [uid]) == {uid}


async def test_a_commit_that_was_given_up_is_not_expected(registry: Registry, kept: Kept, pins: PinsInMemory) -> None:
    pins.open.clear()
    committing = asyncio.create_task(commit(registry, pins.new_tree()))
    await pins.until_called(1)
    async with registry.store.database.read() as connection:
        (uid,) = (await connection.scalars(sa.select(commits.c.uid))).all()
    assert await registry.store.pending.abort_commit(uid)
    assert await kept.expected("acme", [uid]) == set()
    pins.failure = IngestUnavailable("away")
    pins.open.set()
    await asyncio.gather(committing, return_exceptions=True)


async def test_a_version_whose_pin_is_to_be_released_is_not_expected_whatever_its_state(
    registry: Registry, kept: Kept
) -> None:
    version = await new_version(registry, "vision/digits")
    async with registry.store.change(ANN) as change:
        await release_pin(change, version.uid)
    assert await kept.expected("acme", [version.uid]) == set()


async def test_everything_is_inside_its_entity(registry: Registry, kept: Kept) -> None:
    mine = await new_version(registry, "vision/digits")
    theirs = await new_version(registry, "vision/digits", caller=OTHER)
    assert [one.uid for one in await all_kept(kept, 10)] == [mine.uid]
    assert [one.uid for one in await all_kept(kept, 10, "rival")] == [theirs.uid]
    assert await kept.expected("acme", [mine.uid, theirs.uid]) == {mine.uid}
    assert await all_kept(kept, 10, "nobody") == []
    assert await kept.expected("nobody", [mine.uid]) == set()


async def test_entities_are_told_sorted_a_page_at_a_time(registry: Registry, kept: Kept) -> None:
    names = ["acme", "acme-2", "acme.b", "acme0", "acme_c", "b", "zoo"]
    for name in reversed(names):
        await new_version(registry, "vision/digits", caller=Caller(name, "ann"))
    found: list[str] = []
    while page := await kept.entities(found[-1] if found else "", 2):
        found += page
    assert found == sorted(names)


async def test_more_than_a_statement_takes_can_be_asked_about(registry: Registry, kept: Kept) -> None:
    version = await new_version(registry, "vision/digits")
    strangers = [os.urandom(16) for _ in range(MAX_ITEMS - 1)]
    assert await kept.expected("acme", [*strangers, version.uid]) == {version.uid}
    with pytest.raises(TooManyItems):
        await kept.expected("acme", [*strangers, version.uid, os.urandom(16)])
    assert await kept.expected("acme", []) == set()
