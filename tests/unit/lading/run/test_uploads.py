"""What is logged in the background: order, bounds, errors."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

import lading
from lading._run.uploads import Snapshot, Uploads, take_snapshot
from lading._version import Version


class Puts:
    """Stores nothing, when it is told to."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.done: list[str] = []
        self.most_running = 0
        self._gates: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Event()

    async def __call__(self, snapshot: Snapshot) -> Version:
        key = f"{snapshot.artifact.name}{snapshot.description}"
        self.running.append(key)
        self.most_running = max(self.most_running, len(self.running))
        self._changed.set()
        try:
            await self.gate(key).wait()
            if snapshot.description.startswith("!"):
                raise lading.FileChanged(f"{key} changed")
            self.done.append(key)
            return cast(Version, key)
        finally:
            self.running.remove(key)

    def gate(self, key: str) -> asyncio.Event:
        return self._gates.setdefault(key, asyncio.Event())

    async def until_running(self, *keys: str) -> None:
        while sorted(self.running) != sorted(keys):
            self._changed.clear()
            async with asyncio.timeout(30):
                await self._changed.wait()


def snapshot(name: str, description: str = "") -> Snapshot:
    return take_snapshot(lading.Artifact(name, type="model", description=description), (), ())


async def test_a_few_go_up_at_once_and_those_of_one_collection_in_their_order() -> None:
    puts = Puts()
    uploads = Uploads(puts)
    a0, a1, b0, c0 = (uploads.start(snapshot(*names)) for names in (("a", "0"), ("a", "1"), ("b", "0"), ("c", "0")))
    await puts.until_running("a0", "b0")
    puts.gate("a1").set()
    puts.gate("b0").set()
    assert await b0 == cast(Version, "b0")
    await puts.until_running("a0", "c0")
    assert not a1.done()
    puts.gate("c0").set()
    puts.gate("a0").set()
    await uploads.join()
    assert a0.done()
    assert a1.done()
    assert c0.done()
    assert puts.done.index("a0") < puts.done.index("a1")
    assert puts.most_running == 2
    assert uploads.unseen_errors() == []


async def test_one_that_failed_does_not_hold_up_the_next() -> None:
    puts = Puts()
    uploads = Uploads(puts)
    first, second = uploads.start(snapshot("a", "!")), uploads.start(snapshot("a", "1"))
    puts.gate("a!").set()
    puts.gate("a1").set()
    assert await second == cast(Version, "a1")
    assert [(name, str(error)) for name, error in uploads.unseen_errors()] == [("a", "a! changed")]
    await first.wait()
    assert len(uploads.unseen_errors()) == 1
    for _ in range(2):
        with pytest.raises(lading.FileChanged):
            await first
    assert uploads.unseen_errors() == []


async def test_whoever_stops_waiting_does_not_stop_the_upload() -> None:
    puts = Puts()
    uploads = Uploads(puts)
    logged = uploads.start(snapshot("a", "0"))
    waiter = asyncio.ensure_future(logged.result())
    await puts.until_running("a0")
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not logged.done()
    puts.gate("a0").set()
    assert await logged == cast(Version, "a0")


async def test_another_loop_is_told_not_to_wait_and_what_is_done_is_seen_there() -> None:
    puts = Puts()
    uploads = Uploads(puts)
    done, running = uploads.start(snapshot("a")), uploads.start(snapshot("b"))
    puts.gate("a").set()
    await done
    await puts.until_running("b")

    async def elsewhere() -> None:
        async with asyncio.timeout(60):
            assert await done == cast(Version, "a")
            for wait in (running.wait, running.result):
                with pytest.raises(lading.FailedPrecondition, match="'b' is on its way in another event loop"):
                    await wait()

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert not running.done()
    await uploads.cancel()


async def test_what_is_cancelled_says_so_to_whoever_awaits_it() -> None:
    puts = Puts()
    uploads = Uploads(puts)
    running, waiting = uploads.start(snapshot("a", "0")), uploads.start(snapshot("a", "1"))
    await puts.until_running("a0")
    await uploads.cancel()
    assert puts.running == []
    for logged in (running, waiting):
        with pytest.raises(lading.NotLogged, match="ended before 'a'"):
            await logged
    assert puts.done == []
    assert uploads.unseen_errors() == []


@pytest.mark.parametrize(
    ("aliases", "tags", "words"),
    [
        ("best", (), r"\['best'\]"),
        (["latest"], (), "moves by itself"),
        (["v7"], (), "looks like a version"),
        ([], "tag", r"\['tag'\]"),
        ([], ["sp ace"], "tag"),
    ],
)
def test_names_that_cannot_be_set_are_refused_at_once(aliases: Any, tags: Any, words: str) -> None:
    with pytest.raises(lading.InvalidArgument, match=words):
        take_snapshot(lading.Artifact("a", type="model"), aliases, tags)


def test_a_snapshot_does_not_change_with_the_artifact() -> None:
    artifact = lading.Artifact("a", type="model", metadata={"epoch": 1})
    artifact.add_reference("s3://bucket/key")
    taken = take_snapshot(artifact, ("best",), ())
    artifact.metadata["epoch"] = 2
    artifact.remove("key")
    assert taken.metadata == {"epoch": 1}
    assert list(taken.entries) == ["key"]
