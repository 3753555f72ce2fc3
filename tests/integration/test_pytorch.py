"""A PyTorch training loop with DataLoader workers, which fork, and checkpoints that are logged in the background.

Optional: PyTorch is not among the packages that the tests install.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import lading.sync
from lading_format.digest import blake3_digest
from tests.support.server import ServerProcess

EPOCHS = 3
SCRIPT = Path(__file__).parent / "pytorch_training.py"

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("numpy") is None,
    reason="training with DataLoader workers is not tried: PyTorch is missing; pip install torch==2.13.0 numpy",
)


def train(target: str, entity: str, work: Path, *, logs: bool) -> dict[str, Any]:
    """Run the training in a process of its own, and return what it printed. One that hangs is a failure."""
    work.mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(EPOCHS), "log" if logs else "do-not-log"],
        cwd=work,
        env={**os.environ, "LADING_URL": target, "LADING_ENTITY": entity, "LADING_PROJECT": "digits"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@needs_torch
def test_a_training_with_workers_logs_every_checkpoint(
    shared_server: ServerProcess, tmp_path: Path, record_property: Any
) -> None:
    entity = f"e{blake3_digest(str(tmp_path).encode()).hex()[:20]}"
    plain = train(shared_server.target, entity, tmp_path / "plain", logs=False)
    logged = train(shared_server.target, entity, tmp_path / "logged", logs=True)
    # For people to look at: no assertion, for other work on the machine is in it.
    for what in ("loop_seconds", "cpu_seconds"):
        record_property(what, (plain[what], logged[what]))
        sys.stdout.write(f"\n{what}: {plain[what]:.2f}, and {logged[what]:.2f} with logging")
    with lading.sync.Client(shared_server.target, entity=entity, project="digits") as client:
        run = client.run(logged["run_id"])
        assert run.state is lading.RunState.FINISHED
        assert [version.name for version in run.inputs] == ["digits:v0"]
        assert [version.number for version in run.outputs if version.collection == "mlp"] == list(range(EPOCHS))
        assert len(client.metrics(run.run_id, "loss", max_points=10_000)) == logged["steps"]
        best = client.version("mlp:best")
        assert best.metadata["accuracy"] == max(logged["accuracies"])
        import torch  # noqa: PLC0415 - optional, and slow to load

        with best.open("model.pt") as file:
            weights = torch.load(file, weights_only=True)
        expected = torch.load(io.BytesIO((tmp_path / f"logged/{best.metadata['epoch']}.pt").read_bytes()))
        assert all(torch.equal(weights[key], expected[key]) for key in expected)
