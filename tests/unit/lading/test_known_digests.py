"""Digests of many files, as far as they are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading._known_digests import KnownDigests

_DIGESTS = st.binary(min_size=32, max_size=32)


@given(st.lists(st.none() | _DIGESTS, max_size=20), st.data())
def test_it_is_as_a_list_would_be(digests: list[bytes | None], data: st.DataObject) -> None:
    known = KnownDigests(len(digests))
    expected: list[bytes | None] = [None] * len(digests)
    for at in data.draw(st.permutations(range(len(digests)))):
        known[at] = expected[at] = digests[at]
    assert [*known] == known[:] == expected
    begin, end = data.draw(st.tuples(st.integers(-25, 25), st.integers(-25, 25)))
    assert known[begin:end] == expected[begin:end]
    assert known.are_all == (None not in expected)
    assert known.are_any == any(digest is not None for digest in expected)
    assert [*known.unknown()] == [at for at, digest in enumerate(expected) if digest is None]
    if known.are_all:
        assert known.joined == b"".join(digest for digest in expected if digest is not None)
    for at in range(len(digests)):
        known[at] = None
        assert known[at] is None


def test_what_cannot_be_is_refused() -> None:
    known = KnownDigests(2)
    known[-1] = b"a" * 32
    assert [*known] == [None, b"a" * 32]
    with pytest.raises(ValueError, match="32 bytes and not 31"):
        known[0] = b"a" * 31
    for at in (2, -3):
        with pytest.raises(IndexError):
            known[at]
        with pytest.raises(IndexError):
            known[at] = b"a" * 32
