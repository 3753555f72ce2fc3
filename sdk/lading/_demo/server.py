"""A server of the demo's own, for where no LADING_URL is set. Started as a user would, and ended with SIGTERM."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_READY = " is ready at "
_END_SECONDS = 30.0


class Address(NamedTuple):
    """Where a server is, and a key for it. None: as the environment and the credentials file say."""

    url: str | None = None
    api_key: str | None = None


@contextlib.contextmanager
def own_server(data: Path) -> Iterator[Address]:
    """Serve ingest and registry over an empty directory for the length of the block, on a free port of loopback."""
    log = data.with_suffix(".log")
    data.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lading_server", "--data", str(data), "--listen", "127.0.0.1:0"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,  # noqa: S603
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            if _READY not in line:
                sys.exit(f"the server did not start:\n{log.read_text()}")
            yield Address(line.partition(_READY)[2].split()[0], (data / "admin.key").read_text().strip())
        finally:
            process.terminate()
            process.wait(_END_SECONDS)
