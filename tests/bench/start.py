"""Start-up: seconds until the command line has answered, and until the SDK is imported."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_COMMANDS = {
    "lading --version": [str(Path(sys.executable).with_name("lading")), "--version"],
    "lading --help": [str(Path(sys.executable).with_name("lading")), "--help"],
    "import lading": [sys.executable, "-c", "import lading"],
    "import a name": [sys.executable, "-c", "from lading import Client"],
    "python itself": [sys.executable, "-c", "pass"],
}


@dataclass
class Row:
    """One line of the table: medians. Processor time is of one core, and what a quiet machine would wait for."""

    command: str
    seconds: float
    processor_seconds: float


def measure(rounds: int) -> list[Row]:
    """Run each command so many times, after once to warm the disk's cache."""
    return [_measure(name, command, rounds) for name, command in _COMMANDS.items()]


def show(rows: list[Row]) -> None:
    """Print what was measured."""
    print(f"{'':16} {'seconds':>8} {'processor':>10}")
    for row in rows:
        print(f"{row.command:16} {row.seconds:8.2f} {row.processor_seconds:8.2f} s")


def _measure(name: str, command: list[str], rounds: int) -> Row:
    taken = [_run(command) for _ in range(1 + rounds)][1:]
    seconds, processor_seconds = zip(*taken, strict=True)
    return Row(name, statistics.median(seconds), statistics.median(processor_seconds))


def _environment() -> dict[str, str]:
    """As where it is installed: with modules that are compiled once."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _run(command: list[str]) -> tuple[float, float]:
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=_environment())
    after = os.times()
    processor_seconds = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - began, processor_seconds
