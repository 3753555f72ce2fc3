"""The README keeps its word: its Python runs, its shell works, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess, running_server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """What the README's examples store: a directory with names that need care."""
    root = tmp_path / "dataset"
    (root / "train").mkdir(parents=True)
    (root / "train/0001.png").write_bytes(b"image")
    (root / "a name with 'quotes' and spaces").write_bytes(b"odd")
    (root / "labels.csv").write_bytes(b"0001,7\n")
    return root


def _run_example(server: ServerProcess, work: Path) -> list[str]:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    environment = {**os.environ, "LADING_URL": server.target, "LADING_API_KEY": server.api_key}
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def keyed_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server as the README starts one."""
    with running_server(tmp_path / "server-data", auth="keys") as process:
        yield process


def test_the_example_logs_trains_links_and_deploys(keyed_server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    data, link, model, found = _run_example(keyed_server, tmp_path)
    assert re.fullmatch(r"default/vision/digits:v0 b3:[0-9a-f]{64}", data)
    assert link == "default/model-registry/Digit Reader:v0 is vision/digit-reader:v1"
    assert model == "0.94 ['weights.txt']"
    assert sorted(re.findall(r"'([^']*)'", found)) == ["digit-reader:v1", "digit-reader:v2"]
    assert (tmp_path / "deployed/weights.txt").read_text() == "0.94\n"
    for path in (path for path in dataset.rglob("*") if path.is_file()):
        assert (tmp_path / "training-data" / path.relative_to(dataset)).read_bytes() == path.read_bytes()


def test_the_shell_line_prints_the_digest_of_the_tree(
    keyed_server: ServerProcess, dataset: Path, tmp_path: Path
) -> None:
    if shutil.which("b3sum") is None:
        pytest.skip("b3sum is not installed (Debian: apt-get install b3sum)")
    (line,) = re.findall(r"^    \$ (\(cd dataset .*)$", README, re.MULTILINE)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert _run_example(keyed_server, tmp_path)[0].endswith(f" b3:{done.stdout.split()[0]}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    targets = [link for link in _LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in targets if not (document.parent / link).exists()] == []
