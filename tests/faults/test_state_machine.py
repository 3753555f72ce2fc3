"""Everything that can be done to a store, and everything that can happen to it, in any order.

A model of the truth (tests/support/truth.py) says what has to be there after each step. Then a check at the highest
level has to find what the model knows to be lost and nothing else, the registry has to show what it should, and every
version that is whole has to read back byte for byte.

LADING_MACHINE_EXAMPLES: how many histories; LADING_MACHINE_STEPS: how long they are; LADING_TEST_SEED: which. A failure
prints the shortest history that was found, as a program, and a blob that does the same once more.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import os
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import lading
from lading_server.common.settings import Settings
from lading_server.ingest.index.schema import PackState, chunks, packs, tree_pages
from lading_server.maintenance.backup import make_backup
from lading_server.maintenance.halves import Places
from lading_server.maintenance.rebuild import rebuild_index
from lading_server.maintenance.restore import restore_backup
from tests.support.check import flip
from tests.support.index import FakeClock
from tests.support.pair import Pair, collect_everything, what_is_left
from tests.support.truth import CONTENTS, MODEL, Files, Seen, Truth

SEED = int(os.environ.get("LADING_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
EXAMPLES = int(os.environ.get("LADING_MACHINE_EXAMPLES", "8"))
STEPS = int(os.environ.get("LADING_MACHINE_STEPS", "25"))

HOUR, DAY = 3600.0, 86400.0
# Small packs, so that some are full and some half dead; nothing is done by itself.
SETTINGS = Settings(
    auth="none",
    min_free_bytes=0,
    pack_target_bytes=48 << 10,
    group_commit_milliseconds=1,
    threads=2,
    session_ttl_seconds=HOUR,
    trash_seconds=2 * DAY,
    undelete_seconds=DAY,
    gc_period_seconds=0,
    retention_period_seconds=0,
)
# For so long an answered request is remembered.
_REQUEST_SECONDS = 2 * DAY
_HEADER_BYTES = 64


class Way(Enum):
    """How a call goes."""

    WELL = auto()
    # Its effect happens, and whoever asked is not told of it.
    LOST_ANSWER = auto()
    # It comes twice.
    TWICE = auto()
    # The server crashes in the middle.
    CRASH = auto()


class Backup(NamedTuple):
    """A backup, and what was true at that moment."""

    path: Path
    truth: Truth
    at: float
    sent: int


WAYS = st.sampled_from([Way.WELL, Way.WELL, Way.WELL, Way.LOST_ANSWER, Way.TWICE, Way.CRASH])
MOMENTS = st.integers(1, 25)
COLLECTIONS = st.sampled_from(["digits", "letters"])
ALIASES = st.sampled_from(["best", "staging"])
FILES = st.dictionaries(
    st.sampled_from(["a", "b/c", "d"]), st.sampled_from(sorted(CONTENTS)), min_size=1, max_size=3
).map(lambda files: tuple(sorted(files.items())))
# The answers of an upload that may get lost, besides that of its commit.
_OF_UPLOADS = ("CommitVersion", "PutTree", "CommitBlobs", "FindMissingChunks", "OpenSession")
_NAMES = {"put": _OF_UPLOADS, "refs": ("UpdateRefs",), "delete": ("DeleteVersion",), "undelete": ("UndeleteVersion",)}
NUMBERS = st.integers(0, 1 << 16)


class StoreMachine(RuleBasedStateMachine):
    """Histories of one store."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-"))
        self.runner = asyncio.Runner()
        self.clock = FakeClock(float(int(time.time())))
        self.truth = Truth()
        self.backups: list[Backup] = []
        self.steps = 0
        self.pair = Pair(self.root, SETTINGS, self.clock)
        # When each of `pair.faults.sent` was sent.
        self.sent_at: list[float] = []
        self.run(self.pair.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    # --- names ---

    @initialize(first=FILES, second=FILES)
    def begin(self, first: Files, second: Files) -> None:
        """Two versions that are there, so that every history has something to lose."""
        self.put("digits", first, {"best"}, Way.WELL, 0)
        self.put("digits", second, set(), Way.WELL, 0)

    @rule(collection=COLLECTIONS, files=FILES, aliases=st.sets(ALIASES, max_size=1), way=WAYS, moments=MOMENTS)
    def put(self, collection: str, files: Files, aliases: set[str], way: Way, moments: int) -> None:
        source = {}
        for number, (path, content) in enumerate(files):
            local = self.root / f"file-{number}"
            local.write_bytes(CONTENTS[content])
            source[path] = local
        names = tuple(sorted(aliases))
        self.do(
            "put",
            lambda client: client.put(source, collection, type="dataset", aliases=names),
            lambda truth: truth.put(collection, files, names),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.of("live"))
    @rule(which=NUMBERS, alias=ALIASES, way=WAYS, moments=MOMENTS)
    def set_alias(self, which: int, alias: str, way: Way, moments: int) -> None:
        version = self.pick(self.truth.of("live"), which)
        self.do(
            "refs",
            lambda client: client.set_aliases(version.reference, set=[alias]),
            lambda truth: truth.aliases.__setitem__((version.collection, alias), version.number),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.aliases)
    @rule(which=NUMBERS, way=WAYS, moments=MOMENTS)
    def remove_alias(self, which: int, way: Way, moments: int) -> None:
        collection, alias = sorted(self.truth.aliases)[which % len(self.truth.aliases)]
        self.do(
            "refs",
            lambda client: client.set_aliases(f"{collection}:{alias}", remove=[alias]),
            lambda truth: truth.aliases.__delitem__((collection, alias)),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.of("live"))
    @rule(which=NUMBERS, way=WAYS, moments=MOMENTS)
    def link(self, which: int, way: Way, moments: int) -> None:
        version = self.pick(self.truth.of("live"), which)
        self.do(
            "refs",
            lambda client: client.link(version.reference, MODEL),
            lambda truth: truth.link(version),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.links)
    @rule(which=NUMBERS, way=WAYS, moments=MOMENTS)
    def unlink(self, which: int, way: Way, moments: int) -> None:
        number = sorted(self.truth.links)[which % len(self.truth.links)]
        self.do(
            "refs",
            lambda client: client.unlink(f"{MODEL}:v{number}"),
            lambda truth: truth.links.__delitem__(number),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.of("live"))
    @rule(which=NUMBERS, force=st.booleans(), purge=st.booleans(), way=WAYS, moments=MOMENTS)
    def delete(self, which: int, force: bool, purge: bool, way: Way, moments: int) -> None:
        version = self.pick(self.truth.of("live"), which)
        if self.truth.is_used(version) and not force:
            with pytest.raises(lading.FailedPrecondition):
                self.run(self.pair.client.delete(version.reference, purge=purge))
            return
        self.do(
            "delete",
            lambda client: client.delete(version.reference, force=force, purge=purge),
            lambda truth: truth.delete(truth.version(version.key), self.clock(), purge=purge),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.of("deleted"))
    @rule(which=NUMBERS, way=WAYS, moments=MOMENTS)
    def purge(self, which: int, way: Way, moments: int) -> None:
        version = self.pick(self.truth.of("deleted"), which)
        self.do(
            "delete",
            lambda client: client.delete(version.reference, purge=True),
            lambda truth: truth.delete(truth.version(version.key), self.clock(), purge=True),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.of("deleted"))
    @rule(which=NUMBERS, way=WAYS, moments=MOMENTS)
    def undelete(self, which: int, way: Way, moments: int) -> None:
        version = self.pick(self.truth.of("deleted"), which)
        self.do(
            "undelete",
            lambda client: client.undelete(version.reference),
            lambda truth: setattr(truth.version(version.key), "state", "live"),
            way,
            moments,
        )

    @precondition(lambda self: self.truth.of("purged"))
    @rule(which=NUMBERS)
    def a_purged_version_stays_away(self, which: int) -> None:
        version = self.pick(self.truth.of("purged"), which)
        with pytest.raises(lading.NotFound):
            self.run(self.pair.client.undelete(version.reference))

    @precondition(lambda self: self.truth.of("live"))
    @rule(which=NUMBERS, hours=st.sampled_from([1, 30]))
    def set_time_to_live(self, which: int, hours: int) -> None:
        version = self.pick(self.truth.of("live"), which)
        ttl = timedelta(hours=hours)
        self.run(self.pair.client.update_version(version.reference, ttl=ttl))
        version.ends_at = self.clock() + ttl.total_seconds()

    @rule()
    def apply_retention(self) -> None:
        self.run(self.pair.client.apply_retention())
        self.truth.retention(self.clock())

    @precondition(lambda self: self.sent_at)
    @rule(which=NUMBERS)
    def send_an_old_call_again(self, which: int) -> None:
        """What was remembered changes nothing."""
        at = which % len(self.sent_at)
        if self.clock() < self.sent_at[at] + _REQUEST_SECONDS:
            self.run(self.pair.now.send_again(self.pair.faults.sent[at]))
            del self.pair.faults.sent[len(self.sent_at) :]

    # --- content ---

    @rule(
        way=st.sampled_from([Way.WELL, Way.WELL, Way.CRASH]),
        moments=MOMENTS,
        seconds=st.sampled_from([HOUR + 1, 2 * DAY + 1, 0.0]),
    )
    def collect_garbage(self, way: Way, moments: int, seconds: float) -> None:
        """After some time in which nobody did anything: packs are sealed, leases lapse, the trash passes."""
        self.run(self.pair.now.ingest.pool.close())
        self.let_time_pass(seconds)
        if way is Way.CRASH:
            is_done = self.run(self.pair.crash_during(self.collected(dry_run=False), moments, random.Random(moments)))
            self.truth.has_pins |= is_done and not self.truth.lost
            return
        is_exact = self.truth.has_pins and not self.truth.lost
        foretold = self.run(self.collected(dry_run=True)) if is_exact else None
        told = self.run(self.collected(dry_run=False))
        if told is None:
            return
        if told.refused:
            # A version without a pin whose content is lost.
            assert not self.truth.has_pins, told.refused
            assert self.truth.lost, told.refused
            return
        self.truth.has_pins = True
        if foretold is not None:
            assert counts_of(foretold) == counts_of(told)

    @rule(seconds=st.sampled_from([60.0, HOUR + 1, DAY + 1, 2 * DAY + 1]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.run(self.pair.now.settle())
        self.truth.time_is(self.clock(), SETTINGS.undelete_seconds)

    @rule()
    def restart(self) -> None:
        self.run(self.stopped())
        self.run(self.pair.start())

    @rule(moments=MOMENTS)
    def crash(self, moments: int) -> None:
        self.run(self.pair.crash(random.Random(moments)))

    @precondition(lambda self: self.truth.versions)
    @rule(which=NUMBERS, offset=NUMBERS)
    def corrupt_a_byte(self, which: int, offset: int) -> None:
        self.run(self.corrupt(which, offset))

    @rule()
    def make_a_new_index(self) -> None:
        self.run(self.stopped())
        self.run(rebuild_index(Places(self.pair.data), force=True))
        self.run(self.pair.start())
        self.truth.has_pins = False
        self.run(self.learn_what_is_lost(self.truth.lost))

    @precondition(lambda self: len(self.backups) < 3)
    @rule()
    def back_up(self) -> None:
        path = self.run(make_backup(self.root / "backups", Places(self.pair.data), clock=self.next_moment))
        self.backups.append(Backup(path, copy.deepcopy(self.truth), self.clock(), len(self.pair.faults.sent)))

    @precondition(lambda self: self.usable_backups())
    @rule(which=NUMBERS)
    def restore(self, which: int) -> None:
        backup = self.pick(self.usable_backups(), which)
        self.run(self.stopped())
        self.run(restore_backup(backup.path, Places(self.pair.data), force=True, clock=self.clock))
        damaged, pages = self.truth.damaged, self.truth.pages
        self.truth = copy.deepcopy(backup.truth)
        self.truth.damaged |= damaged
        self.truth.pages |= pages
        self.truth.time_is(self.clock(), SETTINGS.undelete_seconds)
        # The registry has forgotten later ones.
        del self.pair.faults.sent[backup.sent :], self.sent_at[backup.sent :]
        self.backups = [one for one in self.backups if one.at <= backup.at]
        self.run(self.pair.start())
        self.truth.has_pins = False
        self.run(self.learn_what_is_lost(self.truth.damaged))

    # --- what has to be true ---

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        self.steps += 1
        self.sent_at += [self.clock()] * (len(self.pair.faults.sent) - len(self.sent_at))
        self.run(self.look())

    async def look(self) -> None:
        await self.pair.now.settle()
        assert await self.seen() == self.truth.seen()
        # A damage is met by a reader first, or by a check first.
        if self.steps % 2:
            await self.read_all()
        await self.check()
        if not self.steps % 2:
            await self.read_all()

    async def seen(self) -> Seen:
        """Return what the registry shows, and learn the ids of versions."""
        client = self.pair.client
        shown = Seen({}, {}, {})
        for collection in ("digits", "letters", MODEL):
            for deleted in (False, True):
                try:
                    found = [version async for version in client.versions(collection, deleted=deleted)]
                except lading.NotFound:
                    continue
                for version in found:
                    key = (collection, version.number)
                    if collection != MODEL:
                        for known in self.truth.versions:
                            if known.key == key:
                                known.uid = known.uid or version.uid
                                assert known.uid == version.uid
                    elif deleted:
                        continue
                    (shown.deleted if deleted else shown.live)[key] = version.digest
                    for alias in version.aliases:
                        shown.aliases[collection, alias] = version.number
        return shown

    async def read_all(self) -> None:
        """Read every file of every version that is there; each tree once."""
        for version in {version.digest: version for version in self.truth.of("live")}.values():
            found = await self.pair.client.version(version.reference)
            lost_paths = self.truth.lost_paths(version)
            for path, content in version.files:
                try:
                    data = await found.read_bytes(path)
                except lading.LadingError as error:
                    # It says so, and says it only of what is lost.
                    is_lost = path in lost_paths or self.truth.is_listing_lost(version)
                    assert is_lost, f"{version.reference} {path}: {error!r}"
                    # An index that was made anew has never heard of a file whose one chunk is lost.
                    kinds = (
                        (lading.IntegrityError,) if self.truth.has_pins else (lading.IntegrityError, lading.NotFound)
                    )
                    assert isinstance(error, kinds), repr(error)
                else:
                    assert path not in lost_paths, f"{version.reference} {path} was read and is lost"
                    assert data == CONTENTS[content]

    async def check(self) -> None:
        """Check at the highest level: it finds what is lost, and nothing else."""
        findings: list[lading.CheckFinding] = []
        hurt: dict[str, lading.HurtVersion] = {}
        async for event in self.pair.client.check(4, restart=True):
            if isinstance(event, lading.CheckFinding):
                findings.append(event)
            elif isinstance(event, lading.HurtVersion):
                hurt[event.version_uid] = event
        may_be_told = {f"b3:{digest.hex()}" for digest in self.truth.may_be_told()}
        strange = [one for one in findings if not one.is_loss or one.digest not in may_be_told]
        assert not strange, strange
        kept = {version.uid: version for version in self.truth.of("live", "deleted") if self.truth.is_hurt(version)}
        if self.truth.has_pins:
            assert hurt.keys() == kept.keys(), (hurt, kept)
        assert hurt.keys() <= kept.keys(), (hurt, kept)
        for uid, told in hurt.items():
            assert told.tree_damaged == self.truth.is_listing_lost(kept[uid])
            if not told.tree_damaged:
                assert told.damaged_files == len(self.truth.lost_paths(kept[uid]))

    def teardown(self) -> None:
        try:
            self.run(self.clear_away())
        finally:
            self.run(self.pair.stop())
            self.runner.close()
            shutil.rmtree(self.root)

    async def clear_away(self) -> None:
        """Delete everything for good: nothing is left."""
        client = self.pair.client
        for version in self.truth.of("live", "deleted"):
            await client.delete(version.reference, force=version.state == "live", purge=True)
        told = await collect_everything(self.pair.now, self.clock, SETTINGS)
        assert not [one.refused for one in told if one.refused]
        assert await what_is_left(self.pair.now) == {}
        assert (await client.usage()).used_bytes == 0

    # --- how it is done ---

    def do(
        self,
        kind: str,
        act: Callable[[lading.Client], Awaitable[object]],
        apply: Callable[[Truth], object],
        way: Way,
        moments: int,
    ) -> None:
        """Do something at the store and in the model."""
        if way is not Way.CRASH:
            names = _NAMES[kind]
            if way is Way.LOST_ANSWER:
                self.pair.faults.lose(names[moments % len(names)])
            elif way is Way.TWICE:
                self.pair.faults.repeat(names[0])
            self.run(within_a_minute(act(self.pair.client)))
            self.pair.faults.clear()
            apply(self.truth)
            return
        before, after = self.truth, copy.deepcopy(self.truth)
        apply(after)
        if self.run(self.pair.crash_during(act(self.pair.client), moments, random.Random(moments))):
            self.truth = after
            return
        self.run(self.pair.now.settle())
        shown = self.run(self.seen())
        assert shown in (before.seen(), after.seen()), "half of it was done"
        self.truth = after if shown == after.seen() else before
        # Of an upload a part may be there.
        self.run(self.learn_what_is_lost(before.lost))

    def pick(self, some: list[Any], which: int) -> Any:
        return some[which % len(some)]

    def usable_backups(self) -> list[Backup]:
        """Those that are not older than the trash."""
        return [one for one in self.backups if one.at + SETTINGS.trash_seconds > self.clock()]

    def next_moment(self) -> float:
        """No two backups have one name."""
        self.clock.seconds += 0.001
        return self.clock()

    async def stopped(self) -> None:
        await self.pair.stop()

    async def collected(self, *, dry_run: bool) -> lading.EntityCollection | None:
        """Collect garbage; return what came of the one entity, None where there is none yet."""
        told = None
        async for event in self.pair.client.collect_garbage(dry_run=dry_run):
            if isinstance(event, lading.EntityCollection):
                told = event
        return told

    async def learn_what_is_lost(self, suspects: set[bytes]) -> None:
        """After something of which nobody knows how far it came: which of these are lost. A check verifies all rows."""
        async for _ in self.pair.client.check(4, restart=True):
            pass
        there = await self.pair.now.ingest.index.chunks.locate("acme", list(suspects))
        self.truth.lost = suspects - there.keys()

    async def corrupt(self, which: int, offset: int) -> None:
        """Change a byte of a chunk or page that counts."""
        query = (
            sa.select(
                chunks.c.digest, chunks.c.record_offset, chunks.c.stored_bytes, packs.c.id, tree_pages.c.tree_digest
            )
            .join(packs, packs.c.id == chunks.c.pack_id)
            .outerjoin(tree_pages, tree_pages.c.page_digest == chunks.c.digest)
            .where(packs.c.state.in_([PackState.OPEN.value, PackState.SEALED.value]))
            .order_by(chunks.c.digest)
        )
        async with self.pair.now.ingest.index.database.read() as connection:
            rows = (await connection.execute(query)).all()
        if rows:
            digest, begin, stored_bytes, pack, tree = rows[which % len(rows)]
            path = self.pair.data / "packs" / pack.hex()[-2:] / f"{pack.hex()}.pack"
            flip(path, begin + _HEADER_BYTES + offset % stored_bytes)
            self.truth.lose(digest, f"b3:{tree.hex()}" if tree else "")


async def within_a_minute(work: Awaitable[object]) -> None:
    """Wait for something that must not hang."""
    async with asyncio.timeout(60):
        await work


def counts_of(told: lading.EntityCollection) -> dict[str, object]:
    """Return what a collection says that it did, in numbers."""
    assert told.report is not None, told.refused
    return {name: value for name, value in dataclasses.asdict(told.report).items() if isinstance(value, int)}


@seed(SEED)
class SeededMachine(StoreMachine):
    """Of this seed."""


def test_every_history_of_a_store_is_as_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"LADING_TEST_SEED={SEED}")
    monkeypatch.setenv("LADING_CACHE_DIR", "")
    run_state_machine_as_test(
        SeededMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            derandomize=False,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
