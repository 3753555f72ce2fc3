"""How much may be kept and what goes first, for any sizes and times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lading._cache.space import (
    BLOCK_BYTES,
    Entry,
    allowed_bytes,
    kept_bytes,
    reserve_bytes,
    space_of,
    victims,
)

SIZES = st.integers(0, 1 << 50)
ENTRIES = st.lists(
    st.builds(Entry, st.text("0123456789abcdef", min_size=4, max_size=4), st.integers(1, 1 << 40), st.integers(0, 99)),
    unique_by=lambda entry: entry.name,
    max_size=40,
)


@given(ENTRIES, SIZES)
def test_what_is_left_fits_and_no_more_went_than_had_to(entries: list[Entry], keep_bytes: int) -> None:
    gone = victims(entries, keep_bytes)
    left = set(entries) - set(gone)
    assert sum(entry.size_bytes for entry in left) <= keep_bytes or not left
    if gone:
        # Without the last that went, there was too much.
        assert sum(entry.size_bytes for entry in left) + gone[-1].size_bytes > keep_bytes


@given(ENTRIES, SIZES)
def test_nothing_that_went_was_used_after_what_stayed(entries: list[Entry], keep_bytes: int) -> None:
    gone = victims(entries, keep_bytes)
    left = set(entries) - set(gone)
    assert all(one.used_ns <= other.used_ns for one in gone for other in left)


@given(ENTRIES, SIZES, st.randoms())
def test_every_process_chooses_the_same(entries: list[Entry], keep_bytes: int, random: object) -> None:
    shuffled = list(entries)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert victims(shuffled, keep_bytes) == victims(entries, keep_bytes)


@given(SIZES, SIZES, SIZES, SIZES)
def test_a_cache_never_holds_more_than_its_limit_nor_what_has_to_stay_free(
    limit_bytes: int, used_bytes: int, free_bytes: int, file_system_bytes: int
) -> None:
    reserved_bytes = reserve_bytes(file_system_bytes)
    allowed = allowed_bytes(limit_bytes, used_bytes, free_bytes, reserved_bytes)
    assert 0 <= allowed <= limit_bytes
    # Whoever removes all that is too much has left free what has to be, if that is in the cache's power.
    free_then_bytes = free_bytes + used_bytes - min(allowed, used_bytes)
    assert free_then_bytes >= min(reserved_bytes, free_bytes + used_bytes)
    assert kept_bytes(allowed) <= allowed


@given(SIZES)
def test_a_file_takes_whole_blocks_and_one_at_least(size_bytes: int) -> None:
    space_bytes = space_of(size_bytes)
    assert space_bytes >= max(size_bytes, BLOCK_BYTES)
    assert space_bytes % BLOCK_BYTES == 0
    assert space_bytes - size_bytes <= BLOCK_BYTES


def test_a_large_disk_keeps_ten_gibibytes_free_and_a_small_one_a_twentieth() -> None:
    assert reserve_bytes(1 << 40) == 10 << 30
    assert reserve_bytes(20 << 30) == 1 << 30
