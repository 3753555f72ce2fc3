"""The inputs of the benchmark, made once: random files of the shapes that machine-learning teams have.

big     one file of 1 GiB (a checkpoint)
big2    the same with one contiguous tenth rewritten and 64 bytes inserted near its start (a fine-tune)
images  1,000 files of 312 KB
tiny    10,000 files of 10 KB
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

SEED = 7
BIG_BYTES = 1 << 30


def make_workloads(root: Path) -> None:
    """Write the inputs below `root`, unless they are there."""
    done = root / "done"
    if done.exists():
        return
    rng = random.Random(SEED)
    _write(root / "big/model.bin", _random(rng, BIG_BYTES))
    data = bytearray((root / "big/model.bin").read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 10] = rng.randbytes(len(data) // 10)
    data[1000:1000] = rng.randbytes(64)
    _write(root / "big2/model.bin", [bytes(data)])
    for index in range(1000):
        _write(root / f"images/class{index % 10}/{index:05}.jpg", _random(rng, 312_000))
    for index in range(10_000):
        _write(root / f"tiny/d{index % 100:02}/{index:05}.bin", _random(rng, 10_000))
    done.touch()


def size_of(directory: Path) -> int:
    """The sum of the sizes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _random(rng: random.Random, size_bytes: int) -> Iterator[bytes]:
    while size_bytes > 0:
        step = min(size_bytes, 4 << 20)
        yield rng.randbytes(step)
        size_bytes -= step


def _write(path: Path, parts: Iterator[bytes] | list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
