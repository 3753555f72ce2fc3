"""Trains a small network on PyTorch. Run by test_pytorch.py: EPOCHS, and `log` or `do-not-log`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import lading.sync

IMAGES = 4096
FEATURES = 256
CLASSES = 10


class Images(Dataset):  # type: ignore[misc]  # PyTorch is not there where types are checked
    """Files of a directory, read by the workers."""

    def __init__(self, root: Path) -> None:
        self._paths = sorted(root.rglob("*.bin"))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path = self._paths[index]
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32), int(path.parent.name)


def write_images(root: Path) -> None:
    """Make images of ten classes that a network can tell apart."""
    generator = torch.Generator().manual_seed(3)
    centers = torch.randn(CLASSES, FEATURES, generator=generator)
    for number in range(IMAGES):
        label = number % CLASSES
        image = centers[label] + 2 * torch.randn(FEATURES, generator=generator)
        path = root / str(label) / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.numpy().tobytes())


def main(epochs: int, logs: bool) -> None:
    """Train, and print how long the loop took."""
    torch.manual_seed(3)
    root = Path("images")
    write_images(root)
    with contextlib.ExitStack() as stack:
        run = None
        if logs:
            run = stack.enter_context(lading.sync.init(job_type="train", config={"epochs": epochs}))
            run.log_artifact(root, "digits", "dataset").result()
            root = run.use_artifact("digits:latest", type="dataset").download()
        model = nn.Sequential(
            nn.Linear(FEATURES, 2048), nn.ReLU(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 10)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        loader = DataLoader(Images(root), batch_size=32, shuffle=True, num_workers=2)
        accuracies: list[float] = []
        steps = 0
        begin, cpu_begin = time.perf_counter(), time.process_time()
        for epoch in range(epochs):
            right = 0
            for images, labels in loader:
                optimizer.zero_grad()
                scores = model(images)
                loss = nn.functional.cross_entropy(scores, labels)
                loss.backward()
                optimizer.step()
                right += int((scores.argmax(1) == labels).sum())
                steps += 1
                if run is not None:
                    run.log({"loss": loss})
            accuracies.append(right / IMAGES)
            torch.save(model.state_dict(), f"{epoch}.pt")
            if run is not None:
                metadata = {"epoch": epoch, "accuracy": accuracies[-1]}
                checkpoint = lading.sync.Artifact("mlp", type="model", metadata=metadata)
                checkpoint.add_file(f"{epoch}.pt", "model.pt")
                run.log_artifact(checkpoint, aliases=["best"] if accuracies[-1] == max(accuracies) else [])
        result = {
            "loop_seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - cpu_begin,
            "steps": steps,
            "accuracies": accuracies,
        }
        if run is not None:
            result["run_id"] = run.id
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "log")
