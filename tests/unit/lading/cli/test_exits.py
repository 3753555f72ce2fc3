"""Every error of the SDK has an exit code, and every exit code is told in the help."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import lading
from lading._cli.exits import EXITS, Exit


def _tree(kind: type[lading.LadingError]) -> set[type[lading.LadingError]]:
    return {kind}.union(*(_tree(below) for below in kind.__subclasses__()))


def test_the_table_has_every_error() -> None:
    assert set(EXITS) == _tree(lading.LadingError)


@pytest.mark.parametrize(
    ("error", "code"), [("NotFound", 3), ("InvalidArgument", 2), ("IntegrityError", 4), ("Unavailable", 1)]
)
def test_the_codes_are_those_that_are_documented(error: str, code: int) -> None:
    assert EXITS[getattr(lading, error)] == code


def test_the_help_lists_every_code() -> None:
    command = [sys.executable, "-c", "from lading._cli.main import main; main()", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    listed = done.stdout.partition("Exit codes:")[2].partition("Settings:")[0]
    assert {int(code) for code in re.findall(r"^ +(\d+)  ", listed, re.MULTILINE)} == set(Exit)
