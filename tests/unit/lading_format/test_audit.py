"""The chain of events, held against bytes that are written out here as docs/design.md writes them down."""

from __future__ import annotations

from typing import Any

import blake3
import pytest

from lading_format.audit import CHAIN_START, ChainedEvent, chain_hash

EVENT = ChainedEvent(
    sequence=7,
    revision=12,
    time_ms=1_800_000_000_123,
    actor="ada",
    kind="version.updated",
    project="vision",
    collection="digits",
    version_uid="0189c0ffee0000000000000000000000",
    run="",
    before='{"description":"a"}',
    after='{"description":"Zürich\\n"}',
    origin="10.0.0.7",
)


def test_the_hash_is_of_the_hash_before_and_a_json_list_to_the_byte() -> None:
    listed = (
        b'[7,12,1800000000123,"ada","version.updated","vision","digits","0189c0ffee0000000000000000000000","",'
        b'"{\\"description\\":\\"a\\"}","{\\"description\\":\\"Z\xc3\xbcrich\\\\n\\"}","10.0.0.7"]'
    )
    assert chain_hash(b"\x11" * 32, EVENT) == blake3.blake3(b"\x11" * 32 + listed).digest()


def test_only_what_json_demands_is_escaped() -> None:
    odd = EVENT._replace(actor='"\\/\b\f\n\r\t\x00\x1f\x7f\u2028\U0001f600')
    escaped = b'"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\xe2\x80\xa8\xf0\x9f\x98\x80"'
    listed = (
        b"[7,12,1800000000123,"
        + escaped
        + b',"version.updated","vision","digits","0189c0ffee0000000000000000000000","",'
        + b'"{\\"description\\":\\"a\\"}","{\\"description\\":\\"Z\xc3\xbcrich\\\\n\\"}","10.0.0.7"]'
    )
    assert chain_hash(CHAIN_START, odd) == blake3.blake3(bytes(32) + listed).digest()


@pytest.mark.parametrize("field", ChainedEvent._fields)
def test_every_field_is_in_the_hash(field: str) -> None:
    value = getattr(EVENT, field)
    change: dict[str, Any] = {field: value + 1 if isinstance(value, int) else f"{value}."}
    other = EVENT._replace(**change)
    assert chain_hash(CHAIN_START, other) != chain_hash(CHAIN_START, EVENT)


def test_text_cannot_move_from_one_field_to_the_next() -> None:
    one, other = EVENT._replace(project="ab", collection="c"), EVENT._replace(project="a", collection="bc")
    assert chain_hash(CHAIN_START, one) != chain_hash(CHAIN_START, other)
