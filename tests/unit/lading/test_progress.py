"""How far a transfer is, told ten times a second at most."""

from __future__ import annotations

import pytest

import lading
from lading._progress import ProgressMeter


def test_it_calls_ten_times_a_second_at_most_and_at_the_end() -> None:
    now = 0.0
    told: list[lading.Progress] = []
    meter = ProgressMeter(told.append, bytes_total=1000, files_total=1, clock=lambda: now)
    for _ in range(1000):
        now += 0.001
        meter.add(bytes_done=1)
    meter.add(files_done=1)
    assert 9 <= len(told) <= 10
    assert meter.finish() == told[-1] == lading.Progress(1000, 1000, 1, 1)


def test_what_the_callback_raises_reaches_the_caller() -> None:
    def callback(progress: lading.Progress) -> None:
        raise KeyError("mine")

    meter = ProgressMeter(callback)
    with pytest.raises(KeyError, match="mine"):
        meter.finish()


def test_without_a_callback_it_counts_all_the_same() -> None:
    meter = ProgressMeter(None, bytes_total=3)
    meter.add(bytes_done=2, bytes_deduplicated=1, files_done=1, files_deduplicated=1, bytes_sent=1)
    meter.expect(bytes_total=5, files_total=2)
    assert meter.finish() == lading.Progress(2, 5, 1, 2, 1, 1, 1)
