"""The simple path from Node.js: @grpc/grpc-js and the .proto files, no Python on the client's side."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests/integration/node/simple_path.mjs"
FILE_BYTES = 50_000_000


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """Install the locked packages below .tools, once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed; install them (Debian: nodejs, npm) to run this test")
    target = ROOT / ".tools/node"
    target.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SCRIPT.parent / name, target / name)
    installed = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=target,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert installed.returncode == 0, installed.stderr
    return target


def run_node(node_modules: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the script; return its exit code and what it printed."""
    mode, target, *rest = arguments
    done = subprocess.run(
        ["node", str(SCRIPT), mode, target, str(ROOT / "protos"), *rest],
        env={**os.environ, "NODE_MODULES_ROOT": str(node_modules)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode > 0:
        raise AssertionError(done.stderr)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def test_a_killed_upload_from_nodejs_is_resumed_and_read_back(
    server: ServerProcess, node_modules: Path, tmp_path: Path
) -> None:
    data = random.Random(20).randbytes(FILE_BYTES)
    source = tmp_path / "model.bin"
    source.write_bytes(data)

    code, _ = run_node(node_modules, "interrupt", server.target, str(source), "node-upload")
    assert code == -signal.SIGKILL

    _, uploaded = run_node(node_modules, "upload", server.target, str(source), "node-upload")
    assert uploaded["digest"] == "b3:" + blake3(data).hexdigest()
    assert uploaded["size_bytes"] == FILE_BYTES
    assert uploaded["offset"] > 0
    assert uploaded["sent"] == FILE_BYTES - uploaded["offset"]

    out = tmp_path / "range"
    offset, length = 12_345_678, 9_876_543
    run_node(node_modules, "read", server.target, uploaded["digest"], str(offset), str(length), str(out))
    assert out.read_bytes() == data[offset : offset + length]

    run_node(node_modules, "read", server.target, uploaded["digest"], "0", "0", str(out))
    assert out.read_bytes() == data
