"""The README keeps its word: its Python runs, its shell works, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
ADDRESS = "127.0.0.1:7420"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """What the README's examples store: a directory with names that need care."""
    root = tmp_path / "dataset"
    (root / "train").mkdir(parents=True)
    (root / "train/0001.png").write_bytes(b"image")
    (root / "a name with 'quotes' and spaces").write_bytes(b"odd")
    (root / "labels.csv").write_bytes(b"0001,7\n")
    return root


def _run_example(target: str, work: Path) -> str:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert ADDRESS in example
    command = [sys.executable, "-c", example.replace(ADDRESS, target)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_stores_lists_and_fetches(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    stored, *listed = _run_example(server.target, tmp_path).splitlines()
    assert re.fullmatch(r"b3:[0-9a-f]{64} 15 bytes sent", stored)
    assert listed == ["train/0001.png 5"]
    for path in (path for path in dataset.rglob("*") if path.is_file()):
        assert (tmp_path / "fetched" / path.relative_to(dataset)).read_bytes() == path.read_bytes()


def test_the_shell_line_prints_the_digest_of_the_tree(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    if shutil.which("b3sum") is None:
        pytest.skip("b3sum is not installed (Debian: apt-get install b3sum)")
    (line,) = re.findall(r"^    \$ (\(cd dataset .*)$", README, re.MULTILINE)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert f"b3:{done.stdout.split()[0]} " in _run_example(server.target, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    targets = [link for link in _LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in targets if not (document.parent / link).exists()] == []
