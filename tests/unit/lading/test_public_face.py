"""What `import lading` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lading
from lading import _face


def test_all_is_sorted_and_complete() -> None:
    public = {name for name in vars(_face) if not name.startswith("_")}
    assert _face.__all__ == sorted(_face.__all__)
    assert set(_face.__all__) == public


def test_lading_gives_what_is_public_and_nothing_else() -> None:
    assert set(_face.__all__) <= set(dir(lading))
    for name in _face.__all__:
        assert getattr(lading, name) is getattr(_face, name)
    with pytest.raises(AttributeError, match="module 'lading' has no attribute 'Clinet'"):
        lading.Clinet  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(AttributeError):
        lading._transports  # type: ignore[attr-defined] # noqa: B018


def test_every_public_thing_has_a_docstring() -> None:
    for name in _face.__all__:
        if name != "ProgressCallback":
            assert getattr(lading, name).__doc__, name


def test_every_error_is_a_lading_error() -> None:
    errors = [value for value in vars(_face).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 10
    assert all(issubclass(error, lading.LadingError) for error in errors)


_WATCHED_IMPORT = """
import sys, threading

seen = []
def watch(event, arguments):
    # Reading is how modules are found; what is opened to be written is not.
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event.startswith(("socket.", "sqlite3.", "subprocess.", "os.mkdir", "os.fork")):
        seen.append(event)

sys.addaudithook(watch)
import lading
lading.Client()  # names are loaded when they are first used
heavy = {"lading_server", "rich", "typer", "sqlite3", "sqlalchemy", "numpy", "aiosqlite"} & sys.modules.keys()
print(threading.active_count(), sorted(heavy), seen)
"""


def test_importing_opens_nothing_and_loads_neither_server_nor_command_line() -> None:
    run = subprocess.run([sys.executable, "-c", _WATCHED_IMPORT], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1 [] []"
