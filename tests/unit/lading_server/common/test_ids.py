"""Ids sort in the order in which they were made, whatever the clock does."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from uuid import RFC_4122, UUID

import pytest

from lading_server.common.ids import uuid7


def test_an_id_is_a_version_7_uuid_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert made.version == 7
    assert made.variant == RFC_4122
    # A thousand milliseconds after: many ids at once run ahead of the clock.
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1000


def test_ids_of_one_thread_only_grow() -> None:
    made = [uuid7() for _ in range(20_000)]
    assert all(one < after for one, after in pairwise(made))


def test_ids_grow_while_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3_600_000_000_000)
    assert uuid7() > first


def test_threads_never_make_the_same_id_and_each_sees_them_grow() -> None:
    made: list[list[UUID]] = [[] for _ in range(4)]

    def make(ids: list[UUID]) -> None:
        ids.extend(uuid7() for _ in range(3_000))

    threads = [threading.Thread(target=make, args=(ids,)) for ids in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for ids in made for one in ids}) == 12_000
    assert all(ids == sorted(ids) for ids in made)
