"""kill -9 of the server at random moments of a running upload: nothing acknowledged is lost, and the upload goes on."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from lading_proto.ingest.v1 import chunks_pb2
from tests.support.server import ServerProcess
from tests.support.wire import Wire, chunk, digest_of, put_batch, put_start, recipe, text_digest

ROUNDS = 30
SEED = int(os.environ.get("LADING_TEST_SEED", "20261124"))
BLOB_CHUNKS = 6
BLOBS = 60


@dataclass
class Acknowledged:
    """What the server promised, kept by the client: the oracle."""

    chunks: set[bytes] = field(default_factory=set)
    blobs: set[bytes] = field(default_factory=set)
    sent_chunks: int = 0


@dataclass
class Workload:
    """Blobs of a few chunks each, all different."""

    blobs: dict[bytes, list[bytes]]

    @classmethod
    def make(cls, rng: random.Random) -> Workload:
        blobs = {}
        for _ in range(BLOBS):
            parts = [rng.randbytes(rng.choice([1, 100, 20_000, 300_000])) for _ in range(BLOB_CHUNKS)]
            blobs[b"".join(parts)] = parts
        return cls(blobs)


async def upload(wire: Wire, work: Workload, seen: Acknowledged) -> None:
    """One try at the whole upload: ask, send what is missing, commit. Fails when the server dies."""
    session = await wire.session()
    for blob, parts in work.blobs.items():
        # Chunks of one byte may come twice in a blob, and need to be sent once.
        missing = list(dict.fromkeys(parts[index] for index in await wire.missing(session, parts)))
        still = {digest_of(part) for part in parts} - {digest_of(part) for part in missing}
        assert seen.chunks & {digest_of(part) for part in parts} <= still, "an acknowledged chunk is missing"
        await put(wire, session, missing, seen)
        (result,) = await wire.commit(session, [recipe(blob, parts)])
        assert result.outcome in (chunks_pb2.BLOB_OUTCOME_COMMITTED, chunks_pb2.BLOB_OUTCOME_ALREADY_PRESENT)
        seen.blobs.add(blob)


async def put(wire: Wire, session: str, parts: list[bytes], seen: Acknowledged) -> None:
    """Put chunks one message each, noting each acknowledgement as it comes."""

    async def requests() -> AsyncIterator[chunks_pb2.PutChunksRequest]:
        yield put_start(session)
        for part in parts:
            seen.sent_chunks += 1
            yield put_batch([chunk(part)])

    async for answer in wire.stub.PutChunks(requests()):
        assert not answer.failures
        seen.chunks.update(digest_of(part) for part in parts[: answer.acknowledged_chunks])


async def check_everything(wire: Wire, work: Workload, seen: Acknowledged) -> None:
    """Every acknowledged chunk is found, and every acknowledged blob reads back right."""
    session = await wire.session()
    chunks = [part for parts in work.blobs.values() for part in parts if digest_of(part) in seen.chunks]
    assert await wire.missing(session, chunks) == []
    for blob in seen.blobs:
        assert await wire.read(text_digest(blob)) == blob


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    work, seen = Workload.make(rng), Acknowledged()
    kills = 0
    unique = len({digest_of(part) for parts in work.blobs.values() for part in parts})
    while kills < ROUNDS:
        server = ServerProcess(tmp_path / "data", "--pack-target-bytes", str(4 << 20))
        try:
            async with Wire(server.target) as wire:
                await check_everything(wire, work, seen)
                running = asyncio.create_task(upload(wire, work, seen))
                # The moment is a number of acknowledgements, so that every round gets somewhere: how far is random,
                # and what the server is doing just then is too.
                goal = len(seen.chunks) + rng.randrange(1, 2 * unique // ROUNDS)
                while not running.done() and len(seen.chunks) < goal:
                    await asyncio.wait([running], timeout=rng.random() / 200)
                server.kill()
                kills += 1
                outcome = (await asyncio.gather(running, return_exceptions=True))[0]
                assert outcome is None or isinstance(outcome, grpc.aio.AioRpcError), outcome
        finally:
            server.close()
        if len(seen.blobs) == len(work.blobs):
            # All of it arrived: go on with other content, so that later kills find work to interrupt.
            more = Workload.make(rng)
            work.blobs.update(more.blobs)
            unique = len({digest_of(part) for parts in more.blobs.values() for part in parts})
    server = ServerProcess(tmp_path / "data")
    try:
        async with Wire(server.target) as wire:
            await check_everything(wire, work, seen)
            seen.sent_chunks = 0
            session = await wire.session()
            every = list({digest_of(part): part for parts in work.blobs.values() for part in parts}.values())
            missing_before = len(await wire.missing(session, every))
            await upload(wire, work, seen)
            assert seen.sent_chunks == missing_before, "the upload sent what the server had"
            await check_everything(wire, work, seen)
            assert len(seen.blobs) == len(work.blobs)
    finally:
        server.close()


async def test_a_second_server_on_the_same_directory_is_refused(server: ServerProcess) -> None:
    with pytest.raises(AssertionError, match="did not start"):
        ServerProcess(server.data)
    async with Wire(server.target) as wire:
        assert await wire.session()
