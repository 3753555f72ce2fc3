"""`make bench`: the project alone, over the whole public path. Each part is a module beside this one."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import content, registry, start

PARTS = ("start", "registry", "content")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--directory", type=Path, default=Path(".bench"), help="where inputs are, or are made")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each of content; the median is printed")
    parser.add_argument("--workloads", nargs="*", default=content.WORKLOADS, choices=content.WORKLOADS)
    parser.add_argument(
        "--versions", type=int, nargs="*", default=[1000, 1_000_000], help="sizes of the registry; at least 1,000"
    )
    parser.add_argument("--calls", type=int, default=500, help="calls of each kind to the registry")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long resolves are counted")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, SQLite, local directory")
    print("load average {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg()))
    figures = {part: _run(part, options) for part in PARTS if part in options.parts}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


def _run(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    print(f"\n{part}")
    if part == "start":
        rows = start.measure(rounds=10)
        start.show(rows)
        return [asdict(row) for row in rows]
    if part == "registry":
        reports = [
            registry.measure(options.directory, versions, options.calls, options.seconds, _say)
            for versions in options.versions
        ]
        registry.show(reports)
        return [asdict(report) for report in reports]
    return [asdict(row) for row in content.run(options.directory / "inputs", options.workloads, options.rounds)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
