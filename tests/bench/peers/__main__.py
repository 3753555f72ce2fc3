"""`make bench-peers`: the project and its peers in turn, and one table with the ratios."""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.bench.memory import UsedMemory, used_memory
from tests.bench.peers.environments import PEERS, PeerMissing, Program, prepared, project
from tests.bench.peers.process import Contender
from tests.bench.peers.table import TOLERANCE, Figures, regressions, show
from tests.bench.workloads import make_workloads

_WORKLOADS = ("big", "images", "tiny")
# MLflow takes minutes for these; one round says enough.
_SLOW = {("mlflow", "tiny"): 1, ("dvc", "tiny"): 1}
_REGISTRY_CALLS = 200
# Deleted after each turn, as it is large. What has many files stays to the end: ext4 without a journal does not use the
# inode of a deleted file for one minute to five, and looks at each such one for every file that it makes beside it.
# 10,000 files took 6 s instead of 0.3 where as many were deleted before.
_LARGE = ("big",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".bench"), help="where inputs and environments are made")
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--workloads", nargs="*", default=_WORKLOADS, choices=_WORKLOADS)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each; medians are shown")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--check", type=Path, help="fail where a ratio is worse than that of the figures in this file")
    options = parser.parse_args()
    if options.check and not options.check.exists():
        sys.exit(f"{options.check} is not there: make it with `make bench-peers BENCH='--json {options.check}'`")
    inputs = options.directory.absolute() / "inputs"
    make_workloads(inputs)
    programs = [project()]
    for name in options.peers:
        try:
            programs.append(prepared(name, options.directory.absolute() / "peers"))
        except PeerMissing as missing:
            print(missing, file=sys.stderr)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    print("load average {:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg()))
    for program in programs:
        print(f"{program.name}: {program.version}")
    with tempfile.TemporaryDirectory(dir=options.directory.absolute()) as name, used_memory(Path(name)) as memory:
        figures = _measured(programs, inputs, options.workloads, options.rounds, Path(name), memory)
    show(figures, [program.name for program in programs])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    if options.check:
        worse = regressions(json.loads(options.check.read_text()), figures)
        print("\n".join(worse) or f"no ratio is worse than in {options.check} by more than {TOLERANCE:.0%}")
        sys.exit(1 if worse else 0)


def _measured(
    programs: Sequence[Program],
    inputs: Path,
    workloads: Sequence[str],
    rounds: int,
    scratch: Path,
    memory: UsedMemory,
) -> Figures:
    seconds: dict[str, list[float]] = defaultdict(list)
    for workload in workloads:
        for number in range(rounds):
            for program in programs:
                if number < _SLOW.get((program.name, workload), rounds):
                    _take_turn(program, inputs / workload, number, scratch, memory, seconds)
    figures = {name: statistics.median(values) for name, values in seconds.items()}
    if any(program.name == "mlflow" for program in programs):
        (mlflow,) = [program for program in programs if program.name == "mlflow"]
        with Contender(mlflow, scratch / "registry") as contender:
            answer = contender.ask("registry", **{"with": {"calls": _REGISTRY_CALLS}})
            for operation in ("create", "move", "resolve"):
                figures[f"mlflow registry {operation}"] = answer[operation][0] / 1000
    return figures


def _take_turn(
    program: Program, source: Path, number: int, scratch: Path, memory: UsedMemory, seconds: dict[str, list[float]]
) -> None:
    """One contender, one workload, one round: up and down."""
    label = f"{program.name} {source.name}"
    turn = scratch / f"{program.name}-{source.name}-{number}"
    turn.mkdir()
    work, out = turn / "work", turn / "out"
    with Contender(program, work) as contender:
        _warm(contender, program, turn)
        memory.settle(source)
        if program.name == "dvc":
            seconds[f"{label} up"].append(contender.ask("add", **{"with": {"directory": str(source)}})["seconds"])
        else:
            seconds[f"{label} up"].append(contender.ask("up", directory=str(source))["seconds"])
            out.mkdir()
            memory.settle(source)
            seconds[f"{label} down"].append(contender.ask("down", directory=str(source), out=str(out))["seconds"])
            if number == 0:
                _compare(source, out, program.name)
    print(f"{label}, round {number + 1}: {[round(v[-1], 2) for k, v in seconds.items() if k.startswith(label)]} s",
          file=sys.stderr, flush=True)  # fmt: skip
    if source.name in _LARGE:
        shutil.rmtree(turn)


def _warm(contender: Contender, program: Program, turn: Path) -> None:
    """Have one small file stored and fetched: what is measured is a process that has done so before."""
    source, out = turn / "first", turn / "first-out"
    source.mkdir()
    (source / "file").write_bytes(b"first")
    if program.name == "dvc":
        contender.ask("add", **{"with": {"directory": str(source)}})
    else:
        contender.ask("up", directory=str(source))
        out.mkdir()
        contender.ask("down", directory=str(source), out=str(out))


def _compare(source: Path, out: Path, name: str) -> None:
    """End unless what came back is what was stored."""
    for path in source.rglob("*"):
        if path.is_file() and not filecmp.cmp(path, out / path.relative_to(source), shallow=False):
            sys.exit(f"{name}: {path.relative_to(source)} came back different")


if __name__ == "__main__":
    main()
