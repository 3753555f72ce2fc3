"""A real server in a process of its own, on a free port of the loopback interface."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_READY = re.compile(r"is ready at (?:grpcs://)?(\S+)")
# A healthy server ends well within this; one that does not is a failure of the test.
_END_SECONDS = 60.0


class ServerProcess:
    """`python -m lading_server` over a data directory. Its log goes to a file, which a failure shows."""

    def __init__(self, data: Path, *flags: str, auth: str = "none") -> None:
        """`auth` is `keys` or `none`: most tests are about what comes after."""
        self.data = data
        data.parent.mkdir(parents=True, exist_ok=True)
        # Where it leaves word of itself: not among the real servers of whoever runs the tests.
        self.runtime = data.parent / "runtime"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        environment = os.environ | {"XDG_RUNTIME_DIR": str(self.runtime), "LADING_AUTH": auth}
        self._log = data.with_suffix(".log")
        command = [sys.executable, "-m", "lading_server", "--data", str(data), "--listen", "127.0.0.1:0", *flags]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.ready_line = self.process.stdout.readline()
        ready = _READY.search(line)
        if ready is None:
            self.process.wait(_END_SECONDS)
            self.close()
            raise AssertionError(f"the server did not start: {line!r}\n{self.log_text()}")
        self.target = ready.group(1)

    @property
    def api_key(self) -> str:
        """The key that the first start made. Only with keys."""
        return (self.data / "admin.key").read_text().strip()

    @property
    def pid(self) -> int:
        return self.process.pid

    def log_text(self) -> str:
        """What servers over this directory logged so far."""
        return self._log.read_text(errors="replace")

    def terminate(self) -> int:
        """SIGTERM, and wait for the end. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_END_SECONDS)

    def kill(self) -> None:
        """SIGKILL, as a power cut would be seen by the process."""
        self.process.kill()
        self.process.wait(_END_SECONDS)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextmanager
def running_server(data: Path, *flags: str, auth: str = "none") -> Iterator[ServerProcess]:
    """A server for the length of the block."""
    server = ServerProcess(data, *flags, auth=auth)
    try:
        yield server
    finally:
        server.close()


def resident_bytes(pid: int) -> Sequence[int]:
    """Resident memory of a process now and at its peak, from /proc; both without the mapped files of now."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            fields[name] = int(value.split()[0]) * 1024
    return fields["RssAnon"], fields["VmHWM"] - fields["RssFile"]
