"""Structured logs on standard error: one JSON object a line, or text for people. No secret ever gets here."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# Where a call's fields hang on a log record.
FIELDS = "lading_fields"

# Made once: json.dumps makes one at each line.
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{key}={_plain(value)}" for key, value in getattr(record, FIELDS, {}).items())
        line = f"{time} {record.levelname:8} {record.getMessage()} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: object) -> str:
    """Return the value so that it cannot look like another field or line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def set_up_logs(level: str, form: str) -> None:
    """Send every log record of the process to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        form: `json` or `text`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Each migration step and each statement is news to nobody.
    for noisy in ("alembic", "sqlalchemy", "aiosqlite", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
