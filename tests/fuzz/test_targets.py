"""Every fuzz target, with what Hypothesis makes up. `make fuzz` looks longer, and where the code has not been yet."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import targets
from tests.fuzz.packs import mutated, sealed_pack
from tests.fuzz.targets import TARGETS, mutated_packs, packs, queries, references, registry_page_tokens, tree_pages

# Bytes, and texts of what the little languages are made of.
_SYNTAX = st.text(st.sampled_from("./:@-_ \\~\"'=<>!vb3 acmeZ019\0\n\u00e9\u212a\ud800"), max_size=60)
_TEXTS = (st.text(max_size=200) | _SYNTAX).map(lambda text: text.encode(errors="surrogatepass"))
_ANY = st.binary(max_size=400) | _TEXTS

_CHANGE = st.builds(struct.Struct("<HBH").pack, st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0xFFFF))


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @given(_ANY)
    @settings(max_examples=150, deadline=None)
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@given(st.lists(_CHANGE, max_size=12).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_a_pack_that_was_changed(changes: bytes) -> None:
    mutated_packs(changes)


@given(st.integers(0, len(sealed_pack())), st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_a_pack_that_ends_otherwise(cut: int, tail: bytes) -> None:
    packs(sealed_pack()[:cut] + tail)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
@example([[]] * 3)
@settings(max_examples=150, deadline=None)
def test_a_page_token_of_any_json(position: object) -> None:
    registry_page_tokens(repr(position).replace("'", '"').encode(errors="replace"))


def test_a_page_token_that_is_nested_too_deep_to_be_read() -> None:
    registry_page_tokens(b"[" * 200_000)
    registry_page_tokens(b'["' + b"x" * 1_000_000 + b'",1]')
    registry_page_tokens(b'["a",' + b"9" * 100_000 + b"]")


@pytest.mark.parametrize("text", ["a/b/c:v1", "lading://a/b/c@b3:" + "0" * 64, "a:" * 1000, "v1:v1", "@" * 500])
def test_references_that_are_almost_right(text: str) -> None:
    references(text.encode())


@pytest.mark.parametrize("text", ['tag="', "metadata.a > 1e9999", "name~" + "(" * 4000, "=" * 4096, 'x="\\' * 500])
def test_queries_that_are_almost_right(text: str) -> None:
    queries(text.encode())


def test_a_tree_page_that_promises_more_than_it_has() -> None:
    for kind in range(6):
        tree_pages(struct.pack("<BH", kind, 0xFFFF) + b"short")
        tree_pages(bytes([kind]) + b"\xff" * 80)


def test_a_pack_that_is_what_it_should_be_is_read_whole() -> None:
    assert mutated(b"") == sealed_pack()
    packs(sealed_pack())


def test_a_rule_that_is_broken_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(targets, "check_path", lambda path: None)
    with pytest.raises(AssertionError):
        targets.paths(b"../up")
    monkeypatch.setattr(targets, "read_trailer", fail)
    with pytest.raises(KeyError):
        targets.packs(sealed_pack())
