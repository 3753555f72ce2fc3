"""The state of a server that is about to stop, and who wants to know of it."""

from __future__ import annotations

from collections.abc import Callable


class Drain:
    """Begun once, and never taken back."""

    def __init__(self) -> None:
        self.started = False
        self._watchers: dict[int, Callable[[], object]] = {}
        self._next = 0

    def watch(self, callback: Callable[[], object]) -> Callable[[], object]:
        """Have `callback` called when the drain begins, now if it has; returns how to take that back."""
        number, self._next = self._next, self._next + 1
        self._watchers[number] = callback
        if self.started:
            callback()
        return lambda: self._watchers.pop(number, None)

    def begin(self) -> None:
        """Tell everybody who watches, once."""
        if self.started:
            return
        self.started = True
        for callback in list(self._watchers.values()):
            callback()
