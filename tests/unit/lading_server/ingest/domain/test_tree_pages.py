"""Pages of trees: what goes in comes out, and similar trees share pages."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_format.tree import FileEntry, ReferenceEntry, TreeEntry, sort_key
from lading_server.common.errors import CorruptRecord
from lading_server.ingest.domain.tree_pages import (
    PageBuilder,
    PageSummary,
    TreePage,
    TreeTotals,
    decode_page,
    decode_tree_record,
    encode_tree_record,
    page_blobs,
)

paths = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\\/"), min_size=1, max_size=40)
ascii_words = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
entries = st.one_of(
    st.builds(FileEntry, paths, st.binary(min_size=32, max_size=32), st.integers(0, 2**63), st.booleans()),
    st.builds(ReferenceEntry, paths, ascii_words, ascii_words, st.none() | st.integers(0, 2**63)),
)


def pages_of(tree: Sequence[TreeEntry]) -> list[TreePage]:
    builder = PageBuilder()
    pages = [page for entry in tree if (page := builder.add(entry)) is not None]
    last = builder.finish()
    return pages if last is None else [*pages, last]


def tree_of(count: int) -> list[FileEntry]:
    rng = random.Random(3)
    return [FileEntry(f"images/{index:07}.png", rng.randbytes(32), index, False) for index in range(count)]


@given(st.lists(entries, max_size=60, unique_by=lambda entry: entry.path))
def test_pages_give_back_the_entries_in_order(tree: list[TreeEntry]) -> None:
    tree.sort(key=lambda entry: sort_key(entry.path))
    assert [entry for page in pages_of(tree) for entry in decode_page(page.payload)] == tree


def test_a_page_knows_its_first_path_and_how_many_entries_it_has() -> None:
    for page in pages_of(tree_of(5000)):
        decoded = decode_page(page.payload)
        assert page.first_path == sort_key(decoded[0].path)
        assert page.entry_count == len(decoded)
        assert len(page.payload) < (256 << 10) + 2000


def test_ten_changes_in_a_large_tree_leave_all_but_a_few_pages_alone() -> None:
    before = tree_of(50_000)
    after = list(before)
    rng = random.Random(4)
    for index in rng.sample(range(len(after)), 10):
        after[index] = after[index]._replace(digest=rng.randbytes(32))
    del after[25_000]
    after.insert(10_000, FileEntry("images/0009999b.png", rng.randbytes(32), 1, False))
    old = {page.digest for page in pages_of(before)}
    new = {page.digest for page in pages_of(after)}
    assert len(old) > 40
    assert len(new - old) <= 14


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_page_are_corrupt_and_nothing_worse(payload: bytes) -> None:
    for data in (payload, b"\x01" + payload):
        try:
            decode_page(data)
        except CorruptRecord:
            continue


def test_a_cut_page_is_corrupt() -> None:
    (page,) = pages_of([FileEntry("a", bytes(32), 1, False)])
    for length in range(2, len(page.payload)):
        with pytest.raises(CorruptRecord):
            decode_page(page.payload[:length])


def test_a_tree_record_gives_back_totals_and_pages() -> None:
    totals = TreeTotals(b"\7" * 32, 3, 1, 99)
    pages = [PageSummary(b"a", b"\1" * 32, 3), PageSummary("ü/ü".encode(), b"\2" * 32, 1)]
    assert decode_tree_record(encode_tree_record(totals, pages)) == (totals, pages)
    for length in (0, 1, 40, 80):
        with pytest.raises(CorruptRecord):
            decode_tree_record(encode_tree_record(totals, pages)[:length])


@given(st.lists(entries, max_size=60, unique_by=lambda entry: entry.path))
def test_the_files_of_pages_are_found_without_reading_the_rest(tree: list[TreeEntry]) -> None:
    found = [digest for page in pages_of(tree) for digest in page_blobs(page.payload)]
    assert found == [entry.digest for entry in tree if isinstance(entry, FileEntry)]


@pytest.mark.parametrize("payload", [b"", b"\x02", b"\x01\x00", b"\x01\x00\x01\x00a" + b"d" * 31])
def test_what_is_no_page_has_no_files(payload: bytes) -> None:
    with pytest.raises(CorruptRecord):
        page_blobs(payload)
