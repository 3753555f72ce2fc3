"""What a command prints: aligned, safe for a terminal, and no complaint when nobody reads on."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, timezone

import pytest

import lading
from lading._cli.listing import print_all
from lading._cli.output import (
    OutputClosed,
    Table,
    count_text,
    flush_output,
    one_line,
    print_bytes,
    print_document,
    print_fields,
    print_line,
    print_message,
    printable,
    size_text,
    time_text,
)


def test_a_table_aligns_its_columns_and_leaves_no_space_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Table("NAME", "SIZE", "NOTE") as table:
        table.add("a", "1 B", "")
        table.add("longer", "22 kB", "x")
    assert capsys.readouterr().out == "NAME    SIZE   NOTE\na       1 B\nlonger  22 kB  x\n"


def test_a_table_without_rows_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    with Table("NAME", "SIZE"):
        pass
    assert capsys.readouterr().out == "NAME  SIZE\n"


def test_a_long_table_is_printed_before_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Table("N") as table:
        for number in range(250):
            table.add(str(number))
        assert len(capsys.readouterr().out.splitlines()) >= 200
    assert capsys.readouterr().out.splitlines()[-1] == "249"


def test_a_table_that_fails_half_way_prints_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("N")
    table.add("1")
    table.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("red \x1b[31m", "red \\x1b[31m"),
        ("two\nlines", "two\\nlines"),
        ("right\u202eleft", "right\\u202eleft"),
        ("half \udc80", "half \\udc80"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_message("no\nanswer\tfrom \x07 there")
    assert capsys.readouterr().err == "no answer from \\x07 there\n"
    assert one_line(" a \n b ") == "a b"


def test_later_lines_of_a_field_stand_below_its_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"name": "x", "card": "# Title\n\ntext \x1b"})
    assert capsys.readouterr().out == "name  x\ncard  # Title\n\n      text \\x1b\n"


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1 << 30, "1.1 GB"),
        (5 * 10**15, "5000.0 TB"),
    ],
)
def test_sizes_are_for_people(size_bytes: int | None, shown: str) -> None:
    assert size_text(size_bytes) == shown


def test_times_are_in_utc() -> None:
    east = datetime(2026, 2, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert time_text(east) == time_text(east.astimezone(UTC)) == "2026-01-31 23:30:00Z"
    assert time_text(None) == "-"


def test_counts_have_their_plural() -> None:
    assert [count_text(count, "file") for count in (0, 1, 1797)] == ["0 files", "1 file", "1,797 files"]


def _fill(table: Table) -> None:
    with table:
        table.add("1")


PRINTING: dict[str, Callable[[], None]] = {
    "line": lambda: print_line("1"),
    "document": lambda: print_document({}),
    "fields": lambda: print_fields({"name": "1"}),
    "table": lambda: _fill(Table("N")),
}
PRINTING_ONLY: dict[str, Callable[[], None]] = {
    "line": lambda: print_line("1", may_end=True),
    "document": lambda: print_document({}, may_end=True),
    "table": lambda: _fill(Table("N", may_end=True)),
    # More than Python keeps.
    "bytes": lambda: print_bytes(bytes(1 << 16)),
}


@contextmanager
def unread() -> Iterator[None]:
    """Stdout and stderr are pipes that nobody reads, and every line is written at once."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as streams:
        for name in ("stdout", "stderr"):
            reader, writer = os.pipe()
            os.close(reader)
            # When it is closed, what it still holds is written, and fails unless it was discarded.
            patch.setattr(sys, name, streams.enter_context(os.fdopen(writer, "w", buffering=1)))
        yield


@pytest.mark.parametrize("kind", PRINTING)
def test_what_nobody_reads_goes_nowhere_and_the_command_goes_on(kind: str) -> None:
    with unread():
        PRINTING[kind]()
        PRINTING[kind]()
        print_message("1")
        print_message("2")
        flush_output()


@pytest.mark.parametrize("kind", PRINTING_ONLY)
def test_a_command_that_does_nothing_but_print_ends_once_nobody_reads(kind: str) -> None:
    with unread(), pytest.raises(OutputClosed):
        PRINTING_ONLY[kind]()


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_listing_asks_for_no_more_than_is_read(as_json: bool) -> None:
    asked: list[int] = []

    async def projects() -> AsyncGenerator[lading.Project, None]:
        for number in range(1000):
            asked.append(number)
            yield lading.Project("acme", "vision", datetime.now(UTC))

    with unread(), pytest.raises(OutputClosed):
        await print_all(projects(), 0, as_json, ["PROJECT"], lambda project: (project.name,))
    # A table is printed a hundred rows at a time.
    assert len(asked) <= 100
