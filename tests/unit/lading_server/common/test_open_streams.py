"""How many streams may be open: of the server, of an entity and of a key."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from lading_server.common.allowances import Allowance, Allowances
from lading_server.common.callers import ANYBODY, Principal
from lading_server.common.errors import TooManyStreams
from lading_server.common.open_streams import OpenStreams
from lading_server.common.roles import Role


def caller(key: str, entity: str = "acme") -> Principal:
    limits = Allowances(Allowance(streams=3), Allowance(streams=2))
    return Principal("ann", entity, key, Role.MEMBER, limits)


def refusal(streams: OpenStreams, who: Principal) -> dict[str, str]:
    with pytest.raises(TooManyStreams) as caught, streams.one_more(who):
        raise AssertionError("it was let in")
    return dict(caught.value.metadata)


def test_each_scope_has_its_limit_and_the_error_says_which() -> None:
    told: list[int] = []
    streams = OpenStreams(5, told.append)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(streams.one_more(caller("k1")))
        assert refusal(streams, caller("k1")) == {"scope": "key", "limit": "2"}
        stack.enter_context(streams.one_more(caller("k2")))
        assert refusal(streams, caller("k2")) == {"scope": "entity", "limit": "3"}
        for _ in range(2):
            stack.enter_context(streams.one_more(caller("k3", "rival")))
        assert refusal(streams, ANYBODY) == {"scope": "server", "limit": "5"}
    assert told == [1, 2, 3, 4, 5, 4, 3, 2, 1, 0]


def test_what_ended_makes_room_and_is_forgotten() -> None:
    streams = OpenStreams(100, lambda count: None)
    for number in range(50):
        with streams.one_more(caller(f"k{number}", f"e{number}")):
            assert len(streams) == 1
        with pytest.raises(KeyError), streams.one_more(caller("k")):
            raise KeyError
    assert len(streams) == 0
    assert not streams._open


def test_who_asks_without_a_key_is_bounded_by_the_server_alone() -> None:
    streams = OpenStreams(10, lambda count: None)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(streams.one_more(ANYBODY))
        assert refusal(streams, ANYBODY)["scope"] == "server"
