"""Whoever has sent everything says so, and the server does not wait for more to come."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

import lading
from lading._upload import lanes
from lading._upload.content import Chunk
from lading._upload.wire import encode_batch
from lading_server.common.settings import Settings
from tests.support.index import FakeClock
from tests.support.pair import running_pair

# A group of chunks is committed when somebody has nothing more to send, or never.
PATIENT = Settings(
    min_free_bytes=0, group_commit_milliseconds=3_600_000, group_commit_bytes=1 << 30, stream_idle_seconds=3600
)
_RANDOM = random.Random(66)
UPLOADS = {
    "a small file": {"one": b"1"},
    "a large file": {"large": _RANDOM.randbytes(9 << 20)},
    "one of each": {"large": _RANDOM.randbytes(9 << 20), "small": b"2"},
    "the same twice": {"a": b"3" * 999, "b": b"3" * 999},
    "more files than one reader takes": {str(number): str(number).encode() for number in range(2_000)},
}


@pytest.fixture(autouse=True)
def patient_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without work is not closed for that."""
    monkeypatch.setattr("lading._upload.lanes._IDLE_SECONDS", 3600)


@pytest.mark.parametrize("name", UPLOADS)
async def test_an_upload_ends_though_the_server_would_wait_for_more(tmp_path: Path, name: str) -> None:
    for path, data in UPLOADS[name].items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / path).write_bytes(data)
    async with (
        running_pair(tmp_path / "data", PATIENT, FakeClock()) as run,
        asyncio.timeout(60),
        lading.IngestClient(run.target, entity="acme") as client,
    ):
        uploaded = await client.upload_tree(tmp_path / "in")
        assert uploaded.tree.file_count == len(UPLOADS[name])
        again = await client.upload_tree(tmp_path / "in")
    assert (again.tree, again.transfer.bytes_sent) == (uploaded.tree, 0)


async def test_what_was_damaged_on_its_way_goes_again_after_the_streams_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = 0

    def encode(batch: Sequence[Chunk]) -> bytes:
        nonlocal damaged
        message = bytearray(encode_batch(batch))
        if damaged < 2:
            damaged += 1
            at = message.index(bytes(batch[-1].data))
            message[at] ^= 1
        return bytes(message)

    monkeypatch.setattr(lanes, "encode_batch", encode)
    (tmp_path / "one").write_bytes(b"some bytes of a file" * 50)
    async with (
        running_pair(tmp_path / "data", PATIENT, FakeClock()) as run,
        asyncio.timeout(60),
        lading.IngestClient(run.target, entity="acme") as client,
    ):
        uploaded = await client.upload_tree({"one": tmp_path / "one"})
        await client.download_tree(uploaded.tree.digest, tmp_path / "out")
    assert damaged == 2
    assert uploaded.transfer.bytes_sent == 3 * 1000
    assert (tmp_path / "out/one").read_bytes() == (tmp_path / "one").read_bytes()
