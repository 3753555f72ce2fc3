"""How far a transfer is: a line now and then, or a bar."""

from __future__ import annotations

import io

from rich.console import Console

import lading
from lading._cli.bars import bars
from lading._cli.progress import Lines


def test_lines_come_every_few_seconds_and_not_more_often() -> None:
    now = 0.0
    said: list[str] = []
    lines = Lines("uploading", said.append, lambda: now)
    for second in range(13):
        now = float(second)
        lines(lading.Progress(bytes_done=second * 1000, bytes_total=13_000, files_done=second, files_total=13))
    assert said == [
        "uploading: 5 of 13 files, 5.0 kB of 13.0 kB",
        "uploading: 10 of 13 files, 10.0 kB of 13.0 kB",
    ]
    assert lines.latest.files_done == 12


def test_a_bar_shows_bytes_and_files_and_goes_away() -> None:
    screen = io.StringIO()
    with bars("uploading", Console(file=screen, force_terminal=True, width=120)) as bar:
        bar(lading.Progress(files_total=0))
        bar(lading.Progress(bytes_done=500_000, bytes_total=1_000_000, files_done=1, files_total=2))
    shown = screen.getvalue()
    assert "uploading" in shown
    assert "0.5/1.0 MB" in shown
    assert "1/2 files" in shown
    assert bar.latest.files_done == 1
    # The cursor is shown again, and the line is erased.
    assert shown.rindex("\x1b[?25h") > shown.rindex("files")
    assert shown.rindex("\x1b[2K") > shown.rindex("files")
