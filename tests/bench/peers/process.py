"""A contender: a child process that stores and fetches directories when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench.peers.environments import Program

# Room for warm pages: see `settle`.
_WARM_BYTES = 3 << 30
_BLOCK = bytes(4 << 20)
# ext4 gives an inode again only when it was deleted five seconds ago, and until then looks at each such one for every
# file that it makes: 10,000 files took 5 s instead of 0.8 s right after 10,000 others were deleted.
_RECENTLY_DELETED_SECONDS = 6.0
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


def settle(directory: Path) -> None:
    """Let nothing that was done before be paid for by what is measured next.

    Everything dirty is written, what was deleted is forgotten by the file system, and the memory that the next files
    go through is the machine's: a virtual machine that gave pages back to its host waits for each when it takes it
    again (the first 1 GiB into the page cache took 2.2 s here, and 0.24 s afterwards).
    """
    os.sync()
    time.sleep(_RECENTLY_DELETED_SECONDS)
    path = directory / "warm"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for offset in range(0, _WARM_BYTES, len(_BLOCK)):
            os.pwrite(descriptor, _BLOCK, offset)
    finally:
        os.close(descriptor)
        path.unlink()
