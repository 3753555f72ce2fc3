"""How far a transfer is, told ten times a second at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

# Ten a second look continuous to a person and cost nothing beside the transfer.
_REPORT_EVERY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is.

    Attributes:
        bytes_done: Bytes of files that are safe where they should be, however they came there.
        bytes_total: Bytes of all files.
        files_done: Files that are complete.
        files_total: All files.
        bytes_deduplicated: The part of `bytes_done` that was there already and did not travel.
        files_deduplicated: The part of `files_done` of which nothing travelled.
        bytes_sent: Bytes of file content that travelled, those sent again included.
    """

    bytes_done: int = 0
    bytes_total: int = 0
    files_done: int = 0
    files_total: int = 0
    bytes_deduplicated: int = 0
    files_deduplicated: int = 0
    bytes_sent: int = 0


ProgressCallback = Callable[[Progress], None]


class ProgressMeter:
    """Counts, and calls back. What the callback raises ends the transfer and reaches the caller."""

    def __init__(
        self,
        callback: ProgressCallback | None,
        *,
        bytes_total: int = 0,
        files_total: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback = callback
        self._clock = clock
        self._counts = Progress(bytes_total=bytes_total, files_total=files_total)
        self._reported_at = clock()

    @property
    def counts(self) -> Progress:
        """Where the transfer is."""
        return self._counts

    def add(
        self,
        *,
        bytes_done: int = 0,
        files_done: int = 0,
        bytes_deduplicated: int = 0,
        files_deduplicated: int = 0,
        bytes_sent: int = 0,
    ) -> None:
        """Count more, and tell it when it is time."""
        now = self._counts
        self._counts = Progress(
            now.bytes_done + bytes_done,
            now.bytes_total,
            now.files_done + files_done,
            now.files_total,
            now.bytes_deduplicated + bytes_deduplicated,
            now.files_deduplicated + files_deduplicated,
            now.bytes_sent + bytes_sent,
        )
        if self._callback is not None and self._clock() - self._reported_at >= _REPORT_EVERY_SECONDS:
            self._report()

    def expect(self, *, bytes_total: int, files_total: int) -> None:
        """Say what the totals are, once they are known."""
        self._counts = replace(self._counts, bytes_total=bytes_total, files_total=files_total)

    def finish(self) -> Progress:
        """Tell the last state, whatever the time, and return it."""
        self._report()
        return self._counts

    def _report(self) -> None:
        self._reported_at = self._clock()
        if self._callback is not None:
            self._callback(self._counts)
