"""Bad connections: what is done over them comes out right or ends in a clear error in time, and nothing is left over.

Everything that clients do goes on at once over one link (tests/support/link.py): a directory is uploaded and
downloaded, a run measures and logs an artifact, and a program without an event loop does the same.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

import lading
import lading.sync
from lading_server.common.settings import Settings
from tests.support.index import FakeClock
from tests.support.link import Fault, Link, Way
from tests.support.pair import Running, collect_everything, running_pair, what_is_left
from tests.support.registry import until

SEED = 20261125
SETTINGS = Settings(
    auth="none",
    min_free_bytes=0,
    pack_target_bytes=1 << 20,
    # As little as there may be: what is unacknowledged at a fault is sent again.
    window_bytes=4 << 20,
    gc_period_seconds=0,
    retention_period_seconds=0,
    # A server that was not told that a client is gone finds out by itself.
    stream_idle_seconds=3.0,
    run_timeout_seconds=3.0,
)
_RANDOM = random.Random(SEED)
FILES, UPLOADED = (
    {"big": _RANDOM.randbytes(big_bytes), **{f"s/{number}": _RANDOM.randbytes(9_000) for number in range(100)}}
    for big_bytes in (3 << 20, 12 << 20)
)
SIZE_BYTES = sum(map(len, UPLOADED.values()))
SOON = lading.RetryPolicy(retry_seconds=60, first_seconds=0.01, longest_seconds=0.2)
# As often as a server allows (every 10 s), so that the tests need not wait for half a minute.
_PINGS = {
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 2_000,
    "grpc.http2.ping_timeout_ms": 2_000,
}


class Served(NamedTuple):
    """The two services, and the link that leads to them."""

    run: Running
    link: Link
    clock: FakeClock


@pytest.fixture
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    print(f"seed {SEED}")
    clock = FakeClock()
    settings: Settings = getattr(request, "param", SETTINGS)
    async with running_pair(tmp_path / "data", settings, clock) as run, Link(run.target) as link:
        for name, value in (("CACHE_DIR", ""), ("URL", link.address), ("ENTITY", "acme"), ("PROJECT", "digits")):
            monkeypatch.setenv(f"LADING_{name}", value)
        yield Served(run, link, clock)


@pytest.fixture
def frequent_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is dead is found out in seconds."""
    options = lading._transport._OPTIONS
    assert _PINGS.keys() <= dict(options).keys()
    monkeypatch.setattr("lading._transport._OPTIONS", [(name, _PINGS.get(name, value)) for name, value in options])


def made(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def content_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def others(seed: int) -> dict[str, bytes]:
    """Return files that nobody else has."""
    rng = random.Random(seed)
    return {"big": rng.randbytes(1 << 20), "small": rng.randbytes(5_000)}


# --- what is done ---


async def upload(where: Path, link: Link) -> None:
    """Upload a directory, and name it. Little of it is sent twice."""
    async with lading.IngestClient(os.environ["LADING_URL"], entity="acme", retry=SOON) as client:
        uploaded = await client.upload_tree(made(where / "in", UPLOADED))
    assert uploaded.transfer.bytes_done == SIZE_BYTES
    # What is unacknowledged at a fault, on two streams, comes again; what is acknowledged does not.
    assert SIZE_BYTES <= uploaded.transfer.bytes_sent <= SIZE_BYTES + link.faults * 2 * SETTINGS.window_bytes
    async with lading.Client(retry=SOON) as client:
        await client.commit(uploaded.tree.digest, "uploaded", type="dataset")


async def download(where: Path, _link: Link) -> None:
    """Download what was there before."""
    async with lading.Client(retry=SOON) as client:
        version = await client.version("before")
        assert content_of(await version.download(where / "out")) == FILES


async def train(where: Path, _link: Link) -> None:
    """A run that measures for a while, and logs what came of it."""
    async with lading.init(run_id="training", retry=SOON) as run:
        for step in range(200):
            run.log({"loss": 1 / (step + 1)}, step=step)
        artifact = lading.Artifact("model", type="model")
        artifact.add_dir(made(where / "model", others(1)))
        assert (await run.log_artifact(artifact)).number == 0


def without_a_loop(where: Path) -> None:
    """The same, without an event loop."""
    with lading.sync.Client(retry=SOON) as client:
        client.put(made(where / "in", others(2)), "blocking", type="dataset")
        assert content_of(client.version("blocking").download(where / "out")) == others(2)


async def everything(where: Path, link: Link) -> None:
    """All of it at once."""
    works: list[Callable[[Path, Link], Coroutine[object, object, None]]] = [upload, download, train]
    async with asyncio.timeout(180), asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work(where / work.__name__, link))
        group.create_task(asyncio.to_thread(without_a_loop, where / "blocking"))


async def check_what_is_there(served: Served, where: Path, names: dict[str, dict[str, bytes]]) -> None:
    """Each version is there once and right, each has its pin and nothing else has; deleted, nothing is left."""
    run = served.run
    await run.settle()
    for name, files in names.items():
        (version,) = [one async for one in run.client.versions(name)]
        assert content_of(await version.download(where / "check" / name)) == files
    assert [event async for event in run.client.check(4) if isinstance(event, lading.CheckFinding)] == []
    assert (await what_is_left(run))["pins"] == len(names)
    for name in names:
        await run.client.delete(name, force=True, purge=True)
    told = await collect_everything(run, served.clock, SETTINGS)
    assert [one.refused for one in told if one.refused] == []
    assert await what_is_left(run) == {}


ALL = {
    "digits/before": FILES,
    "digits/uploaded": UPLOADED,
    "digits/model": others(1),
    "digits/blocking": others(2),
}


async def put_before(served: Served, where: Path) -> None:
    """Store what will be downloaded, over a good connection."""
    await served.run.client.put(made(where / "before", FILES), "digits/before", type="dataset")


@pytest.mark.parametrize("way", list(Way))
async def test_over_a_link_that_is_cut_again_and_again_all_comes_out_right(
    served: Served, tmp_path: Path, way: Way
) -> None:
    await put_before(served, tmp_path)
    served.link.arm(Fault.CUT, way, random.Random(SEED).randrange(700_000, 1_100_000), times=3)
    await everything(tmp_path, served.link)
    assert served.link.faults == 3
    await check_what_is_there(served, tmp_path, ALL)


@pytest.mark.usefixtures("frequent_pings")
@pytest.mark.parametrize("fault", [Fault.STALL, Fault.SERVER_SIDE_CLOSED, Fault.CLIENT_SIDE_CLOSED])
@pytest.mark.parametrize("way", list(Way))
async def test_a_link_that_dies_without_a_word_is_found_out_and_all_comes_out_right(
    served: Served, tmp_path: Path, fault: Fault, way: Way
) -> None:
    await put_before(served, tmp_path)
    served.link.arm(fault, way, 800_000)
    await everything(tmp_path, served.link)
    assert served.link.faults == 1
    open_streams = served.run.ingest.pool

    async def is_over() -> bool:
        # Streams whose client is gone have let go of their packs: everything can be sealed.
        await open_streams.close()
        return not await served.run.ingest.index.packs.open_packs()

    await until(is_over)
    await check_what_is_there(served, tmp_path, ALL)


# A stream may pause for long where all share a narrow link on a busy machine, and nobody there is gone.
@pytest.mark.parametrize("served", [replace(SETTINGS, stream_idle_seconds=60.0)], ids=["patient"], indirect=True)
@pytest.mark.parametrize(("bytes_per_second", "delay_seconds"), [(2 << 20, 0.0), (0, 0.1)])
async def test_over_a_narrow_or_a_long_link_all_comes_out_right(
    served: Served, tmp_path: Path, bytes_per_second: int, delay_seconds: float
) -> None:
    await put_before(served, tmp_path)
    served.link.bytes_per_second, served.link.delay_seconds = bytes_per_second, delay_seconds
    await everything(tmp_path, served.link)
    await check_what_is_there(served, tmp_path, ALL)


async def test_without_a_link_every_call_says_so_in_time_and_goes_on_when_it_is_back(
    served: Served, tmp_path: Path
) -> None:
    await put_before(served, tmp_path)
    source, out = made(tmp_path / "in", others(3)), tmp_path / "out"
    # Longer than a channel may wait before it connects again, and what the last attempt takes.
    impatient = lading.RetryPolicy(retry_seconds=2.0, first_seconds=0.01, longest_seconds=0.1)
    async with lading.Client(retry=impatient) as client:
        version = await client.version("before")
        run = await lading.init(run_id="training", retry=impatient).__aenter__()
        served.link.go_down()
        run.log({"loss": 1.0})
        async with asyncio.timeout(60):
            with pytest.raises(lading.Unavailable):
                await version.download(out)
            with pytest.raises(lading.Unavailable):
                await client.put(source, "a", type="dataset")
            with pytest.raises(lading.NotLogged):
                await run.finish()
            with lading.sync.Client(retry=impatient) as blocking, pytest.raises(lading.Unavailable):
                await asyncio.to_thread(blocking.put, source, "a", type="dataset")
        served.link.come_up()
        assert content_of(await version.download(out)) == FILES
        assert (await client.put(source, "a", type="dataset")).version.number == 0
    await check_what_is_there(served, tmp_path, {"digits/before": FILES, "digits/a": others(3)})
