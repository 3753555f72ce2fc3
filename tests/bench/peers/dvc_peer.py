"""DVC with a remote on the same disk, `add` and `push`; the copy into its work tree is not counted."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.peers.talk import serve


def main() -> None:
    work, numbers = Path(sys.argv[1]) / "tree", itertools.count()
    work.mkdir()

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=work, stdout=subprocess.DEVNULL)

    def add_and_push(directory: str) -> dict[str, float]:
        name = f"d{next(numbers)}"
        shutil.copytree(directory, work / name)
        subprocess.run(["sync"], check=True)
        began = time.perf_counter()
        run(sys.executable, "-m", "dvc", "add", "-q", name)
        run(sys.executable, "-m", "dvc", "push", "-q", f"{name}.dvc")
        return {"seconds": time.perf_counter() - began}

    run("git", "init", "-q", ".")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run(sys.executable, "-m", "dvc", "remote", "add", "-d", "r", str(work.parent / "remote"))
    serve(lambda directory: directory, None, {"add": add_and_push})


if __name__ == "__main__":
    main()
