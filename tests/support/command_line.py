"""The command `lading` in a process of its own, as a user with nothing configured would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LADING = (sys.executable, "-c", "from lading._cli.main import main; main()")
_SECONDS = 120.0


class CommandLine:
    """Runs `lading` with a home, and settings, of its own.

    Args:
        home: The user's home directory, where credentials and caches go.
        settings: Environment variables on top of the rest: `LADING_URL`, `XDG_RUNTIME_DIR`.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LADING_", "XDG_"))}
        self.environment: Mapping[str, str] = {**inherited, "HOME": str(home), **settings}

    def run(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, however that is."""
        return subprocess.run(
            [*LADING, *arguments],
            env=self.environment,
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command whose output is read while it runs."""
        return subprocess.Popen(
            [*LADING, *arguments], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> str:
        """Run a command that has to end well; return what it printed."""
        done = self.run(*arguments, stdin=stdin, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        """Return the one document that a command prints."""
        (document,) = self.json_lines(*arguments)
        return document

    def json_lines(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the documents that a listing prints."""
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]

    def refused(self, *arguments: str, stdin: str = "") -> tuple[int, str]:
        """Run a command that has to fail; return its exit code and the one line that it says."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.returncode, done.stderr.rstrip("\n")
