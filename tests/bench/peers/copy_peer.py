"""`cp -r` and `sync -f`: what the disk can do. The last argument is a directory for all that it writes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from tests.bench.peers.talk import serve


def main() -> None:
    work, numbers = Path(sys.argv[1]), itertools.count()

    def up(directory: str) -> str:
        target = str(work / str(next(numbers)))
        subprocess.run(["cp", "-r", directory, target], check=True)
        subprocess.run(["sync", "-f", target], check=True)
        return target

    def down(stored: str, out: str) -> None:
        subprocess.run(["cp", "-r", f"{stored}/.", out], check=True)

    serve(up, down)


if __name__ == "__main__":
    main()
