"""Whoever has sent everything says so, and the server does not wait for more to come."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import lading
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


@pytest.mark.parametrize("name", UPLOADS)
async def test_an_upload_ends_though_the_server_would_wait_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A stream without work is not closed either.
    monkeypatch.setattr("lading._upload.lanes._IDLE_SECONDS", 3600)
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
