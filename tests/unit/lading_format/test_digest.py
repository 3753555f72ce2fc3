"""Digests and checksums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_format.digest import (
    DIGEST_BYTES,
    blake3_digest,
    check_raw_digest,
    format_digest,
    new_hasher,
    parse_digest,
    split_digests,
    xxh3_64,
)
from lading_format.errors import InvalidDigest

# From the BLAKE3 and xxHash projects: the digests of no bytes.
EMPTY_BLAKE3 = "b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
EMPTY_XXH3 = 0x2D06800538D394C2

raw_digests = st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)


def test_the_functions_are_blake3_and_xxh3_without_a_seed() -> None:
    assert format_digest(blake3_digest(b"")) == EMPTY_BLAKE3
    assert xxh3_64(b"") == EMPTY_XXH3


@given(st.lists(st.binary(max_size=100)))
def test_a_hasher_takes_bytes_in_portions(portions: list[bytes]) -> None:
    hasher = new_hasher()
    for portion in portions:
        hasher.update(memoryview(portion))
    assert hasher.digest() == blake3_digest(bytearray(b"".join(portions)))


@given(raw_digests)
def test_a_digest_is_parsed_from_what_it_is_written_as(raw: bytes) -> None:
    assert parse_digest(format_digest(raw)) == raw
    assert check_raw_digest(raw) is raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY_BLAKE3[3:],
        EMPTY_BLAKE3.upper(),
        EMPTY_BLAKE3 + "\n",
        EMPTY_BLAKE3[:-1],
        EMPTY_BLAKE3[:-2] + "  ",
        "b3:" + "٣" * 64,
        "sha256:" + "0" * 64,
    ],
)
def test_only_one_spelling_is_a_digest(text: str) -> None:
    with pytest.raises(InvalidDigest, match="64 lower-case hexadecimal"):
        parse_digest(text)


@given(st.binary(max_size=100).filter(lambda raw: len(raw) != DIGEST_BYTES))
def test_a_raw_digest_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(InvalidDigest, match=f"{len(raw)} bytes"):
        check_raw_digest(raw)


@given(st.lists(raw_digests), st.binary(min_size=1, max_size=DIGEST_BYTES - 1))
def test_packed_digests_are_split_only_if_none_is_cut_off(digests: list[bytes], rest: bytes) -> None:
    packed = b"".join(digests)
    assert split_digests(packed) == digests
    with pytest.raises(InvalidDigest, match="whole number"):
        split_digests(packed + rest)
