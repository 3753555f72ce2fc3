"""The simple path: one file as a plain stream of bytes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import lading
from lading_format.digest import blake3_digest, format_digest
from tests.support.server import ServerProcess

DATA = random.Random(3).randbytes(5_000_001)


@pytest.fixture
async def client(shared_server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[lading.IngestClient]:
    """A client of an entity of the test's own."""
    entity = f"e{blake3_digest(request.node.name.encode()).hex()[:20]}"
    async with lading.IngestClient(shared_server.target, entity=entity) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of several messages."""
    file = tmp_path / "file"
    file.write_bytes(DATA)
    return file


async def _read(client: lading.IngestClient, digest: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([data async for data in client.read_file(digest, offset_bytes=offset, length_bytes=length)])


async def test_a_file_goes_up_and_comes_back(client: lading.IngestClient, path: Path) -> None:
    told: list[lading.Progress] = []
    info = await client.upload_file(path, on_progress=told.append)
    assert info == lading.FileInfo(format_digest(blake3_digest(DATA)), len(DATA), len(DATA))
    assert (told[-1].bytes_done, told[-1].files_done, told[-1].bytes_sent) == (len(DATA), 1, len(DATA))
    assert await _read(client, info.digest) == DATA


async def test_an_empty_file_goes_up_and_comes_back(client: lading.IngestClient, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    info = await client.upload_file(tmp_path / "empty")
    assert info == lading.FileInfo(format_digest(blake3_digest(b"")), 0, 0)
    assert await _read(client, info.digest) == b""


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (7, 3_000_000), (len(DATA) - 1, None), (len(DATA), None), (5, 1 << 40)]
)
async def test_a_part_of_a_file_is_that_part(
    client: lading.IngestClient, path: Path, offset: int, length: int | None
) -> None:
    info = await client.upload_file(path)
    end = None if length is None else offset + length
    assert await _read(client, info.digest, offset, length) == DATA[offset:end]


async def test_a_range_after_the_end_is_refused(client: lading.IngestClient, path: Path) -> None:
    info = await client.upload_file(path)
    with pytest.raises(lading.InvalidArgument):
        await _read(client, info.digest, len(DATA) + 1)


async def test_a_file_is_read_by_its_place(client: lading.IngestClient, path: Path) -> None:
    digest = (await client.upload_tree({"a/b": path, "c": lading.Reference("s3://bucket/key")})).tree.digest
    assert b"".join([data async for data in client.read_file(tree=digest, path="a/b")]) == DATA
    with pytest.raises(lading.NotFound):
        await anext(client.read_file(tree=digest, path="nowhere"))
    with pytest.raises(lading.FailedPrecondition) as caught:
        await anext(client.read_file(tree=digest, path="c"))
    assert caught.value.metadata["uri"] == "s3://bucket/key"


async def test_a_file_that_is_named_twice_or_not_at_all_is_refused(client: lading.IngestClient) -> None:
    with pytest.raises(lading.InvalidArgument):
        await anext(client.read_file())
    with pytest.raises(lading.InvalidArgument):
        await anext(client.read_file("b3:" + "0" * 64, tree="b3:" + "0" * 64, path="a"))


async def test_a_finished_upload_is_not_repeated(client: lading.IngestClient, path: Path) -> None:
    first = await client.upload_file(path, upload_id="mine")
    told: list[lading.Progress] = []
    again = await client.upload_file(path, upload_id="mine", on_progress=told.append)
    assert (again.digest, again.new_bytes) == (first.digest, 0)
    assert (told[-1].bytes_sent, told[-1].bytes_done) == (0, len(DATA))


async def test_an_upload_id_of_other_content_is_refused(client: lading.IngestClient, path: Path) -> None:
    await client.upload_file(path, upload_id="mine")
    path.write_bytes(b"other")
    with pytest.raises(lading.FailedPrecondition, match="other content"):
        await client.upload_file(path, upload_id="mine")
