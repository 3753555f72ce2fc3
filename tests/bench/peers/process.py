"""A contender: a child process that stores and fetches directories when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench.peers.environments import Program

_END_SECONDS = 60.0


class Contender:
    """One contender over a directory of its own. A context manager."""

    def __init__(self, program: Program, work: Path) -> None:
        self.name = program.name
        work.mkdir(parents=True)
        self._log = work.with_suffix(".log")
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [*program.command, str(work)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                # Where somebody's own server is, and with which key, is nothing of a contender's.
                env={name: value for name, value in os.environ.items() if not name.startswith("LADING_")},
            )  # fmt: skip
        self._answer()

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Have something done; return what the contender says of it, `seconds` among it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": operation, **fields}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended:\n{self._log.read_text(errors='replace')[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer
