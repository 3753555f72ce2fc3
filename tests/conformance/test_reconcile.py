"""Pins held against the registry's versions, on each database of ingest, whatever either side forgot."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lading_server.common.errors import MissingBlobs, TreeNotFound
from lading_server.common.registry_errors import PinReleased, RegistryUnavailable
from lading_server.ingest.domain.ingest import Ingest
from lading_server.ingest.domain.reconcile import Reconciler, Reconciliation
from lading_server.ingest.index.digests import DigestSet
from lading_server.ingest.index.schema import blobs, pins, trees
from tests.support.content import opened_ingest, put_tree
from tests.support.index import DATABASES, set_state
from tests.support.kept_versions import VersionsInMemory

FILES = {"large.bin": (b"a file of " * 10, b"two chunks" * 10), "small.txt": (b"a file of one chunk",)}


@pytest.fixture(params=DATABASES)
async def ingest(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ingest]:
    async with opened_ingest(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def versions() -> VersionsInMemory:
    return VersionsInMemory()


class Trash:
    """Takes trees out of the trash, and knows which it was asked for."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self.asked: list[bytes] = []

    async def revive(self, entity: str, tree_digest: bytes) -> bool:
        self.asked.append(tree_digest)
        async with self._ingest.index.database.write() as connection:
            gone = await connection.execute(
                sa.update(trees).where(trees.c.digest == tree_digest, trees.c.state == "condemned").values(state="live")
            )
        return gone.rowcount == 1


async def reconcile(
    ingest: Ingest, versions: VersionsInMemory, *, dry_run: bool = False, release: bool = False, page: int = 1000
) -> Reconciliation:
    reconciler = Reconciler(versions, ingest.pins, ingest.index.pins, Trash(ingest).revive, page=page)
    return await reconciler.reconcile("acme", dry_run=dry_run, release_unknown=release)


async def held(ingest: Ingest) -> dict[bytes, bytes | None]:
    return {row.version_uid: row.tree_digest for row in await ingest.index.pins.held("acme", b"", 10_000)}


async def forget(ingest: Ingest, *uids: bytes) -> None:
    """What an older database does: the pins were never there."""
    async with ingest.index.database.write() as connection:
        await connection.execute(sa.delete(pins).where(pins.c.version_uid.in_(uids)))


async def test_versions_that_have_their_pins_are_left_alone(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.acquire("acme", uid, tree)
    assert await reconcile(ingest, versions) == Reconciliation(versions=1)
    assert await held(ingest) == {uid: tree}


async def test_nothing_on_either_side_is_nothing(ingest: Ingest, versions: VersionsInMemory) -> None:
    assert await reconcile(ingest, versions) == Reconciliation()


async def test_a_version_without_a_pin_gets_one(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    assert await reconcile(ingest, versions, dry_run=True) == Reconciliation(versions=1, repinned=1)
    assert await held(ingest) == {}
    assert await reconcile(ingest, versions) == Reconciliation(versions=1, repinned=1)
    assert await held(ingest) == {uid: tree}
    assert await reconcile(ingest, versions) == Reconciliation(versions=1)


async def test_a_version_gets_its_tree_out_of_the_trash(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await set_state(ingest.index, trees, tree, "condemned")
    assert await reconcile(ingest, versions) == Reconciliation(versions=1, repinned=1, revived=1)
    assert await held(ingest) == {uid: tree}


async def test_a_tombstone_that_the_registry_does_not_expect_stays(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.release("acme", uid)
    versions.releasing.add(uid)
    assert await reconcile(ingest, versions) == Reconciliation(versions=1)
    assert await held(ingest) == {}


@pytest.mark.parametrize("state", ["live", "condemned"])
async def test_a_tombstone_of_a_version_that_is_back_becomes_a_pin(
    ingest: Ingest, versions: VersionsInMemory, state: str
) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.acquire("acme", uid, tree)
    await ingest.pins.release("acme", uid)
    await set_state(ingest.index, trees, tree, state)
    with pytest.raises((PinReleased, TreeNotFound)):
        await ingest.pins.acquire("acme", uid, tree)
    expected = Reconciliation(versions=1, repinned=1, over_tombstones=1, revived=int(state == "condemned"))
    assert await reconcile(ingest, versions, dry_run=True) == Reconciliation(versions=1, repinned=1, over_tombstones=1)
    assert await held(ingest) == {}
    assert await reconcile(ingest, versions) == expected
    assert await held(ingest) == {uid: tree}
    # It is a pin like any other: it can be released once more.
    await ingest.pins.release("acme", uid)
    assert await held(ingest) == {}


async def test_a_tombstone_that_never_had_a_tree_becomes_a_pin_too(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.release("acme", uid)
    assert (await reconcile(ingest, versions)).over_tombstones == 1
    assert await held(ingest) == {uid: tree}


async def test_a_pin_counts_its_references_when_it_is_made_over_a_tombstone(
    ingest: Ingest, versions: VersionsInMemory
) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.release("acme", uid)

    async def generations() -> list[int]:
        async with ingest.index.database.read() as connection:
            rows = [await connection.scalars(sa.select(table.c.generation)) for table in (trees, blobs)]
            return [number for found in rows for number in found]

    before = await generations()
    await reconcile(ingest, versions)
    assert sorted(await generations()) == sorted(number + 1 for number in before)


async def test_a_pin_that_no_version_is_known_for_is_told_and_kept(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uids = sorted(os.urandom(16) for _ in range(3))
    for uid in uids:
        await ingest.pins.acquire("acme", uid, tree)
    versions.keep(uids[1], tree)
    told = Reconciliation(versions=1, unknown_pins=2, unknown=[uids[0], uids[2]])
    assert await reconcile(ingest, versions) == told
    assert await reconcile(ingest, versions, release=True, dry_run=True) == told
    assert len(await held(ingest)) == 3
    released = Reconciliation(versions=1, unknown_pins=2, unknown=[uids[0], uids[2]], released_pins=2)
    assert await reconcile(ingest, versions, release=True) == released
    assert await held(ingest) == {uids[1]: tree}


async def test_a_version_that_appears_before_its_pin_is_released_keeps_it(
    ingest: Ingest, versions: VersionsInMemory
) -> None:
    tree, uid = await put_tree(ingest, FILES), os.urandom(16)
    await ingest.pins.acquire("acme", uid, tree)

    async def appears() -> None:
        versions.committing.add(uid)

    versions.after_expected = appears
    assert await reconcile(ingest, versions, release=True) == Reconciliation(unknown_pins=1, unknown=[uid])
    assert await held(ingest) == {uid: tree}


@pytest.mark.parametrize("state", ["gone", "a blob is gone", "in the trash, and a blob is gone"])
async def test_a_version_whose_content_is_gone_is_told(ingest: Ingest, versions: VersionsInMemory, state: str) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    other = versions.keep(os.urandom(16), await put_tree(ingest, {"other": (b"other",)}))
    async with ingest.index.database.write() as connection:
        if state == "gone":
            await connection.execute(sa.delete(trees).where(trees.c.digest == tree))
        else:
            await connection.execute(sa.update(blobs).values(state="condemned").where(blobs.c.chunk_count == 2))
    if state.startswith("in the trash"):
        await set_state(ingest.index, trees, tree, "condemned")
    result = await reconcile(ingest, versions)
    assert (result.versions, result.repinned, result.lost_versions) == (2, 1, 1)
    assert [(one.uid, one.tree_digest) for one in result.lost] == [(uid, tree)]
    assert result.lost[0].message
    # One that is lost does not stand in the way of the others.
    assert list(await held(ingest)) == [other]


async def test_a_pin_on_another_tree_is_told(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree, other = await put_tree(ingest, FILES), await put_tree(ingest, {"other": (b"other",)})
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.acquire("acme", uid, other)
    result = await reconcile(ingest, versions)
    assert [(one.uid, one.message) for one in result.lost] == [(uid, "its pin is on another tree")]
    assert await held(ingest) == {uid: other}


async def test_a_version_that_is_committed_after_its_page_was_read_is_not_unknown(
    ingest: Ingest, versions: VersionsInMemory
) -> None:
    tree, uid = await put_tree(ingest, FILES), os.urandom(16)

    async def commit() -> None:
        versions.committing.add(uid)
        await ingest.pins.acquire("acme", uid, tree)

    versions.after_page = commit
    assert await reconcile(ingest, versions) == Reconciliation()
    assert await held(ingest) == {uid: tree}


async def test_a_version_that_is_purged_after_its_page_was_read_gets_no_pin(
    ingest: Ingest, versions: VersionsInMemory
) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.acquire("acme", uid, tree)

    async def purge() -> None:
        versions.kept["acme"].pop(uid, None)
        await ingest.pins.release("acme", uid)

    versions.after_page = purge
    assert await reconcile(ingest, versions) == Reconciliation(versions=1)
    assert await held(ingest) == {}


async def test_a_version_that_is_purged_while_its_tombstone_is_made_a_pin_has_none_in_the_end(
    ingest: Ingest, versions: VersionsInMemory
) -> None:
    tree = await put_tree(ingest, FILES)
    uid = versions.keep(os.urandom(16), tree)
    await ingest.pins.release("acme", uid)

    async def purge() -> None:
        versions.kept["acme"].pop(uid, None)
        # It finds the tombstone, does nothing, and is acknowledged.
        await ingest.pins.release("acme", uid)

    versions.after_expected = purge
    assert await reconcile(ingest, versions) == Reconciliation(versions=1)
    assert await held(ingest) == {}


async def test_a_pin_that_is_released_while_it_is_asked_about_is_not_unknown(
    ingest: Ingest, versions: VersionsInMemory
) -> None:
    tree, uid = await put_tree(ingest, FILES), os.urandom(16)
    await ingest.pins.acquire("acme", uid, tree)

    async def release() -> None:
        await ingest.pins.release("acme", uid)

    versions.after_expected = release
    assert await reconcile(ingest, versions) == Reconciliation()


async def test_many_pages_of_both_are_held_against_each_other(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uids = sorted(os.urandom(16) for _ in range(60))
    kept, unknown, unpinned = uids[:45], uids[30:], set(uids[0:45:4])
    for uid in uids:
        if uid in unpinned:
            versions.keep(uid, tree)
            continue
        await ingest.pins.acquire("acme", uid, tree)
        if uid in kept:
            versions.keep(uid, tree)
    others = sorted(set(unknown) - set(kept))
    result = await reconcile(ingest, versions, page=7)
    assert versions.pages == 45 // 7 + 2
    assert (result.versions, result.repinned) == (45, len(unpinned))
    assert (result.unknown_pins, result.unknown) == (len(others), others)
    assert sorted(await held(ingest)) == uids
    # Pins that lie before, between and after all versions, many to a page of versions.
    for uid in uids[1:44]:
        versions.kept["acme"].pop(uid, None)
    result = await reconcile(ingest, versions, page=3)
    assert result.unknown == sorted(set(uids) - {uids[0], uids[44]})


async def test_an_older_database_of_ingest_gets_all_its_pins_again(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree = await put_tree(ingest, FILES)
    uids = [versions.keep(os.urandom(16), tree) for _ in range(10)]
    for uid in uids:
        await ingest.pins.acquire("acme", uid, tree)
    await forget(ingest, *uids)
    assert (await reconcile(ingest, versions, page=4)).repinned == 10
    assert sorted(await held(ingest)) == sorted(uids)


async def test_what_another_entity_keeps_does_not_count(ingest: Ingest, versions: VersionsInMemory) -> None:
    tree, uid = await put_tree(ingest, FILES), os.urandom(16)
    await ingest.pins.acquire("acme", uid, tree)
    versions.keep(uid, tree, "rival")
    assert (await reconcile(ingest, versions)).unknown == [uid]


async def test_a_registry_that_does_not_answer_ends_it(ingest: Ingest, versions: VersionsInMemory) -> None:
    versions.is_away = True
    with pytest.raises(RegistryUnavailable):
        await reconcile(ingest, versions)


async def test_a_pin_is_not_made_over_a_tombstone_where_content_is_not_live(ingest: Ingest) -> None:
    tree, uid = await put_tree(ingest, FILES), os.urandom(16)
    await ingest.pins.release("acme", uid)
    missing = DigestSet()
    missing.update([b"x" * 32])
    with pytest.raises(MissingBlobs):
        await ingest.index.pins.restore("acme", uid, tree, missing)
    assert await held(ingest) == {}
    with pytest.raises(PinReleased):
        await ingest.pins.acquire("acme", uid, tree)
