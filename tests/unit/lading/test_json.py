"""What JSON can say of what people keep."""

from __future__ import annotations

import enum
import json
import os
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
        ({"a": ["\ud83d"]}, r"config\.a\[0\] is a text with half of a surrogate pair.*backslashreplace"),
        ({"a": Path(os.fsdecode(b"\xff"))}, r"config\.a is a text with half of a surrogate pair"),
        ({"a": {"\ud83d": 1}}, r"config\.a has the key '\\ud83d', which UTF-8 cannot say"),
        ({"a": Scalar([10**5000])}, r"config\.a\[0\] is an integer of more digits.*hex"),
        ({10**5000: 1}, "a key of config is an integer of more digits"),
    ],
)
def test_what_json_cannot_say_is_refused_by_place(value: Any, words: str) -> None:
    with pytest.raises(lading.InvalidArgument, match=words):
        plain_object(value, "config")


def test_the_advice_of_what_is_refused_is_taken() -> None:
    text, number = os.fsdecode(b"caf\xe9"), -(10**5000)
    advised = {"text": text.encode(errors="backslashreplace").decode(), "float": 1e300, "hex": hex(number)}
    assert json.loads(dump(plain_object(advised, "config")).encode()) == advised


def test_texts_and_integers_that_can_just_be_written_are_kept() -> None:
    value = {"\N{PILE OF POO}": "\N{PILE OF POO}\0", "long": 10**4299, "negative": -(10**4299)}
    assert json.loads(dump(plain_object(value, "config")).encode()) == value


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
