"""The data set: the 1,797 handwritten digits that scikit-learn ships, as PNG files in a directory a class."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

INDEX = "index.csv"
TRAIN, HELD_OUT = "train", "held-out"

# Every fifth image is never shown to the training.
_HELD_OUT_EVERY = 5
# What scikit-learn's pixels go up to.
_LIGHTEST = 16


class Images(NamedTuple):
    """Some images: pixels from 0 to 1, a row of 64 for each, and what they show."""

    pixels: NDArray[np.float64]
    labels: NDArray[np.int64]


def write_digits(root: Path) -> int:
    """Write every image below `root`, with an index.csv that says what each shows; return how many there are."""
    digits: Any = load_digits()
    root.mkdir(parents=True)
    with (root / INDEX).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            path = root / str(label) / f"{number:04}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray((pixels * 255 / _LIGHTEST).astype("uint8")).save(path)
            split = HELD_OUT if number % _HELD_OUT_EVERY == 0 else TRAIN
            rows.writerow([path.relative_to(root).as_posix(), label, split])
    return len(digits.target)


def read_images(root: Path, split: str) -> Images:
    """Read the images of one split, in the order of index.csv."""
    rows = list(_rows(root, split))
    pixels = [np.asarray(Image.open(root / path), dtype=np.float64).ravel() / 255 for path, _ in rows]
    return Images(np.stack(pixels), np.array([label for _, label in rows]))


def _rows(root: Path, split: str) -> Iterator[tuple[str, int]]:
    with (root / INDEX).open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                yield row["path"], int(row["label"])
