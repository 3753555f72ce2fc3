"""A transfer as a bar, on stderr. Loads rich, so it is loaded only for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

from lading._check_models import CheckProgress
from lading._progress import Progress


class Bars:
    """One bar: bytes, speed, time left, and files in words."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self.latest = Progress()
        self._bar = bar
        self._task = task

    @property
    def parts(self) -> tuple[Bar, TaskID]:
        """What is drawn, and which line of it."""
        return self._bar, self._task

    def __call__(self, progress: Progress) -> None:
        """Show where the transfer is."""
        self.latest = progress
        self._bar.update(
            self._task,
            completed=progress.bytes_done,
            # Before the files were counted, nobody knows.
            total=progress.bytes_total or None,
            files=f"{progress.files_done:,}/{progress.files_total:,} files",
        )


class CheckBar:
    """One bar: what is being checked, bytes, speed and time left."""

    def __init__(self, bar: Bar, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, progress: CheckProgress) -> None:
        """Show where the check is."""
        self._bar.update(
            self._task,
            description=f"checking {progress.phase}",
            completed=progress.bytes_done,
            total=progress.bytes_total or None,
            files=f"{progress.items_done:,} items",
        )


@contextmanager
def check_bar(console: Console | None = None) -> Iterator[CheckBar]:
    """Give a bar for a check that goes away at the end of the block; drawn on stderr if `console` is None."""
    with bars("checking", console) as shown:
        yield CheckBar(*shown.parts)


@contextmanager
def bars(verb: str, console: Console | None = None) -> Iterator[Bars]:
    """Give a bar that goes away at the end of the block.

    Args:
        verb: What is being done: `uploading`.
        console: Where to draw; stderr if None.
    """
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[files]}"),
        console=console or Console(stderr=True),
        transient=True,
    )
    with bar:
        yield Bars(bar, bar.add_task(verb, total=None, files=""))
