"""The table of the project and its peers, with ratios, and what each ratio should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Seconds by "contender workload direction".
Figures = Mapping[str, float]


# These machines are noisy: two runs of one tree differed by up to a quarter.
TOLERANCE = 0.35


class Bar(NamedTuple):
    """How many times as fast as a peer the project has to be."""

    workload: str
    direction: str
    peer: str
    at_least: float


BARS = (
    Bar("big", "up", "mlflow", 3.0),
    Bar("big", "up", "cp", 1 / 1.3),
    Bar("big", "down", "mlflow", 2.5),
    Bar("big", "down", "nginx", 1.0),
    Bar("images", "up", "mlflow", 7.0),
    Bar("images", "up", "nginx", 0.8),
    Bar("images", "down", "mlflow", 8.0),
    Bar("tiny", "up", "mlflow", 25.0),
    Bar("tiny", "up", "nginx", 2.0),
    Bar("tiny", "down", "mlflow", 40.0),
    Bar("tiny", "down", "nginx", 1.5),
)


def ratio(figures: Figures, bar: Bar) -> float | None:
    """Return how many times as fast as the peer the project was; None where one of them was not measured."""
    ours = figures.get(f"lading {bar.workload} {bar.direction}")
    theirs = figures.get(f"{bar.peer} {bar.workload} {bar.direction}")
    return None if ours is None or theirs is None else theirs / ours


def regressions(before: Figures, now: Figures) -> list[str]:
    """Return a line for each ratio that became worse by more than the tolerance. Times are never compared."""
    lines = []
    for bar in BARS:
        was, is_ = ratio(before, bar), ratio(now, bar)
        if was is not None and is_ is not None and is_ < was * (1 - TOLERANCE):
            lines.append(
                f"{bar.workload} {bar.direction}: {is_:.2f} times as fast as {bar.peer}, and {was:.2f} times before"
            )
    return lines


def show(figures: Figures, contenders: Sequence[str]) -> None:
    """Print the times in Markdown, then each bar with what was reached."""
    rows = sorted({tuple(name.split()[1:]) for name in figures if len(name.split()) == 3 and "registry" not in name})
    print("\n| seconds | " + " | ".join(contenders) + " |\n|---|" + "---|" * len(contenders))
    for workload, direction in rows:
        cells = [figures.get(f"{name} {workload} {direction}") for name in contenders]
        print(f"| {workload} {direction} | " + " | ".join("–" if c is None else f"{c:.2f}" for c in cells) + " |")
    for operation in ("create", "move", "resolve"):
        seconds = figures.get(f"mlflow registry {operation}")
        if seconds is not None:
            print(f"MLflow, {operation}: {seconds * 1000:.1f} ms")
    print("\n| | times as fast as | bar | reached |\n|---|---|---|---|")
    for bar in BARS:
        reached = ratio(figures, bar)
        if reached is not None:
            verdict = "yes" if reached >= bar.at_least else "no"
            print(f"| {bar.workload} {bar.direction} | {bar.peer} | {bar.at_least:.2f} | {reached:.2f}, {verdict} |")
