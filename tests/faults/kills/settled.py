"""The services after a restart, held against the oracle: names, pins, bytes that are kept, and what is on the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field

import lading
from tests.faults.kills.client import check_content, collection_of, model_of
from tests.faults.kills.journal import Journal
from tests.faults.kills.oracle import Names, Numbered, State
from tests.support import pieces
from tests.support.collected import check_clean, collect_everything
from tests.support.killable_pair import INGEST, REGISTRY, Pair
from tests.support.leftovers import leftovers
from tests.support.settling import check_pins

# Only the garbage that is asked for, and nothing in the trash; and sessions that lapse soon.
BY_HAND = ("--gc-period-seconds", "0", "--trash-seconds", "0", "--session-ttl-seconds", "1")


@dataclass
class Seen:
    """What one task's names are at the registry, in the form of the oracle, and the digests of its versions by id."""

    names: Names = field(default_factory=Names)
    latest: tuple[int | None, int | None] = (None, None)
    uids: dict[str, str] = field(default_factory=dict)


async def settle(pair: Pair, journal: Journal) -> dict[str, str]:
    """Hold the names against the oracle, and write down what became of what was not answered.

    Returns the ids of all versions that are kept, and the digest of each. The services are started.
    """
    known = journal.known
    uids: dict[str, str] = {}
    async with pair.client() as client:
        for task in list(known.names):
            seen = await _seen(client, task, known.names[task])
            ask = known.unanswered.get(task)
            if ask is not None:
                after, _ = known.names[task].after(ask)
                seen_after = await _seen(client, task, after)
                assert seen.names == known.names[task] or seen_after.names == after, (
                    f"{task} is neither as before nor as after {ask}:\n{seen.names}\n{known.names[task]}\n{after}"
                )
                happened = seen_after.names == after
                journal.write("settled", task, happened)
                seen = seen_after if happened else seen
            assert seen.names == known.names[task], f"{task}:\n{seen.names}\ninstead of\n{known.names[task]}"
            newest = tuple(_newest(some) for some in (seen.names.versions, seen.names.links))
            assert seen.latest == newest, f"{task}: latest are {seen.latest}"
            uids |= seen.uids
    return uids


async def _seen(client: lading.Client, task: str, like: Names) -> Seen:
    """Return what is there; pieces, sources and what was purged are taken from `like` where digests say the same."""
    seen = Seen()
    for name, target, expected, is_model in (
        (collection_of(task), seen.names.versions, like.versions, False),
        (model_of(task), seen.names.links, like.links, True),
    ):
        found = {version.number: version async for version in _listed(client, name)}
        for number in range(max([*found, len(expected) - 1], default=-1) + 1):
            target.append(_numbered(found.get(number), expected[number] if number < len(expected) else Numbered()))
        try:
            aliases = dict((await client.collection(name)).aliases)
        except lading.NotFound:
            aliases = {}
        latest = aliases.pop("latest", None)
        seen.latest = (seen.latest[0], latest) if is_model else (latest, seen.latest[1])
        if is_model:
            seen.names.link_aliases = aliases
        else:
            seen.names.aliases = aliases
            seen.uids = {version.uid: version.digest for version in found.values()}
    return seen


async def _listed(client: lading.Client, collection: str) -> AsyncIterator[lading.Version]:
    try:
        async for version in client.versions(collection):
            yield version
        async for version in client.versions(collection, deleted=True):
            yield version
    except lading.NotFound:
        # Nothing was ever put there, or linked.
        return


def _numbered(found: lading.Version | None, expected: Numbered) -> Numbered:
    if found is None:
        return Numbered(expected.pieces, expected.source, State.PURGED)
    state = State.LIVE if found.deleted_at is None else State.DELETED
    if found.is_link:
        return Numbered(source=int(found.source.rpartition(":v")[2]), state=state)
    is_same = expected.pieces and pieces.tree_digest(expected.pieces) == found.digest
    return Numbered(expected.pieces if is_same else (), state=state)


def _newest(numbered: list[Numbered]) -> int | None:
    return max((number for number, each in enumerate(numbered) if each.state is State.LIVE), default=None)


async def check_everything(pair: Pair, journal: Journal, *flags: str) -> None:
    """Restart the services and look at all there is; then start them again with `flags` for ingest.

    Raises AssertionError where anything is not as it was acknowledged, or something is left that nothing keeps.
    """
    pair.stop()
    pair.start(*BY_HAND)
    uids = await settle(pair, journal)
    await check_pins(pair, uids)
    trees = {pieces.tree_digest(some): some for names in journal.known.names.values() for some in names.kept().values()}
    assert set(uids.values()) == trees.keys(), set(uids.values()) ^ trees.keys()
    await _read_back(pair, journal)
    async with pair.client(pair.operator_key) as operator:
        await check_clean(operator)
        # Packs that are open are not collected, and a stop seals them.
        pair.stop()
        pair.start(*BY_HAND)
        await collect_everything(operator)
        await check_clean(operator)
    pair.stop()
    left = leftovers(pair.data(INGEST), trees)
    assert not left, "\n".join(left)
    _check_dense(pair, journal)
    pair.start(*flags)


async def _read_back(pair: Pair, journal: Journal) -> None:
    """Read every version that is there, and the files of every one that is deleted and kept."""
    async with (
        pair.client() as client,
        lading.IngestClient(pair.ingest_address, entity="default", api_key=pair.admin_key) as content,
    ):
        for task, names in journal.known.names.items():
            for number, some in names.kept().items():
                if names.versions[number].state is State.LIVE:
                    await check_content(await client.version(f"{collection_of(task)}:v{number}"), some)
                    continue
                listed = {entry.path: entry.digest async for entry in content.list_tree(pieces.tree_digest(some))}
                assert listed == {pieces.path_of(piece): f"b3:{pieces.digest(piece).hex()}" for piece in some}
                for piece in some:
                    data = b"".join([part async for part in content.read_file(listed[pieces.path_of(piece)])])
                    assert data == pieces.content(piece), f"{pieces.path_of(piece)} of {names} is wrong"


def _check_dense(pair: Pair, journal: Journal) -> None:
    """Raise unless every collection has the numbers from 0 on, purged ones too, and nothing is left half-way."""
    with closing(sqlite3.connect(f"file:{pair.data(REGISTRY) / 'registry.db'}?mode=ro", uri=True)) as database:
        numbers: dict[str, list[int]] = {}
        for name, number in database.execute(
            "SELECT name, number FROM versions JOIN collections ON collections.id = collection_id ORDER BY number"
        ):
            numbers.setdefault(name, []).append(number)
        for task, names in journal.known.names.items():
            for name, expected in ((collection_of(task), names.versions), (model_of(task), names.links)):
                found = numbers.pop(name.rpartition("/")[2], [])
                assert found == list(range(len(expected))), f"{name}: {found}"
        assert not numbers, numbers
        for table in ("commits", "pin_releases"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
