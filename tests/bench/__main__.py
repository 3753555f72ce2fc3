"""`make bench`: the project alone, over the whole public path. Each part is a module beside this one."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import cached, checkpoints, content, crowd, curves, far, million, registry, start

Figures = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    short = [part for part in _PARTS if part not in _LONG]
    parser.add_argument(
        "--parts", nargs="*", default=short, choices=list(_PARTS), help="default: all but the long ones"
    )
    parser.add_argument("--directory", type=Path, default=Path(".bench"), help="where inputs are, or are made")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each of content; the median is printed")
    parser.add_argument("--workloads", nargs="*", default=content.WORKLOADS, choices=content.WORKLOADS)
    parser.add_argument(
        "--versions", type=int, nargs="*", default=[1000, 1_000_000], help="sizes of the registry; at least 1,000"
    )
    parser.add_argument("--calls", type=int, default=500, help="calls of each kind to the registry")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long resolves are counted")
    parser.add_argument("--artifacts", type=int, default=100, help="what each client of the crowd puts")
    parser.add_argument("--far-megabytes", type=int, default=512, help="size of the file that goes far")
    parser.add_argument("--files", type=int, default=1_000_000, help="files of the tree of a million")
    parser.add_argument("--most-files", type=int, default=100_000, help="where the curve of the count ends")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    options.directory = options.directory.absolute()
    options.directory.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, SQLite, local directory")
    # What the parts make is deleted in the end: a file system without a journal does not use the inode of a deleted
    # file for up to five minutes, and looks at each such one for every file that is made beside it.
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        options.scratch = Path(scratch)
        figures = {part: _run(part, options) for part in _PARTS if part in options.parts}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _run(part: str, options: argparse.Namespace) -> Figures:
    print("\n{}, load average {:.1f}, {:.1f}, {:.1f}".format(part, *os.getloadavg()), flush=True)
    return _PARTS[part](options)


def _start(_: argparse.Namespace) -> Figures:
    rows = start.measure(rounds=10)
    start.show(rows)
    return [asdict(row) for row in rows]


def _registry(options: argparse.Namespace) -> Figures:
    reports = [
        registry.measure(options.directory, versions, options.calls, options.seconds, _say)
        for versions in options.versions
    ]
    registry.show(reports)
    return [asdict(report) for report in reports]


def _content(options: argparse.Namespace) -> Figures:
    rows = content.run(options.directory / "inputs", options.workloads, options.rounds, options.scratch / "content")
    return [asdict(row) for row in rows]


def _checkpoints(options: argparse.Namespace) -> Figures:
    report = checkpoints.measure(options.directory)
    checkpoints.show(report)
    return [asdict(report) | {"ratio": report.ratio}]


def _cached(options: argparse.Namespace) -> Figures:
    rows = cached.run(options.directory / "inputs", options.rounds, options.scratch / "cached")
    return [asdict(row) for row in rows]


def _crowd(options: argparse.Namespace) -> Figures:
    report = crowd.measure(options.directory, options.artifacts)
    crowd.show(report)
    return [asdict(report)]


def _far(options: argparse.Namespace) -> Figures:
    rows = far.measure(options.directory, options.far_megabytes << 20)
    far.show(rows)
    return [asdict(row) for row in rows]


def _million(options: argparse.Namespace) -> Figures:
    rows = million.measure(options.directory, options.files)
    million.show(rows)
    return [asdict(row) for row in rows]


def _curves(options: argparse.Namespace) -> Figures:
    points = curves.measure(options.scratch / "curves", options.most_files)
    curves.show(points)
    return [asdict(point) for point in points]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The order in which they run.
_PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "start": _start,
    "registry": _registry,
    "content": _content,
    "cached": _cached,
    "checkpoints": _checkpoints,
    "crowd": _crowd,
    "far": _far,
    "curves": _curves,
    "million": _million,
}
# Many minutes: only when they are asked for.
_LONG = ("curves", "million")


if __name__ == "__main__":
    main()
