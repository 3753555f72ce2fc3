"""Token buckets: how often keys and entities may call."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from lading_server.common.allowances import Allowance, Allowances
from lading_server.common.callers import ANYBODY, SERVICE, Principal
from lading_server.common.grpc_status import status_of
from lading_server.common.rates import CallRates
from lading_server.common.registry_errors import RateLimited
from lading_server.common.roles import Role


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def caller(key: str = "k1", entity: str = "acme", *, per_key: int = 0, per_entity: int = 0) -> Principal:
    limits = Allowances(Allowance(calls_per_second=per_entity), Allowance(calls_per_second=per_key))
    return Principal("ann", entity, key, Role.MEMBER, limits)


def refusal(rates: CallRates, who: Principal) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        rates.take(who)
    return caught.value


def test_a_burst_is_two_seconds_worth_and_then_one_call_for_each_token() -> None:
    clock = Clock()
    rates, ann = CallRates(clock), caller(per_key=5)
    for _ in range(10):
        rates.take(ann)
    error = refusal(rates, ann)
    assert error.retry_seconds == pytest.approx(0.2)
    assert error.metadata == {"scope": "key", "limit": "5", "retry_seconds": "0.200"}
    clock.seconds += 0.2
    rates.take(ann)
    refusal(rates, ann)
    clock.seconds += 3600
    for _ in range(10):
        rates.take(ann)
    refusal(rates, ann)


def test_keys_have_buckets_of_their_own_and_share_that_of_their_entity() -> None:
    rates = CallRates(Clock())
    for _ in range(2):
        rates.take(caller("k1", per_key=1, per_entity=2))
        rates.take(caller("k2", per_key=1, per_entity=2))
    assert refusal(rates, caller("k3", per_key=1, per_entity=2)).metadata["scope"] == "entity"
    rates.take(caller("k4", "rival", per_key=1, per_entity=2))


def test_of_two_limits_the_longer_wait_is_told() -> None:
    rates = CallRates(Clock())
    for _ in range(2):
        rates.take(caller(per_key=1, per_entity=1))
    for who, scope in ((caller(per_key=1, per_entity=100), "key"), (caller(per_entity=1), "entity")):
        error = refusal(rates, who)
        assert (error.metadata["scope"], error.retry_seconds) == (scope, 1.0)


def test_a_call_that_is_refused_costs_nothing() -> None:
    clock = Clock()
    rates = CallRates(clock)
    for _ in range(2):
        rates.take(caller("k1", per_key=1, per_entity=100))
    for _ in range(500):
        refusal(rates, caller("k1", per_key=1, per_entity=100))
    for _ in range(198):
        rates.take(caller("k2", per_entity=100))
    refusal(rates, caller("k2", per_entity=100))


def test_who_has_no_limit_is_not_counted() -> None:
    rates = CallRates(Clock())
    for who in (ANYBODY, SERVICE, caller()):
        for _ in range(100):
            rates.take(who)
    assert len(rates) == 0


def test_the_memory_is_bounded_by_those_that_called_last() -> None:
    rates = CallRates(Clock(), most_buckets=3)
    for number in range(10):
        rates.take(caller(f"k{number}", per_key=1))
    assert len(rates) == 3
    rates.take(caller("k9", per_key=1))
    refusal(rates, caller("k9", per_key=1))


@given(st.integers(1, 50), st.lists(st.floats(0, 3), max_size=200))
def test_never_more_than_the_burst_and_the_rate(limit: int, pauses: list[float]) -> None:
    clock = Clock()
    rates, taken = CallRates(clock), 0
    for pause in pauses:
        clock.seconds += pause
        try:
            rates.take(caller(per_key=limit))
        except RateLimited as error:
            # The delay is exact: a moment before it is too early, and at its end it is time.
            began = clock.seconds
            clock.seconds = began + error.retry_seconds * 0.99
            refusal(rates, caller(per_key=limit))
            clock.seconds = began + error.retry_seconds + 1e-9
            rates.take(caller(per_key=limit))
        taken += 1
    assert taken <= 2 * limit + (clock.seconds - 1000.0) * limit + 1e-3


@given(st.floats(1e-6, 2))
def test_the_status_tells_the_delay_and_never_less(seconds: float) -> None:
    status = status_of(RateLimited("too often", "key", 3, seconds))
    ((_, raw),) = status.trailers
    from_wire = retry_delay(raw)
    assert seconds <= from_wire <= seconds + 1e-6


def retry_delay(raw: bytes) -> float:
    status = status_pb2.Status.FromString(raw)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
