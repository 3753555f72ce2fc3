"""`make bench-plots`: draws docs/benchmark-curves.svg from the figures that `make bench` wrote.

Runs in an environment of its own, which has matplotlib and nothing of the project.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path, help="what `--json` of make bench wrote, with the part `curves`")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    draw(json.loads(options.figures.read_text())["curves"], options.picture)


def draw(points: list[dict[str, Any]], picture: Path) -> None:
    """Write the picture of both curves. Of the same figures it is the same, to the byte."""
    mpl.rcParams.update({"svg.hashsalt": "lading", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    sizes = [point for point in points if point["kind"] == "size"]
    counts = [point for point in points if point["kind"] == "count"]
    for axes, chosen, x, title in (
        (left, sizes, "size_bytes", "throughput of one file, MB/s"),
        (right, counts, "files", "cost of a file of 10 KB, ms"),
    ):
        for direction, label in (("up", "put"), ("down", "download")):
            seconds = [point[f"{direction}_seconds"] for point in chosen]
            if axes is left:
                y = [point["size_bytes"] / 1e6 / taken for point, taken in zip(chosen, seconds, strict=True)]
            else:
                y = [taken / point["files"] * 1000 for point, taken in zip(chosen, seconds, strict=True)]
            axes.plot([point[x] for point in chosen], y, marker="o", markersize=3, label=label)
        axes.set(xscale="log", yscale="log", title=title)
        axes.grid(visible=True, which="major", linewidth=0.3)
        axes.legend(frameon=False)
    left.set_xlabel("bytes")
    right.set_xlabel("files in the directory")
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
