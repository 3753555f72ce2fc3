"""What a command prints: tables, documents and bytes on stdout; messages on stderr. Knows no SDK.

Text from a server never reaches a terminal as it is: a file's name can hold what a terminal takes for commands.

A reader may go away: `lading … | head`. What is printed from then on goes nowhere, and the command goes on: it may have
work to do, and its exit code says what came of it. One that does nothing but print says so, by `may_end`, and ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

# A table is printed in parts, so that a long listing begins at once; each part may widen the columns.
_ROWS_A_PART = 100
_GAP = "  "


class OutputClosed(Exception):
    """Whoever read a listing has seen enough: `lading ls | head`. No error, and nothing is left to be done."""


class Table:
    """Rows with aligned columns, printed while they come. A context manager: its end prints the rows that are left.

    Args:
        headings: What stands above the columns.
        may_end: Raise OutputClosed once nobody reads.
    """

    def __init__(self, *headings: str, may_end: bool = False) -> None:
        self._may_end = may_end
        self._rows: list[Sequence[str]] = [headings]
        self._widths = [0] * len(headings)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._print()

    def add(self, *cells: str) -> None:
        """Add a row."""
        self._rows.append([printable(cell) for cell in cells])
        if len(self._rows) > _ROWS_A_PART:
            self._print()

    def _print(self) -> None:
        self._widths = [
            max(width, *(len(row[column]) for row in self._rows)) if self._rows else width
            for column, width in enumerate(self._widths)
        ]
        for row in self._rows:
            padded = (cell.ljust(width) for cell, width in zip(row, self._widths, strict=True))
            _write(f"{_GAP.join(padded).rstrip()}\n", self._may_end)
        self._rows = []


def print_line(text: str, *, may_end: bool = False) -> None:
    """Print one line. Raises OutputClosed, with `may_end`, once nobody reads."""
    _write(f"{printable(text)}\n", may_end)


def print_text(text: str) -> None:
    """Print lines that were made here, of parts that are printable."""
    _write(text if text.endswith("\n") else f"{text}\n")


def print_fields(fields: Mapping[str, str]) -> None:
    """Print names and values, one pair a line; later lines of a value stand below its first."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        first, *others = [printable(line) for line in value.split("\n")]
        _write(f"{name.ljust(width)}{_GAP}{first}".rstrip() + "\n")
        for line in others:
            _write(f"{' ' * width}{_GAP}{line}".rstrip() + "\n")


def print_document(document: Mapping[str, object], *, may_end: bool = False) -> None:
    """Print a JSON object on one line. Raises OutputClosed, with `may_end`, once nobody reads."""
    _write(json.dumps(document, allow_nan=False) + "\n", may_end)


def print_bytes(data: bytes) -> None:
    """Print bytes as they are. Raises OutputClosed once nobody reads: they are of no use but to a reader."""
    with _readers_of(sys.stdout, may_end=True):
        sys.stdout.buffer.write(data)


def print_message(text: str) -> None:
    """Tell a person something that is no result, on one line."""
    # After 2>&1 it is the same pipe, and what is told on the way is no reason to stop there.
    with _readers_of(sys.stderr, may_end=False):
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()


def flush_output() -> None:
    """Have everything printed, if somebody reads it: now, and not when the interpreter ends, which would complain."""
    with _readers_of(sys.stdout, may_end=False):
        sys.stdout.flush()


def discard_output() -> None:
    """Have go nowhere what is still buffered, and whatever is printed from now on."""
    _discard(sys.stdout)


def printable(text: str) -> str:
    """Return a text without characters that a terminal acts on: they are escaped as in Python."""
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() else one.encode("unicode_escape").decode() for one in text])


def one_line(text: str) -> str:
    """Return a text on one line, printable."""
    return printable(" ".join(text.split()))


def size_text(size_bytes: int | None) -> str:
    """Return a size for people: `812 B`, `1.2 MB`; `-` where it is not known."""
    if size_bytes is None:
        return "-"
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        # What would be printed as 1000.0 belongs to the next unit.
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def time_text(time: datetime | None) -> str:
    """Return a moment for people, in UTC: `2026-01-31 12:00:00Z`; `-` where there is none."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if time is not None else "-"


def count_text(count: int, thing: str) -> str:
    """Return `1 file`, `1,797 files`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _write(text: str, may_end: bool = False) -> None:
    with _readers_of(sys.stdout, may_end):
        sys.stdout.write(text)


@contextmanager
def _readers_of(stream: TextIO, may_end: bool) -> Iterator[None]:
    """Bear that nobody reads a stream any more: discard it, and then raise OutputClosed if the command may end."""
    try:
        yield
    except BrokenPipeError:
        _discard(stream)
        if may_end:
            raise OutputClosed from None


def _discard(stream: TextIO) -> None:
    # Below Python's buffers: they hold what could not be written, and would try again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
