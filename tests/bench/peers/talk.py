"""One contender's end of the talk: a line of JSON in, a line of JSON out.

Only Python's own library is imported: it runs in each peer's environment.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_START_SECONDS = 180.0

Upload = Callable[[str], Any]
Download = Callable[[Any, str], None]


def serve(up: Upload, down: Download | None, other: dict[str, Callable[..., Any]] | None = None) -> None:
    """Do what is asked until the input ends.

    Args:
        up: Stores a directory, and returns what brings it back.
        down: Brings it back into an empty directory. None where a peer cannot.
        other: What else this contender can do, by name; it returns what the answer has besides the seconds.
    """
    handles: dict[str, Any] = {}
    reply({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        operation, began = asked["do"], time.perf_counter()
        extra: dict[str, Any] = {}
        if operation == "up":
            handles[asked["directory"]] = up(asked["directory"])
        elif operation == "down" and down is not None:
            down(handles[asked["directory"]], asked["out"])
        else:
            extra = (other or {})[operation](**asked.get("with", {})) or {}
        reply({"seconds": time.perf_counter() - began} | extra)


def reply(message: dict[str, Any]) -> None:
    """Send one line."""
    sys.__stdout__.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def free_port() -> int:
    """Return a port that nobody has at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start_server(command: Sequence[str], port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a peer's server, and return when it takes connections."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    process.kill()
    sys.exit(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def files_of(directory: str) -> list[str]:
    """Return the relative paths of all files below a directory, sorted."""
    root = Path(directory)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
