"""A file larger than the memory that either side may use for it: back the same, within that memory."""

from __future__ import annotations

import filecmp
import os
import random
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, resident_bytes
from tests.support.transfer import transfer_process

FILE_BYTES = 2 << 30
STRETCH_BYTES = 8 << 20
STRETCHES = 50
# Of each side, with what it maps: the promise leaves the page cache of mapped files aside, and is kept with it.
MOST_RESIDENT_BYTES = 300_000_000


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """A directory with one file of 2 GiB: 400 MiB that no other part of it resembles, and holes between them."""
    rng = random.Random(21)
    root = tmp_path / "in"
    root.mkdir()
    with (root / "sparse.bin").open("wb") as file:
        for number in range(STRETCHES):
            file.seek(number * (FILE_BYTES // STRETCHES))
            file.write(rng.randbytes(STRETCH_BYTES))
        file.truncate(FILE_BYTES)
    assert (root / "sparse.bin").stat().st_blocks * 512 < FILE_BYTES // 2
    return root


@pytest.mark.slow
def test_a_sparse_file_of_two_gibibytes_goes_up_and_comes_back_in_bounded_memory(
    server: ServerProcess, sparse: Path, tmp_path: Path
) -> None:
    uploaded = transfer_process("up", server.target, str(sparse))
    # The holes are one chunk, however many there are.
    content_bytes = STRETCHES * STRETCH_BYTES
    assert content_bytes <= uploaded["sent_bytes"] < content_bytes + STRETCHES * (4 << 20)
    stored_bytes = sum(path.stat().st_blocks * 512 for path in server.data.rglob("*") if path.is_file())
    assert stored_bytes < FILE_BYTES // 2

    downloaded = transfer_process("down", server.target, uploaded["digest"], str(tmp_path / "out"))
    assert filecmp.cmp(sparse / "sparse.bin", tmp_path / "out/sparse.bin", shallow=False)
    # pytest keeps the directories of a few runs.
    os.unlink(tmp_path / "out/sparse.bin")

    _, server_peak_bytes = resident_bytes(server.pid)
    peaks = {"up": uploaded["peak_bytes"], "down": downloaded["peak_bytes"], "server": server_peak_bytes}
    assert max(peaks.values()) < MOST_RESIDENT_BYTES, peaks
