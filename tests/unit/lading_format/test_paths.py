"""What a path may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_format.errors import InvalidPath
from lading_format.paths import MAX_PATH_BYTES, check_path

# What the rules are about, and a letter of each length in UTF-8.
SUSPICIOUS = st.text(st.sampled_from("ab:./\\\0\né中𝄞\ud800"), max_size=12)


def is_valid(path: str) -> bool:
    """Section 7 of the design, word for word."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    parts = path.split("/")
    return (
        0 < len(encoded) <= MAX_PATH_BYTES
        and not {"", ".", ".."} & set(parts)
        and "\0" not in path
        and "\\" not in path
        and not (len(path) > 1 and path[1] == ":" and path[0].isascii() and path[0].isalpha())
    )


@given(SUSPICIOUS | st.text(max_size=40))
def test_a_path_is_taken_exactly_if_the_design_allows_it(path: str) -> None:
    try:
        check_path(path)
    except InvalidPath as error:
        assert not is_valid(path)
        assert error.metadata["rule"] in error.message
        error.message.encode()
        error.metadata["path"].encode()
    else:
        assert is_valid(path)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("", "empty"),
        ("/a", "absolute"),
        ("a/", "empty part"),
        ("a//b", "empty part"),
        (".", r"\. or \.\."),
        ("a/../b", r"\. or \.\."),
        ("a/.", r"\. or \.\."),
        ("a\0b", "NUL"),
        ("a\\b", "backslash"),
        ("C:", "drive"),
        ("c:windows/x", "drive"),
        ("a\udcff", "UTF-8"),
        ("é" * 513, "1026 bytes"),
        ("../" * 100_000, "300000 bytes"),
    ],
)
def test_a_refusal_names_the_rule_and_stays_short(path: str, rule: str) -> None:
    with pytest.raises(InvalidPath, match=rule) as caught:
        check_path(path)
    assert len(caught.value.message) < 500
    assert len(caught.value.metadata["path"]) <= MAX_PATH_BYTES


@pytest.mark.parametrize(
    "path", ["a", "...", ".a", "..a/b..", "1:b", "12:30", "é:", "ab:c", "x\ny", " ", "a" * 1024, "é" * 512, "𝄞" * 256]
)
def test_unusual_names_that_break_no_rule_are_taken(path: str) -> None:
    check_path(path)
