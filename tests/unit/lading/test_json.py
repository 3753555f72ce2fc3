"""What JSON can say of what people keep."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import pytest

import lading
from lading._json import dump, plain, plain_object


class Scalar:
    """Looks like a scalar of NumPy or PyTorch."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def tolist(self) -> Any:
        return self._value


class Color(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": [True, None, "x", 0.5]}, {"a": 1, "b": [True, None, "x", 0.5]}),
        ((1, (2, 3)), [1, [2, 3]]),
        (Scalar(0.5), 0.5),
        ({"array": Scalar([[1, 2], [3, 4]])}, {"array": [[1, 2], [3, 4]]}),
        (Path("a/b"), "a/b"),
        (Color.RED, 1),
        ([float("nan"), float("inf"), -float("inf")], ["NaN", "Infinity", "-Infinity"]),
        (Scalar(float("nan")), "NaN"),
    ],
)
def test_values_become_what_json_has(value: Any, expected: Any) -> None:
    result = plain(value, "config")
    assert result == expected
    assert json.loads(dump({"x": result})) == {"x": expected}
    assert type(plain(Color.RED, "config")) is int


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {"b": {1, 2}}}, r"config\.a\.b is a set"),
        ({"a": [0, object()]}, r"config\.a\[1\] is a object"),
        ({1: 2}, "the key 1"),
        ([1], "config is a list"),
    ],
)
def test_what_json_cannot_say_is_refused_by_place(value: Any, words: str) -> None:
    with pytest.raises(lading.InvalidArgument, match=words):
        plain_object(value, "config")


def test_what_goes_round_in_a_circle_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    with pytest.raises(lading.InvalidArgument, match="nested deeper than 32"):
        plain_object(circle, "config")


def test_the_copy_shares_nothing() -> None:
    inner = [1]
    copy = plain_object({"a": inner}, "config")
    inner.append(2)
    assert copy == {"a": [1]}
