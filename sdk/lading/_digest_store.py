"""The file of the digest cache: SQLite. Loaded when it is first used; some Pythons are built without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS digests_1 (
        path BLOB PRIMARY KEY,
        entry BLOB NOT NULL,     -- what lading._digest_cache makes of a file
        kept_at INTEGER NOT NULL -- seconds since 1970
    ) WITHOUT ROWID
"""
_PATHS_PER_QUERY = 500
_LOCKED_SECONDS = 1.0

Row = tuple[bytes, bytes, int]


def read_entries(file: str, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the entries that are kept, by path.

    Raises:
        OSError: The file is damaged, locked for long, or cannot be opened.
    """
    kept: dict[bytes, bytes] = {}
    with _opened(file) as database:
        for first in range(0, len(paths), _PATHS_PER_QUERY):
            part = paths[first : first + _PATHS_PER_QUERY]
            marks = ",".join("?" * len(part))
            # Nothing but question marks is put into the text.
            kept.update(database.execute(f"SELECT path, entry FROM digests_1 WHERE path IN ({marks})", part))  # noqa: S608
    return kept


def write_entries(file: str, rows: Iterable[Row], forget_before_seconds: int) -> None:
    """Keep entries, and forget those that were kept before a moment. Raises as `read_entries` does."""
    with _opened(file) as database, database:
        database.execute("DELETE FROM digests_1 WHERE kept_at < ?", [forget_before_seconds])
        database.executemany("INSERT OR REPLACE INTO digests_1 VALUES (?, ?, ?)", rows)


@contextmanager
def _opened(file: str) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(file, timeout=_LOCKED_SECONDS)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_SCHEMA)
            yield database
    except sqlite3.Error as error:
        raise OSError(str(error)) from error
