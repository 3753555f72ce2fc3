"""A SQLite whose disk fails: the layer of crash_sqlite, with errors that a test asks for."""

from __future__ import annotations

from tests.support.crash_sqlite import RecordedSqlite

# What SQLite's own layer returns for EIO.
_ERRORS = {"write": 778, "sync": 1034}


class FaultySqlite(RecordedSqlite):
    """Writes or syncs of the files of one database fail, so often as a test says.

    Attributes:
        failed: How many have, since `fail` was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failed = 0
        self._call, self._name, self._passing, self._failing = "", "", 0, 0

    def fail(self, call: str, name: str, *, after: int = 0, times: int = 1) -> None:
        """Let `write` or `sync` of files whose names begin with `name` fail, after so many that do not."""
        self.failed, self._call, self._name, self._passing, self._failing = 0, call, name, after, times

    def well(self) -> None:
        """Let nothing fail any more."""
        self._failing = 0

    def fault(self, call: str, path: str) -> int:
        if not self._failing or call != self._call or not path.startswith(self._name):
            return 0
        if self._passing:
            self._passing -= 1
            return 0
        self._failing -= 1
        self.failed += 1
        return _ERRORS[call]
