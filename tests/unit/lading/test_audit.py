"""A chain of events, taken one by one: what is right, and what is found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading._errors import InvalidArgument
from lading._registry.audit import Chain, Head, seen_head
from lading._registry.models import AuditReport
from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash

Link = tuple[ChainedEvent, bytes]


def event(sequence: int, **fields: Any) -> ChainedEvent:
    dull = ChainedEvent(sequence, sequence * 3, 1_800_000_000_000, "ada", "alias.set", "p", "c", "", "", "", "{}", "")
    return dull._replace(**fields)


def chained(*events: ChainedEvent) -> list[Link]:
    links, previous = [], CHAIN_START
    for one in events:
        previous = chain_hash(previous, one)
        links.append((one, previous))
    return links


def verified(links: list[Link], seen: Head | None = None) -> AuditReport:
    chain = Chain(seen) if seen is not None else Chain()
    for one, told in links:
        if not chain.accepts(one, told):
            break
    return chain.report()


GOOD = chained(*(event(number) for number in range(1, 6)))


def test_a_chain_as_it_was_written_is_right_and_its_head_is_told() -> None:
    assert verified(GOOD) == AuditReport(True, 5, None, "", 5, GOOD[4][1].hex())
    assert verified([]) == AuditReport(True, 0, None, "", 0, "0" * 64)


@given(st.integers(0, 4), st.sampled_from(ChainedEvent._fields), st.integers(1, 1 << 40), st.text(min_size=1))
def test_whatever_is_altered_is_found_where_it_is(at: int, field: str, number: int, text: str) -> None:
    one, told = GOOD[at]
    old = getattr(one, field)
    change: dict[str, Any] = {field: old + number if isinstance(old, int) else old + text}
    altered = one._replace(**change)
    report = verified([*GOOD[:at], (altered, told), *GOOD[at + 1 :]])
    assert (report.ok, report.first_bad_sequence, report.events) == (False, at + 1, at)
    assert report.reason
    assert report.head_hash == (GOOD[at - 1][1] if at else CHAIN_START).hex()


@pytest.mark.parametrize("at", range(4))
def test_a_missing_event_and_two_that_changed_places_are_found(at: int) -> None:
    gone = verified([*GOOD[:at], *GOOD[at + 1 :]])
    assert (gone.ok, gone.first_bad_sequence) == (False, at + 1)
    assert "missing" in gone.reason
    swapped = verified([*GOOD[:at], GOOD[at + 1], GOOD[at], *GOOD[at + 2 :]])
    assert (swapped.ok, swapped.first_bad_sequence) == (False, at + 1)


def test_an_event_that_was_put_in_is_found_however_it_is_numbered() -> None:
    twice = verified([*GOOD[:3], GOOD[2], *GOOD[3:]])
    assert (twice.first_bad_sequence, "not where it belongs" in twice.reason) == (4, True)
    forged = event(4, actor="eve")
    # With a hash that is right for it, the one after it is not the one that follows it.
    put_in = verified([*GOOD[:3], (forged, chain_hash(GOOD[2][1], forged)), (event(5), GOOD[3][1])])
    assert put_in.first_bad_sequence == 5
    added = verified([*GOOD, (event(6), b"\x00" * 32)])
    assert added.first_bad_sequence == 6


def test_a_cut_off_end_is_found_by_who_saw_it() -> None:
    assert verified(GOOD[:3]).ok
    report = verified(GOOD[:3], Head(5, GOOD[4][1]))
    assert (report.ok, report.first_bad_sequence, report.events) == (False, 4, 3)
    assert "event 5 was seen before" in report.reason
    assert verified(GOOD, Head(5, GOOD[4][1])).ok
    assert verified(GOOD, Head(2, GOOD[1][1])).ok
    assert not verified([], Head(1, GOOD[0][1])).ok


def test_a_log_that_was_written_anew_is_found_by_who_saw_a_head() -> None:
    anew = chained(*(event(number, actor="eve" if number == 2 else "ada") for number in range(1, 6)))
    assert verified(anew).ok
    report = verified(anew, Head(4, GOOD[3][1]))
    assert (report.ok, report.first_bad_sequence) == (False, 4)
    assert "anew" in report.reason


def test_a_head_is_a_sequence_and_a_hash() -> None:
    assert seen_head(None, None) == Head(0, CHAIN_START)
    assert seen_head(0, "0" * 64) == Head(0, CHAIN_START)
    assert seen_head(3, "AB" * 32) == Head(3, b"\xab" * 32)
    for sequence, hash_ in ((3, None), (None, "ab" * 32), (3, "ab"), (3, "x" * 64), (-1, "ab" * 32), (0, "ab" * 32)):
        with pytest.raises(InvalidArgument):
            seen_head(sequence, hash_)
