"""How far a transfer is: plain lines on stderr, or bars where a person looks at a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Protocol

from lading._cli.output import count_text, print_message, size_text
from lading._progress import Progress

# A log of an hour's transfer stays readable, and whoever waits sees that it moves.
_LINE_EVERY_SECONDS = 5.0


class Display(Protocol):
    """Shows a transfer. `latest` is what was told last."""

    latest: Progress

    def __call__(self, progress: Progress) -> None:
        """Show where the transfer is."""


class Lines:
    """A line every few seconds."""

    def __init__(
        self,
        verb: str,
        say: Callable[[str], None] = print_message,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latest = Progress()
        self._verb = verb
        self._say = say
        self._clock = clock
        self._said_at = clock()

    def __call__(self, progress: Progress) -> None:
        """Say where the transfer is, when it is time."""
        self.latest = progress
        if self._clock() - self._said_at >= _LINE_EVERY_SECONDS:
            self._said_at = self._clock()
            self._say(f"{self._verb}: {progress_text(progress)}")


@contextmanager
def shown(verb: str) -> Iterator[Display]:
    """Give what a transfer's progress is told to.

    Args:
        verb: What is being done: `uploading`.
    """
    if not sys.stderr.isatty():
        yield Lines(verb)
        return
    # By name: rich is loaded where it is looked at, and nowhere else.
    with import_module("lading._cli.bars").bars(verb) as display:
        yield display


def progress_text(progress: Progress) -> str:
    """Return `12 of 100 files, 3.2 MB of 10.0 MB`."""
    return (
        f"{progress.files_done:,} of {count_text(progress.files_total, 'file')}, "
        f"{size_text(progress.bytes_done)} of {size_text(progress.bytes_total)}"
    )
