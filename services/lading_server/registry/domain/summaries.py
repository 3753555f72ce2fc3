"""Configs and summaries of runs: keys that are set in them, and the last values of metrics. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from lading_server.common.registry_errors import InvalidMetadata
from lading_server.registry.domain.documents import canonical


class Merge(NamedTuple):
    """An object after keys were set in it.

    Attributes:
        text: The whole object.
        before: Those of the keys that changed and were there, as they were.
        after: Those of the keys that changed, as they are.
    """

    text: str
    before: dict[str, Any]
    after: dict[str, Any]


def set_keys(old: str, new: Mapping[str, Any], field: str, max_bytes: int) -> Merge:
    """Set keys in an object. Keys of nested objects are not merged: a value takes the place of the whole old one.

    Args:
        old: The object as it is kept.
        field: What the request calls it, for the message.

    Raises:
        InvalidMetadata: The whole would be larger than `max_bytes`.
    """
    whole: dict[str, Any] = json.loads(old)
    changed = {key: value for key, value in new.items() if key not in whole or not _same(whole[key], value)}
    if not changed:
        return Merge(old, {}, {})
    before = {key: whole[key] for key in changed if key in whole}
    text = canonical(whole | changed)
    size_bytes = len(text.encode())
    if size_bytes > max_bytes:
        raise InvalidMetadata(
            f"with {field} the run would have {size_bytes:,} bytes of it and max_metadata_bytes is {max_bytes:,}; "
            "keep large things in files",
            field=field,
        )
    return Merge(text, before, changed)


def with_last_values(summary: str, last_values: Mapping[str, float]) -> str:
    """Return a summary with the last value of each metric whose key was not set by a caller."""
    if not last_values:
        return summary
    whole: dict[str, Any] = json.loads(summary)
    return canonical(whole | {key: _number(value) for key, value in last_values.items() if key not in whole})


def _number(value: float) -> float | str:
    """Return a number as JSON can hold it: what JSON has no number for as the string that protocol buffers write."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _same(one: object, other: object) -> bool:
    """Tell whether two values are the same JSON. Python's own comparison takes 1 for 1.0 and for true."""
    return json.dumps(one) == json.dumps(other)
