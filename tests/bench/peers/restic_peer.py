"""restic with a repository on the same disk, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.peers.talk import serve


def main() -> None:
    work = Path(sys.argv[1])
    environment = os.environ | {
        "RESTIC_PASSWORD": "bench",
        "RESTIC_REPOSITORY": str(work / "repository"),
        "RESTIC_CACHE_DIR": str(work / "cache"),
    }

    def restic(*arguments: str, directory: str | None = None) -> None:
        subprocess.run(["restic", *arguments], check=True, env=environment, cwd=directory, stdout=subprocess.DEVNULL)

    def up(directory: str) -> str:
        restic("backup", "-q", ".", directory=directory)
        return directory

    def down(stored: str, out: str) -> None:
        restic("restore", "-q", "latest", "--path", stored, "--target", out)

    restic("init", "-q")
    serve(up, down)


if __name__ == "__main__":
    main()
