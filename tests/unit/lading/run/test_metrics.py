"""Measurements that wait."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

import lading
from lading._run.metrics import MetricBuffer, checked_step, numbers


class Tensor:
    """Has a value as a 0-d tensor has."""

    def __float__(self) -> float:
        return 0.25


def steps(buffer: MetricBuffer, most_points: int = 1000) -> list[int]:
    return [row.step for row in buffer.take(most_points)]


def test_steps_count_up_by_themselves() -> None:
    buffer = MetricBuffer(clock=lambda: 12.5)
    buffer.add({"loss": 1.0})
    buffer.add({"loss": 2.0}, 10)
    buffer.add({"loss": 3.0}, 4)
    buffer.add({"loss": 4.0})
    buffer.continue_after(99)
    buffer.add({"loss": 5.0})
    rows = buffer.take(1000)
    assert [(row.step, row.values["loss"]) for row in rows] == [(0, 1.0), (10, 2.0), (4, 3.0), (11, 4.0), (100, 5.0)]
    assert {row.time_ms for row in rows} == {12_500}


def test_rows_are_taken_whole_and_in_order() -> None:
    buffer = MetricBuffer()
    for _ in range(5):
        buffer.add({"a": 1.0, "b": 2.0})
    assert buffer.waiting_points == 10
    first = buffer.take(5)
    assert [row.step for row in first] == [0, 1]
    buffer.put_back(first)
    assert steps(buffer, 1) == [0]
    assert steps(buffer) == [1, 2, 3, 4]
    assert buffer.take(5) == []
    assert buffer.waiting_points == 0


def test_a_curve_that_waits_for_too_long_gets_coarser_and_keeps_its_ends() -> None:
    buffer = MetricBuffer(most_points=100)
    for _ in range(1000):
        buffer.add({"loss": 1.0, "accuracy": 2.0})
    rows = buffer.take(1000)
    kept = [row.step for row in rows]
    assert len(kept) <= 50
    assert kept[-1] == 999
    assert kept[0] < 100
    assert kept == sorted(kept)
    assert all(row.values.keys() == {"loss", "accuracy"} for row in rows)
    assert buffer.dropped_points == 2000 - 2 * len(kept)


def test_one_row_larger_than_the_bound_is_kept() -> None:
    buffer = MetricBuffer(most_points=10)
    buffer.add({str(number): 0.0 for number in range(50)})
    assert len(buffer.take(1)[0].values) == 50


def test_threads_lose_nothing() -> None:
    buffer = MetricBuffer()
    threads = [threading.Thread(target=lambda: [buffer.add({"x": 1.0}) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken: list[int] = []
    while any(thread.is_alive() for thread in threads):
        taken += steps(buffer, 50)
    for thread in threads:
        thread.join()
    while more := steps(buffer, 50):
        taken += more
    assert taken == list(range(8000))


def test_numbers_of_every_kind_are_numbers() -> None:
    values = numbers({"int": 1, "bool": True, "tensor": Tensor(), "nan": math.nan, "inf": -math.inf})
    assert math.isnan(values.pop("nan"))
    assert values == {"int": 1.0, "bool": 1.0, "tensor": 0.25, "inf": -math.inf}
    assert {type(value) for value in values.values()} == {float}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("loss", "0.5", "text"),
        ("loss", None, "NoneType"),
        ("loss", [1, 2], "list"),
        ("loss", 10**400, "int"),
        ("", 1.0, "printable"),
        ("a\nb", 1.0, "printable"),
        ("loss\ud83d", 1.0, "printable"),
        ("k" * 257, 1.0, "printable"),
        (5, 1.0, "printable"),
    ],
)
def test_what_is_no_measurement_is_refused(key: Any, value: Any, words: str) -> None:
    with pytest.raises(lading.InvalidArgument, match=words):
        numbers({key: value})


@pytest.mark.parametrize("step", [-1, 1.5, "1", 1 << 63])
def test_what_is_no_step_is_refused(step: Any) -> None:
    with pytest.raises(lading.InvalidArgument, match="step"):
        checked_step(step)
