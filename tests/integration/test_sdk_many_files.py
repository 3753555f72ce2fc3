"""Uploads of many files: what is kept of each is little, and only few are on their way at once."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import lading
from lading._upload import files as upload_files
from lading._upload import read as upload_read
from lading._upload.blocks import Block
from lading._upload.content import Chunk, UploadingFile
from tests.support.server import running_server

FILES = 3_000
AT_ONCE = 400


async def test_files_are_not_read_long_before_those_before_them_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = most = done = 0
    read_batch: Callable[[Sequence[UploadingFile], Block], list[Chunk]] = upload_read.read_batch
    count_done = upload_files.BlobUpload._count_done

    def reading(files: Sequence[UploadingFile], block: Block) -> list[Chunk]:
        nonlocal begun, most
        begun += len(files)
        most = max(most, begun - done)
        return read_batch(files, block)

    def counting(upload: upload_files.BlobUpload, file: UploadingFile) -> None:
        nonlocal done
        count_done(upload, file)
        done += 1

    monkeypatch.setattr(upload_files, "read_batch", reading)
    monkeypatch.setattr(upload_files.BlobUpload, "_count_done", counting)
    monkeypatch.setattr(upload_files, "_FILES_AT_ONCE", AT_ONCE)
    monkeypatch.setattr(upload_files, "_FILES_PER_BATCH", 100)
    for index in range(FILES):
        (tmp_path / "in" / str(index % 30)).mkdir(parents=True, exist_ok=True)
        # A third of them is there twice.
        (tmp_path / "in" / str(index % 30) / f"{index:04}").write_text(str(index % 2_000))
    with running_server(tmp_path / "data") as server:
        async with lading.IngestClient(server.target, entity="many") as client:
            result = await client.upload_tree(tmp_path / "in")
            await client.download_tree(result.tree.digest, tmp_path / "out")
    assert (begun, done) == (FILES, FILES)
    assert 0 < most <= AT_ONCE
    for path in (tmp_path / "in").rglob("*/*"):
        assert (tmp_path / "out" / path.relative_to(tmp_path / "in")).read_text() == path.read_text()


async def test_an_upload_leaves_none_of_its_memory_behind_with_the_cyclic_collector_off(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").write_bytes(random.Random(1).randbytes(20 << 20))
    (tmp_path / "in" / "small").write_bytes(b"small")
    with running_server(tmp_path / "data") as server:
        async with lading.IngestClient(server.target, entity="many") as client:
            gc.disable()
            try:
                # Uploads of other tests may have failed, and their tracebacks hold what they had.
                others = blocks()
                await client.upload_tree(tmp_path / "in")
                left = [block for block in blocks() if not any(block is other for other in others)]
            finally:
                gc.enable()
    assert left == []


def blocks() -> list[Block]:
    """Return every block of this process that is still there."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Block)]


async def test_a_server_that_takes_only_smaller_chunks_is_told_from_one_that_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"file")
    with running_server(tmp_path / "data", "--max-chunk-bytes", "65536") as server:
        async with lading.IngestClient(server.target, entity="many") as client:
            with pytest.raises(lading.Incompatible, match="max_chunk_bytes"):
                await client.upload_tree(tmp_path / "in")
