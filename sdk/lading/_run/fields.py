"""A run's config or summary: what it holds, and what of it was not sent yet. Does no I/O; safe for many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from lading._json import plain, plain_object


class Fields(Mapping[str, Any]):
    """Keys with JSON values. Setting one sends it, a moment later, in the background; keys cannot be removed.

    Reading gives what was set, as JSON says it: an array is a list, a tuple is a list.
    """

    def __init__(self, name: str, values: Mapping[str, Any] | None = None) -> None:
        """Hold values that the server has.

        Args:
            name: What this is called in messages: `config`.
            values: From `lading._json.plain_object`.
        """
        self._name = name
        self._lock = threading.Lock()
        self._values: dict[str, Any] = dict(values or {})
        self._changed: set[str] = set()
        self._own: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        with self._lock:
            return self._values[key]

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        with self._lock:
            return f"<{self._name} {self._values!r}>"

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a key. Raises InvalidArgument when JSON cannot say the value."""
        self.update({key: value})

    def update(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set many keys, or none. Raises InvalidArgument when JSON cannot say one of the values."""
        new = plain_object({**(values or {}), **more}, self._name)
        with self._lock:
            self._values.update(new)
            self._changed.update(new)
            self._own.update(new)

    def load(self, values: Mapping[str, Any]) -> None:
        """Set keys that the server has."""
        with self._lock:
            self._values.update(values)

    def show(self, values: Mapping[str, Any]) -> None:
        """Set keys that the server learns in another way: the last value of each metric. None that was set otherwise.

        Args:
            values: Numbers by key.
        """
        with self._lock:
            for key, value in values.items():
                if key not in self._own:
                    self._values[key] = plain(value, key)

    def take_changes(self) -> dict[str, Any]:
        """Return the keys that were set and not taken, with their values, and count them as sent."""
        with self._lock:
            changes = {key: self._values[key] for key in self._changed}
            self._changed.clear()
            return changes

    def put_back(self, changes: Mapping[str, Any]) -> None:
        """Count keys as not sent after all."""
        with self._lock:
            self._changed.update(changes)
