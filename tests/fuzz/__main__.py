"""`make fuzz`: every target for a while, guided by which code has been reached. Needs the package atheris.

Arguments: seconds for each target (30), and names of targets (all). What fails is written to .fuzz/<target>/crash-…,
and `python -m tests.fuzz 0 <target> <file>` runs it again. Each target is a process of its own: libFuzzer ends it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.packs import sealed_pack
from tests.fuzz.targets import TARGETS

_CORPUS = Path(".fuzz")
_SEEDS = (b"acme/vision/digits:staging", b"lading://a/model-registry/Some Name@b3:" + b"0" * 64, b'tag="approved" a>1')
# Of one input; what is read is bounded by messages and packs, and long inputs are slow to learn from.
_MOST_BYTES = 4096


def main(arguments: list[str]) -> int:
    """Run targets one after the other; return how many failed."""
    if find_spec("atheris") is None:
        print(
            "atheris is not installed here (there may be no wheel for this Python), so nothing was fuzzed: "
            "tests/fuzz/test_targets.py runs the same targets with Hypothesis"
        )
        return 0
    seconds, *names = arguments or ["30"]
    if len(names) == 2 and Path(names[1]).is_file():
        TARGETS[names[0]](Path(names[1]).read_bytes())
        return 0
    failed = 0
    for name in names or TARGETS:
        corpus = _CORPUS / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate((*_SEEDS, sealed_pack())):
            (corpus / f"seed-{number}").write_bytes(seed)
        print(f"--- {name}, {seconds} s", flush=True)
        flags = [f"-max_total_time={seconds}", f"-max_len={_MOST_BYTES}", "-rss_limit_mb=1024", "-print_final_stats=0"]
        command = [sys.executable, "-m", "tests.fuzz.one", name, *flags, f"-artifact_prefix={corpus}/", str(corpus)]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
