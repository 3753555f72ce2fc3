"""`python -m tests.soak` runs the long soak; `--help` says what can be set."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import Plan, soak

DEFAULT_OPERATIONS = 100_000


def main(arguments: list[str]) -> int:
    """Run it, print the figures, and write them where it is told. A failure is an exception."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--operations", type=int, default=DEFAULT_OPERATIONS, help="operations of all clients together")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("LADING_TEST_SEED", "0")))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(arguments)
    began = time.monotonic()

    def tell(text: str) -> None:
        load = os.getloadavg()[0]
        print(f"{time.monotonic() - began:7.0f} s  load {load:4.1f}  {text}", flush=True)

    seed = options.seed or random.SystemRandom().randrange(1, 1 << 32)
    directory = Path(tempfile.mkdtemp(prefix="lading-soak-"))
    try:
        figures = asyncio.run(soak(Plan(directory, options.operations, seed, tell)))
    except BaseException:
        tell(f"it failed; {directory} has what is left of it")
        raise
    shutil.rmtree(directory)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
