"""When to try again and when to give up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

import lading
from lading._retry import RetryPolicy


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def policy(self, retry_seconds: float = 120.0) -> RetryPolicy:
        return RetryPolicy(retry_seconds, clock=lambda: self.now, sleep=self.sleep, jitter=lambda: 1.0)


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: lading.LadingError) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "answer"


async def test_pauses_double_up_to_the_longest() -> None:
    time = Time()
    assert await time.policy().call(Flaky(9, lading.Unavailable("away"))) == "answer"
    assert time.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])


async def test_pauses_are_a_random_part_of_their_bound() -> None:
    time = Time()
    parts = iter([0.5, 0.0, 0.25])
    policy = RetryPolicy(clock=lambda: time.now, sleep=time.sleep, jitter=lambda: next(parts))
    await policy.call(Flaky(3, lading.Busy("busy")))
    assert time.pauses == pytest.approx([0.05, 0.0, 0.1])


async def test_it_gives_up_when_there_was_no_progress_for_long() -> None:
    time = Time()
    with pytest.raises(lading.Unavailable):
        await time.policy(retry_seconds=30).call(Flaky(1000, lading.Unavailable("away")))
    assert 30 <= time.now < 41


async def test_progress_starts_the_count_again() -> None:
    time = Time()
    attempts = time.policy(retry_seconds=30).start()
    for _ in range(100):
        await attempts.pause(lading.OutcomeUnknown("broken"))
        time.now += 20
        attempts.progress()
    assert time.pauses == pytest.approx([0.1] * 100)


@pytest.mark.parametrize(
    "error", [lading.IntegrityError("x"), lading.NotFound("x"), lading.ResourceExhausted("x"), lading.Conflict("x")]
)
async def test_what_repeating_cannot_help_is_raised_at_once(error: lading.LadingError) -> None:
    time, call = Time(), Flaky(1, error)
    with pytest.raises(type(error)):
        await time.policy().call(call)
    assert (call.calls, time.pauses) == (1, [])


async def test_a_server_that_always_fails_inside_is_told_soon() -> None:
    time, call = Time(), Flaky(1000, lading.OutcomeUnknown("internal"))
    with pytest.raises(lading.OutcomeUnknown):
        await time.policy().call(call)
    assert call.calls == 7
    assert time.now < 15


async def test_no_seconds_mean_no_second_try() -> None:
    time, call = Time(), Flaky(1, lading.Unavailable("away"))
    with pytest.raises(lading.Unavailable):
        await time.policy(retry_seconds=0).call(call)
    assert call.calls == 1


def told(seconds: float) -> lading.LadingError:
    error = lading.Busy("too many calls", reason="RATE_LIMITED")
    error.retry_seconds = seconds
    return error


async def test_it_waits_as_long_as_the_server_said_and_a_little() -> None:
    time = Time()
    await time.policy().call(Flaky(3, told(2.5)))
    assert time.pauses == pytest.approx([2.6, 2.7, 2.9])


async def test_it_never_comes_before_the_server_said() -> None:
    time = Time()
    policy = RetryPolicy(clock=lambda: time.now, sleep=time.sleep, jitter=lambda: 0.0)
    await policy.call(Flaky(2, told(0.75)))
    assert time.pauses == [0.75, 0.75]


async def test_it_gives_up_at_once_when_it_would_have_to_wait_for_too_long() -> None:
    time, call = Time(), Flaky(1, told(1e9))
    with pytest.raises(lading.Busy):
        await time.policy(retry_seconds=30).call(call)
    assert (call.calls, time.pauses) == (1, [])
