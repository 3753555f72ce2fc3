"""Checkpoints: what ten epochs of a model cost to keep whose backbone, 90 % of the bytes, is frozen.

Real .safetensors files: eight bytes of length, a JSON header, the tensors one after the other. The header tells the
epoch in a number that gets longer, so that everything after it moves, as it does in real ones.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.sides import client_of, keyed_server, spent
from tests.bench.workloads import SEED

_EPOCHS = 10
_LAYERS = 24
# Of each layer: what stays, and what is trained (an adapter). Sizes that no border of chunks agrees with.
_FROZEN_BYTES = 9_437_184
_TRAINED_BYTES = 1_048_640


@dataclass
class Report:
    """What was measured."""

    epochs: int
    checkpoint_megabytes: float
    stored_megabytes: float
    first_seconds: float
    later_seconds: float
    later_client_seconds: float
    later_server_seconds: float

    @property
    def ratio(self) -> float:
        """Bytes at the server over the bytes of one checkpoint."""
        return self.stored_megabytes / self.checkpoint_megabytes


def measure(directory: Path) -> Report:
    """Put a checkpoint after each epoch, as versions of one collection."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        return asyncio.run(_measure(Path(scratch)))


def show(report: Report) -> None:
    """Print what was measured."""
    print(
        f"{report.epochs} epochs of {report.checkpoint_megabytes:.0f} MB: {report.stored_megabytes:.0f} MB stored, "
        f"{report.ratio:.2f} x one checkpoint"
    )
    print(
        f"the first {report.first_seconds:.2f} s, a later one {report.later_seconds:.2f} s "
        f"(processor: client {report.later_client_seconds:.2f} s, server {report.later_server_seconds:.2f} s)"
    )


async def _measure(scratch: Path) -> Report:
    path = scratch / "model.safetensors"
    with keyed_server(scratch / "checkpoints/data") as server:
        async with client_of(server) as client:
            taken = []
            for epoch in range(_EPOCHS):
                write_checkpoint(path, epoch)
                with spent(server) as one:
                    await client.put(path, "checkpoints", type="model")
                taken.append(one)
            stored_bytes = (await client.usage()).used_bytes
    first, later = taken[0], taken[1:]
    return Report(
        epochs=_EPOCHS,
        checkpoint_megabytes=path.stat().st_size / 1e6,
        stored_megabytes=stored_bytes / 1e6,
        first_seconds=first.seconds,
        later_seconds=sum(one.seconds for one in later) / len(later),
        later_client_seconds=sum(one.client_seconds for one in later) / len(later),
        later_server_seconds=sum(one.server_seconds for one in later) / len(later),
    )


def write_checkpoint(path: Path, epoch: int) -> None:
    """Write the model as it is after an epoch: the same frozen tensors, other trained ones."""
    names = [(f"layers.{layer}.{part}", part) for layer in range(_LAYERS) for part in ("adapter", "weight")]
    header: dict[str, object] = {"__metadata__": {"format": "pt", "step": str(10 ** (epoch + 1))}}
    at = 0
    for name, part in names:
        size_bytes = _TRAINED_BYTES if part == "adapter" else _FROZEN_BYTES
        header[name] = {"dtype": "F16", "shape": [size_bytes // 2], "data_offsets": [at, at + size_bytes]}
        at += size_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    frozen, trained = random.Random(SEED), random.Random(SEED + 1 + epoch)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, part in names:
            file.write(trained.randbytes(_TRAINED_BYTES) if part == "adapter" else frozen.randbytes(_FROZEN_BYTES))
