"""Makes JSON objects of what people keep in configs, summaries and metadata. Pure."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from lading._errors import InvalidArgument

# What the server allows (registry domain/documents.py).
_MAX_DEPTH = 32


@runtime_checkable
class _Array(Protocol):
    """What arrays and scalars of NumPy, PyTorch, JAX and others have in common."""

    def tolist(self) -> Any: ...


def plain(value: Any, where: str) -> Any:
    """Return `value` as JSON can say it: a copy that shares nothing with it.

    Numbers, texts, booleans and None are themselves; arrays and scalars of NumPy and its kin become lists and numbers;
    paths become texts. JSON has no NaN and no infinity: these become the texts `NaN`, `Infinity` and `-Infinity`.

    Args:
        value: Anything.
        where: What it is called in messages: `config`.

    Raises:
        InvalidArgument: It holds something else, or is nested deeper than 32.
    """
    return _plain(value, where, _MAX_DEPTH)


def plain_object(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a mapping as a JSON object can say it. Raises InvalidArgument."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{where} is a {type(value).__name__}. Give a mapping, such as vars(arguments).")
    result: dict[str, Any] = plain(value, where)
    return result


def dump(value: Mapping[str, Any]) -> str:
    """Return the text of an object that came from `plain`."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _plain(value: Any, where: str, depth: int) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    # Subclasses, as enumerations and NumPy have them, become the numbers that they stand for.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _not_finite(value)
    if depth == 0:
        raise InvalidArgument(f"{where} is nested deeper than {_MAX_DEPTH}. Flatten it, or keep it in a file.")
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, _Array):
        return _plain(value.tolist(), where, depth - 1)
    raise InvalidArgument(
        f"{where} is a {type(value).__name__}, which JSON cannot say. Give a number, a text, a list or a mapping."
    )


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidArgument(f"{where} has the key {key!r}. Keys are texts.")
    return key


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
