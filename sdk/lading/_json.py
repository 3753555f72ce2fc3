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

_TO_UTF8 = "Write it as text.encode(errors='backslashreplace').decode(), say."


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
        InvalidArgument: It holds something else, a text that UTF-8 cannot say or an integer that is too long to be
            written, or is nested deeper than 32.
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
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    # Subclasses, as enumerations and NumPy have them, become the numbers that they stand for.
    if isinstance(value, int):
        return _integer(int(value), where)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _not_finite(value)
    if depth == 0:
        raise InvalidArgument(f"{where} is nested deeper than {_MAX_DEPTH}. Flatten it, or keep it in a file.")
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth - 1) for index, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return _text(os.fsdecode(value), where)
    if isinstance(value, _Array):
        return _plain(value.tolist(), where, depth - 1)
    raise InvalidArgument(
        f"{where} is a {type(value).__name__}, which JSON cannot say. Give a number, a text, a list or a mapping."
    )


def _key(key: object, where: str) -> str:
    if isinstance(key, int):
        # Or the message below could not be written.
        _integer(key, f"a key of {where}")
    if not isinstance(key, str):
        raise InvalidArgument(f"{where} has the key {key!r}. Keys are texts.")
    if not _is_utf8(key):
        raise InvalidArgument(f"{where} has the key {key!r}, which UTF-8 cannot say. {_TO_UTF8}")
    return key


def _text(value: str, where: str) -> str:
    if not _is_utf8(value):
        raise InvalidArgument(
            f"{where} is a text with half of a surrogate pair, which UTF-8 cannot say; names of files that are not "
            f"UTF-8 are such texts. {_TO_UTF8}"
        )
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(value: int, where: str) -> int:
    try:
        str(value)
    except ValueError:
        # Python's own bound, which a program can move (sys.set_int_max_str_digits): the server has it too.
        raise InvalidArgument(
            f"{where} is an integer of more digits than can be written (4,300, unless Python was told otherwise). Give "
            "a float, or the text hex(number)."
        ) from None
    return value


def _not_finite(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
