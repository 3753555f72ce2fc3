"""Entries, their lines, and a tree's digest."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_format.digest import DIGEST_BYTES, blake3_digest
from lading_format.errors import InvalidDigest, InvalidPath, InvalidReference, NotSorted, PathConflict
from lading_format.tree import (
    FileEntry,
    ReferenceEntry,
    TreeEntry,
    TreeHasher,
    check_reference,
    listing_line,
    sort_key,
)

B3SUM = shutil.which("b3sum")
ZERO = bytes(DIGEST_BYTES)
HEX = "0" * 64


def digest_of(*entries: TreeEntry) -> bytes:
    hasher = TreeHasher()
    for entry in entries:
        hasher.add(entry)
    return hasher.finish()


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (FileEntry("a b", ZERO, 1, False), f"{HEX}  a b\n"),
        (FileEntry("bin/é", ZERO, 1, True), f"{HEX} xbin/é\n"),
        (FileEntry("x\ny\rz", ZERO, 1, False), f"\\{HEX}  x\\ny\\rz\n"),
        (FileEntry("x\ny", ZERO, 1, True), f"\\{HEX} xx\\ny\n"),
        (ReferenceEntry("a", "s3://b/k", "etag:1", 5), "ref s3://b/k etag:1  a\n"),
        (ReferenceEntry("a\n", "s3://b/k", "", None), "\\ref s3://b/k -  a\\n\n"),
    ],
)
def test_the_lines_are_those_of_decision_0001(entry: TreeEntry, line: str) -> None:
    assert listing_line(entry) == line.encode()


PATHS = st.text(st.sampled_from("x \n\r-é"), min_size=1, max_size=3)
WORDS = st.text(st.sampled_from("x-:"), max_size=3)
ENTRIES = st.one_of(
    st.builds(FileEntry, PATHS, st.sampled_from([ZERO, b"\x01" * 32]), st.just(1), st.booleans()),
    st.builds(ReferenceEntry, PATHS, WORDS.map("s3:x{}".format), WORDS.filter(lambda word: word != "-"), st.none()),
)


@given(ENTRIES, ENTRIES)
def test_different_entries_have_different_lines(one: TreeEntry, other: TreeEntry) -> None:
    assert (listing_line(one) == listing_line(other)) == (one == other)


def test_an_empty_tree_has_the_digest_of_no_bytes() -> None:
    assert TreeHasher().finish() == blake3_digest(b"")


@given(st.dictionaries(st.text(st.sampled_from("abé \n!"), min_size=3, max_size=3).map("d/{}".format), st.booleans()))
def test_the_digest_is_that_of_the_joined_lines(modes: dict[str, bool]) -> None:
    hasher = TreeHasher()
    lines = []
    for path in sorted(modes, key=sort_key):
        entry = FileEntry(path, blake3_digest(path.encode()), 3, modes[path])
        hasher.add(entry)
        lines.append(listing_line(entry))
    assert hasher.finish() == blake3_digest(b"".join(lines))
    assert (hasher.file_count, hasher.size_bytes) == (len(lines), 3 * len(lines))


def test_a_tree_of_thousands_of_entries_has_the_digest_of_all_lines() -> None:
    entries = [FileEntry(f"{number:05d}", blake3_digest(b"%d" % number), 1, False) for number in range(3000)]
    assert digest_of(*entries) == blake3_digest(b"".join(map(listing_line, entries)))


@pytest.mark.skipif(B3SUM is None, reason="b3sum is not installed (Debian: apt-get install b3sum)")
def test_b3sum_and_sort_alone_give_the_same_digest(tmp_path: Path) -> None:
    assert B3SUM is not None
    version = tuple(int(part) for part in subprocess.check_output([B3SUM, "--version"]).split()[1].split(b"."))
    names = ["weights.bin", "config.json", "a b/é.txt", "a b!", "deep/er/x\ny", "-dash", "~", "Z", "\U0001d11e"]
    if version >= (1, 5, 5):
        names.append("carriage\rreturn")
    hasher = TreeHasher()
    for name in sorted(names, key=sort_key):
        data = name.encode() * 1000
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
        hasher.add(FileEntry(name, blake3_digest(data), len(data), False))
    command = "find . -type f -printf '%P\\0' | sort -z | xargs -0 b3sum -- | b3sum --no-names"
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    printed = subprocess.check_output(["sh", "-c", command], cwd=tmp_path, env=environment, text=True)
    assert printed.strip() == hasher.finish().hex()


def test_a_reference_that_moved_makes_another_tree() -> None:
    trees = {
        digest_of(ReferenceEntry("a", uri, checksum, 5))
        for uri in ("s3://old/a", "s3://new/a")
        for checksum in ("", "etag:1", "etag:2")
    }
    assert len(trees) == 6


def test_files_and_references_are_counted_apart() -> None:
    hasher = TreeHasher()
    hasher.add(FileEntry("a", ZERO, 5, False))
    hasher.add(ReferenceEntry("b", "s3://b", "", 100))
    assert (hasher.file_count, hasher.reference_count, hasher.size_bytes) == (1, 1, 5)


def test_entries_out_of_order_are_refused_by_bytes_and_not_by_locale() -> None:
    with pytest.raises(NotSorted) as caught:
        digest_of(FileEntry("a", ZERO, 1, False), FileEntry("Z", ZERO, 1, False))
    assert caught.value.metadata == {"path": "Z"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_code_points_sort_as_their_bytes_do(texts: list[str]) -> None:
    assert sorted(texts) == sorted(texts, key=sort_key)


def test_a_tree_refuses_what_its_entries_must_not_be() -> None:
    with pytest.raises(InvalidPath):
        digest_of(FileEntry("../a", ZERO, 1, False))
    with pytest.raises(InvalidDigest):
        digest_of(FileEntry("a", ZERO[1:], 1, False))
    with pytest.raises(InvalidReference):
        digest_of(ReferenceEntry("a", "nowhere", "", None))
    with pytest.raises(PathConflict):
        digest_of(FileEntry("A", ZERO, 1, False), ReferenceEntry("a", "s3://b", "", None))


@pytest.mark.parametrize("uri", ["s3://bucket/key", "https://h/p?q=1#f", "hf:x", "urn:a:b", "s3:" + "x" * 4093])
@pytest.mark.parametrize("checksum", ["", "etag:1", "--", "x" * 256])
def test_references_that_say_where_something_is_are_taken(uri: str, checksum: str) -> None:
    check_reference(ReferenceEntry("a", uri, checksum, 0))


@pytest.mark.parametrize(
    ("uri", "checksum", "size_bytes"),
    [
        ("", "", None),
        ("bucket/key", "", None),
        ("s3:", "", None),
        ("C:\\data", "", None),
        ("s3://a b", "", None),
        ("s3://é", "", None),
        ("s3://a\n", "", None),
        ("s3:" + "x" * 4094, "", None),
        ("s3://a", "-", None),
        ("s3://a", "a b", None),
        ("s3://a", "x\n", None),
        ("s3://a", "x" * 257, None),
        ("s3://a", "", -1),
    ],
)
def test_references_that_a_line_cannot_hold_are_refused(uri: str, checksum: str, size_bytes: int | None) -> None:
    with pytest.raises(InvalidReference) as caught:
        check_reference(ReferenceEntry("the/path", uri, checksum, size_bytes))
    assert caught.value.metadata == {"path": "the/path"}
