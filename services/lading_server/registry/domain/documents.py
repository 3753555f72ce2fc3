"""JSON objects and Markdown that callers bring: metadata, configs, summaries, cards. Pure."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, NoReturn

from lading_server.common.registry_errors import InvalidMetadata, TextTooLong
from lading_server.registry.store.rows import JsonObject, Metadata

# Deeper than anything that people write, and far from where a parser runs out of stack.
_MAX_DEPTH = 32
# Of a text that can be searched. It fits with its key into a row of PostgreSQL's index (2,704 bytes).
_MAX_FIELD_CHARACTERS = 256
MAX_KEY_CHARACTERS = 256
"""Of a dotted key that can be asked for."""


def parse_object(text: str, field: str, max_bytes: int) -> dict[str, Any]:
    """Return a JSON object; an empty text is an empty one.

    Args:
        field: What the request calls it, for the message.

    Raises:
        InvalidMetadata: It is no JSON object, larger than `max_bytes`, or deeper than 32.
    """
    if not text:
        return {}
    size_bytes = len(text.encode())
    if size_bytes > max_bytes:
        raise InvalidMetadata(
            f"{field} has {size_bytes:,} bytes and max_metadata_bytes is {max_bytes:,}; keep large things in files",
            field=field,
        )
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InvalidMetadata(f"{field} is not JSON: {error}", field=field) from error
    if not isinstance(value, dict):
        raise InvalidMetadata(f"{field} is a JSON {type(value).__name__}; give an object", field=field)
    if _depth(value, _MAX_DEPTH) > _MAX_DEPTH:
        raise InvalidMetadata(f"{field} is nested deeper than {_MAX_DEPTH}; flatten it", field=field)
    try:
        canonical(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidMetadata(f"{field} has half of a surrogate pair, which no text may hold", field=field) from error
    return value


def canonical(value: dict[str, Any]) -> str:
    """Return the text that is kept for an object; keys stay in the order in which they came."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_metadata(text: str, field: str, max_bytes: int) -> Metadata:
    """Return an object with what of it can be searched. Raises InvalidMetadata."""
    value = parse_object(text, field, max_bytes)
    return Metadata(canonical(value), value, searchable_fields(value))


def searchable_fields(value: JsonObject) -> dict[str, float | str]:
    """Return what `metadata.KEY` finds: the numbers, truth values and short texts of an object, by dotted key.

    A truth value is the text `true` or `false`. What is in a list has no key. Where two keys read the same (`{"a.b": 1,
    "a": {"b": 2}}`), the later one is found.
    """
    fields: dict[str, float | str] = {}
    _collect(value, "", fields)
    return fields


def dotted_keys(value: JsonObject) -> frozenset[str]:
    """Return the keys of an object that have a value other than null: `eval`, and for what is nested `eval.accuracy`.

    What is in a list has no key, and longer ones than MAX_KEY_CHARACTERS are left out.
    """
    keys: set[str] = set()
    unread = [("", value)]
    while unread:
        prefix, inner = unread.pop()
        for name, item in inner.items():
            if item is not None and len(prefix) + len(name) <= MAX_KEY_CHARACTERS:
                keys.add(prefix + name)
                if isinstance(item, dict):
                    unread.append((f"{prefix}{name}.", item))
    return frozenset(keys)


def check_description(text: str, max_bytes: int) -> str:
    """Return a card, without NUL, as CommonMark replaces it: databases do not keep it. Raises TextTooLong."""
    size_bytes = len(text.encode())
    if size_bytes > max_bytes:
        raise TextTooLong(
            f"the description has {size_bytes:,} bytes and max_description_bytes is {max_bytes:,}; "
            "keep longer texts in a file of the version",
            limit=max_bytes,
        )
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is nothing that JSON has; write null or a string")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than any number that is kept; write a string")
    return value


def _collect(value: JsonObject, prefix: str, fields: dict[str, float | str]) -> None:
    for name, item in value.items():
        key = prefix + name
        if isinstance(item, dict):
            _collect(item, f"{key}.", fields)
        elif isinstance(item, bool):
            _keep(fields, key, "true" if item else "false")
        elif isinstance(item, int | float):
            # An integer that no float is as large as: nobody compares with it.
            if abs(item) <= sys.float_info.max:
                _keep(fields, key, float(item))
        elif isinstance(item, str) and len(item) <= _MAX_FIELD_CHARACTERS and "\0" not in item:
            _keep(fields, key, item)


def _keep(fields: dict[str, float | str], key: str, value: float | str) -> None:
    if len(key) <= MAX_KEY_CHARACTERS and "\0" not in key:
        fields[key] = value


def _depth(value: object, most: int) -> int:
    if most < 0 or not isinstance(value, dict | list):
        return 0
    children = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(child, most - 1) for child in children), default=0)
