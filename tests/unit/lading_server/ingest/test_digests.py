"""Many digests: all of them, once, in order, in batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lading_server.ingest.index.digests import DigestSet

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
