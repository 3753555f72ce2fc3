"""What callers may bring as JSON and Markdown, and what of it can be searched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_server.common.registry_errors import InvalidMetadata, TextTooLong
from lading_server.registry.domain.documents import canonical, check_description, parse_metadata, searchable_fields

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
_OBJECTS = st.dictionaries(st.text(max_size=5), _JSON, max_size=5)


@given(_OBJECTS)
def test_an_object_is_kept_with_what_it_says(value: dict[str, Any]) -> None:
    metadata = parse_metadata(json.dumps(value), "metadata_json", 1 << 20)
    assert json.loads(metadata.text) == value
    assert parse_metadata(metadata.text, "metadata_json", 1 << 20) == metadata


@given(_OBJECTS)
def test_what_can_be_searched_is_something_that_every_database_keeps(value: dict[str, Any]) -> None:
    for key, found in searchable_fields(value).items():
        assert len(key) <= 256
        assert "\0" not in key
        assert isinstance(found, float | str)
        assert isinstance(found, float) or (len(found) <= 256 and "\0" not in found)


def test_nested_keys_have_dots_and_lists_and_nulls_have_none() -> None:
    value = {"a": {"b": {"c": 1}, "d": "x"}, "list": [1, {"e": 2}], "none": None, "yes": True, "no": False}
    assert searchable_fields(value) == {"a.b.c": 1.0, "a.d": "x", "yes": "true", "no": "false"}


def test_of_two_keys_that_read_the_same_the_later_is_found() -> None:
    assert searchable_fields({"a.b": 1, "a": {"b": 2}}) == {"a.b": 2.0}


def test_what_is_too_long_to_compare_is_not_found() -> None:
    value = {"x": "y" * 257, "k" * 257: 1, "fits": "y" * 256, "huge": 10**400}
    assert searchable_fields(value) == {"fits": "y" * 256}


@pytest.mark.parametrize(
    "text", ["[]", "1", "null", "{", '{"a":NaN}', '{"a":Infinity}', '{"a":1e999}', '{"a":"\\ud800"}', '{"\\udfff":1}']
)
def test_what_is_no_object_that_can_be_kept_is_refused(text: str) -> None:
    with pytest.raises(InvalidMetadata) as error:
        parse_metadata(text, "metadata_json", 1 << 20)
    assert error.value.metadata == {"field": "metadata_json"}


def test_an_object_may_be_as_deep_and_as_large_as_the_limits_and_no_more() -> None:
    deep = '{"a":' * 32 + "1" + "}" * 32
    assert parse_metadata(deep, "metadata_json", len(deep)).text == deep
    with pytest.raises(InvalidMetadata, match="bytes"):
        parse_metadata(deep, "metadata_json", len(deep) - 1)
    with pytest.raises(InvalidMetadata, match="deeper"):
        parse_metadata(f'{{"a":{deep}}}', "metadata_json", 1 << 20)


def test_an_empty_text_is_an_empty_object() -> None:
    assert parse_metadata("", "metadata_json", 2).text == canonical({}) == "{}"


def test_a_card_is_counted_in_bytes_and_loses_its_nuls() -> None:
    assert check_description("é" * 4, 8) == "é" * 4
    with pytest.raises(TextTooLong) as error:
        check_description("é" * 5, 8)
    assert error.value.metadata == {"limit": "8"}
    assert check_description("a\0b", 8) == "a\N{REPLACEMENT CHARACTER}b"
