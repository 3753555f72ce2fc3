"""Many digests: all of them, once, in order, in batches; and those of a window, the smallest that fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lading_server.ingest.index.digests import DigestSet, DigestWindow

digests = st.lists(st.binary(min_size=32, max_size=32) | st.binary(min_size=1, max_size=1).map(lambda b: b * 32))


@given(digests, st.integers(1, 20))
def test_batches_have_every_digest_once_and_in_order(some: list[bytes], size: int) -> None:
    batches = list(DigestSet(some).batches(size))
    assert [digest for batch in batches for digest in batch] == sorted(set(some))
    assert all(len(batch) >= size for batch in batches[:-1])
    assert all(batches)


def test_they_can_be_read_again() -> None:
    some = DigestSet([b"b" * 32, b"a" * 32])
    assert list(some.batches(1)) == list(some.batches(1)) == [[b"a" * 32], [b"b" * 32]]


@given(digests, st.integers(1, 5), st.binary(min_size=32, max_size=32) | st.just(b""))
def test_a_window_has_every_digest_up_to_its_end_and_windows_together_have_all(
    some: list[bytes], limit: int, after: bytes
) -> None:
    wanted = {digest for digest in some if digest > after}
    seen: set[bytes] = set()
    at: bytes | None = after
    while at is not None:
        window = DigestWindow(at, limit)
        for digest in some:
            window.update([digest])
        here = {digest for digest in wanted if digest > at and (window.last is None or digest <= window.last)}
        assert len(here) <= 2 * limit
        assert all(digest in window for digest in here)
        assert not any(digest in window for digest in wanted if digest <= at)
        seen |= here
        assert window.last is None or window.last > at
        at = window.last
    assert seen == wanted


def test_a_window_ends_where_it_is_told_to_and_finds_whole_digests_only() -> None:
    first, second, third = (bytes([1]) * 31 + bytes([n]) for n in (1, 2, 3))
    window = DigestWindow(b"", 10, last=second)
    window.update([third, second, first])
    assert first in window
    assert second in window
    assert third not in window
    # Found in the bytes of two neighbours, and in none of them.
    assert (second + first)[1:33] not in window
    assert b"" not in DigestWindow(b"", 1)
