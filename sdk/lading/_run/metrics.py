"""Measurements that wait to be sent. Does no I/O; safe for many threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lading._errors import InvalidArgument

# About 40 MiB of rows. A loop that logs ten values a second fills it in an hour and a half without a server.
_WAITING_POINTS_AT_MOST = 50_000
_MAX_KEY_CHARACTERS = 256
_MAX_STEP = (1 << 63) - 1


class Row(NamedTuple):
    """What one call logged.

    Attributes:
        step: When, in the run's own count.
        time_ms: When, in milliseconds since 1970.
        values: What was measured.
    """

    step: int
    time_ms: int
    values: Mapping[str, float]


class MetricBuffer:
    """Rows in the order in which they were logged, up to a bound.

    Where more come than can be sent, every second row is dropped of those that wait: a curve gets coarser, not
    shorter.

    Attributes:
        dropped_points: How many points were dropped for that.
    """

    def __init__(
        self, most_points: int = _WAITING_POINTS_AT_MOST, clock: Callable[[], float] = time.time, next_step: int = 0
    ) -> None:
        self._most_points = most_points
        self._clock = clock
        self._lock = threading.Lock()
        self._rows: list[Row] = []
        self._points = 0
        self._next_step = next_step
        self.dropped_points = 0

    @property
    def waiting_points(self) -> int:
        """How many points wait."""
        return self._points

    def continue_after(self, step: int) -> None:
        """Count on from a step that was logged before."""
        with self._lock:
            self._next_step = max(self._next_step, step + 1)

    def add(self, values: Mapping[str, float], step: int | None = None) -> int:
        """Keep what was measured; return how many points wait.

        Args:
            values: From `numbers`.
            step: When; None for one more than the largest so far.
        """
        time_ms = int(self._clock() * 1000)
        with self._lock:
            at = self._next_step if step is None else step
            self._next_step = max(self._next_step, at + 1)
            if values:
                self._rows.append(Row(at, time_ms, values))
                self._points += len(values)
                self._thin()
            return self._points

    def take(self, most_points: int) -> list[Row]:
        """Return the oldest rows, at least one if there is one, and forget them."""
        with self._lock:
            count = points = 0
            for row in self._rows:
                if count and points + len(row.values) > most_points:
                    break
                count += 1
                points += len(row.values)
            taken, self._rows = self._rows[:count], self._rows[count:]
            self._points -= points
            return taken

    def put_back(self, rows: Sequence[Row]) -> None:
        """Keep rows that were taken and could not be sent."""
        with self._lock:
            self._rows[:0] = rows
            self._points += sum(len(row.values) for row in rows)
            self._thin()

    def _thin(self) -> None:
        while self._points > self._most_points and len(self._rows) > 1:
            # The newest row stays, and with it every second one before it.
            self._rows = self._rows[::-1][::2][::-1]
            points = sum(len(row.values) for row in self._rows)
            self.dropped_points += self._points - points
            self._points = points


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what was measured as floats: Python's numbers, and scalars of NumPy, PyTorch and their kin.

    Raises:
        InvalidArgument: A key is not 1 to 256 printable characters, or a value is no number.
    """
    return {_checked_key(key): _number(key, value) for key, value in values.items()}


def checked_step(step: int) -> int:
    """Return a step. Raises InvalidArgument when it is negative, too large or no integer."""
    try:
        number = step.__index__()
    except AttributeError:
        raise InvalidArgument(f"step is {step!r}. Give an integer, or leave it out.") from None
    if not 0 <= number <= _MAX_STEP:
        raise InvalidArgument(f"step is {number}. Steps count from 0.")
    return number


def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY_CHARACTERS or not key.isprintable():
        raise InvalidArgument(f"{str(key)[:80]!r} cannot name a metric. Use 1 to 256 printable characters.")
    return key


def _number(key: str, value: Any) -> float:
    if isinstance(value, str | bytes):
        raise InvalidArgument(f"{key!r} is the text {value[:80]!r}. Keep texts in run.summary or run.config.")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"{key!r} is a {type(value).__name__} that is no number ({error}). Log its mean, say, or keep it in a file."
        ) from error
