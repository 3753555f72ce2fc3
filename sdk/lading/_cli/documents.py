"""From the SDK's values to what `--json` prints. Pure.

A value becomes an object with its public fields, by the names that the SDK gives them. Beyond JSON, a moment is ISO
8601 in UTC, an enumeration is its value, and a number that is not finite is `"NaN"`, `"Infinity"` or `"-Infinity"`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from os import PathLike, fspath

_Json = str | int | float | bool | list[object] | dict[str, object] | None


def document(value: object) -> dict[str, object]:
    """Return the document of one of the SDK's values. One that has a `reference` begins with it."""
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} has no document")
    found = {"reference": value.reference} if hasattr(value, "reference") else {}
    # `repr=False` marks what belongs to no view: the connection of a version.
    return found | {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.repr}


def _plain(value: object) -> _Json:
    """Return what JSON can say of a value."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _not_finite(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, PathLike):
        return str(fspath(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return document(value)


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
