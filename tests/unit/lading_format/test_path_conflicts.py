"""Which paths do not go together."""

from __future__ import annotations

import unicodedata
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lading_format import paths as paths_module
from lading_format.errors import NotSorted, PathConflict
from lading_format.paths import PathConflicts, fold

# Letters that meet others by case or by normalization, and `!`, which sorts before the slash.
PARTS = st.text(
    st.sampled_from(["a", "A", "b", "!", "ß", "s", "ſ", "K", "k", "é", "e", "\u0301", "\u0345"]),
    min_size=1,
    max_size=3,
)
TREES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), unique=True, max_size=12)


def same_on_some_system(one: str, other: str) -> bool:
    """D145 of the Unicode standard, part by part."""

    def canonical(text: str) -> list[str]:
        parts = (unicodedata.normalize("NFD", part).casefold() for part in text.split("/"))
        return [unicodedata.normalize("NFD", part) for part in parts]

    return canonical(one) == canonical(other)


def conflicting_pairs(paths: list[str]) -> set[tuple[str, str]]:
    """Every pair of files or directories that cannot be in one tree, by comparing each with each."""
    directories = {path[:at] for path in paths for at, letter in enumerate(path) if letter == "/"}
    nodes = directories | set(paths)
    pairs = {pair for pair in combinations(sorted(nodes), 2) if same_on_some_system(*pair)}
    return pairs | {(file, file) for file in set(paths) & directories}


def first_conflict(paths: list[str]) -> PathConflict | None:
    conflicts = PathConflicts()
    try:
        for path in sorted(paths):
            conflicts.add(path)
    except PathConflict as error:
        return error
    return None


@given(TREES)
@example(["a", "a!", "a/b"])
@example(["a/b/c", "a/b!/c", "a/B/c"])
@example(["x/y/z/1", "X/y/z/2"])
@example(["strasse/1", "straße/2"])
@example(["k", "\u212a"])
def test_a_conflict_is_found_exactly_if_comparing_each_with_each_finds_one(paths: list[str]) -> None:
    found = first_conflict(paths)
    expected = conflicting_pairs(paths)
    assert (found is not None) == bool(expected)
    if found is not None and (found.metadata["other"], found.metadata["path"]) not in expected:
        # A file, and a path that needs a directory of its name.
        assert (found.metadata["other"], found.metadata["other"]) in expected
        assert found.metadata["path"].startswith(found.metadata["other"] + "/")


@given(TREES)
def test_names_beyond_those_kept_as_they_are_conflict_all_the_same(paths: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths_module, "_EXACT_NAMES", 1)
        found = first_conflict(paths)
    assert (found is not None) == bool(conflicting_pairs(paths))
    if found is not None:
        assert any(found.metadata["path"] == path or path.startswith(found.metadata["path"] + "/") for path in paths)


@given(TREES)
def test_paths_in_another_order_are_refused_as_unsorted(paths: list[str]) -> None:
    ordered = sorted(paths, reverse=True)
    conflicts = PathConflicts()
    for path in ordered[:1]:
        conflicts.add(path)
    for path in ordered[1:]:
        with pytest.raises(NotSorted):
            conflicts.add(path)


def test_the_same_path_twice_is_a_conflict() -> None:
    conflicts = PathConflicts()
    conflicts.add("a/b")
    with pytest.raises(PathConflict, match="twice"):
        conflicts.add("a/b")


def test_both_paths_are_named_while_few_names_are_open() -> None:
    found = first_conflict(["data/Cafe\u0301/1", "data/caf\u00e9/1", "data/z"])
    assert found is not None
    assert found.metadata == {"path": "data/caf\u00e9", "other": "data/Cafe\u0301"}


def test_a_conflict_in_a_directory_of_very_many_names_is_found() -> None:
    names = [f"{number:06d}.jpeg" for number in range(70_000)]
    assert first_conflict(names) is None
    early, late = first_conflict([*names, "000007.JPEG"]), first_conflict([*names, "zz", "Zz"])
    assert early is not None
    assert {early.metadata["path"], early.metadata["other"]} == {"000007.jpeg", "000007.JPEG"}
    assert late is not None
    assert late.metadata == {"path": "zz", "other": "zz"}


def test_deep_directories_that_hold_one_name_each_are_not_remembered() -> None:
    conflicts = PathConflicts()
    for number in range(1000):
        conflicts.add(f"{number:04d}/" + "/".join("abcdefgh" * 50))
    names = sum(len(directory.names) for directory in conflicts._open)
    assert names == 1000


def test_a_long_path_does_not_make_a_long_message() -> None:
    found = first_conflict(["é" * 500, "É" * 500])
    assert found is not None
    assert len(found.message.encode()) < 1200


@given(st.text())
@example("α\u0345\u0301")
def test_folding_again_changes_nothing_that_normalizing_does_not(text: str) -> None:
    assert fold(unicodedata.normalize("NFC", text)) == fold(unicodedata.normalize("NFD", text)) == fold(text)
