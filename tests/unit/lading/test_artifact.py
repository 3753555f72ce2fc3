"""What an artifact holds, and what it refuses."""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lading
from lading._artifact import _Names
from lading._scan import scan_mapping
from lading_format.errors import FormatError
from lading_format.paths import PathConflicts, check_path


@pytest.fixture
def artifact() -> lading.Artifact:
    return lading.Artifact("digits", type="dataset")


def make(root: Path, *paths: str) -> Path:
    """Make files that hold their own paths."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def contents(artifact: lading.Artifact) -> dict[str, str]:
    """What the artifact's files hold; `-> URI` for references."""
    return {
        path: f"-> {entry.uri}" if isinstance(entry, lading.Reference) else Path(entry).read_text()
        for path, entry in artifact.entries().items()
    }


def test_files_directories_and_references_come_together(artifact: lading.Artifact, tmp_path: Path) -> None:
    make(tmp_path, "one", "data/a.txt", "data/sub/b.txt", "data/c.log")
    artifact.add_file(tmp_path / "one")
    artifact.add_file(tmp_path / "one", "other/name")
    artifact.add_dir(tmp_path / "data", exclude=["*.log"])
    artifact.add_dir(tmp_path / "data", "copy/", include=["sub"])
    artifact.add_reference("s3://bucket/key.bin", checksum="etag", size_bytes=5)
    artifact.add_reference("s3://bucket/key.bin", "elsewhere/k")
    assert contents(artifact) == {
        "one": "one",
        "other/name": "one",
        "a.txt": "data/a.txt",
        "sub/b.txt": "data/sub/b.txt",
        "copy/sub/b.txt": "data/sub/b.txt",
        "key.bin": "-> s3://bucket/key.bin",
        "elsewhere/k": "-> s3://bucket/key.bin",
    }
    assert artifact.entries()["key.bin"] == lading.Reference("s3://bucket/key.bin", "etag", 5)
    assert len(artifact) == 7
    assert "one" in artifact
    assert "two" not in artifact


def test_what_can_be_executed_stays_so(artifact: lading.Artifact, tmp_path: Path) -> None:
    make(tmp_path, "dir/run", "dir/data")
    (tmp_path / "dir/run").chmod(0o755)
    artifact.add_dir(tmp_path / "dir")
    artifact.add_file(tmp_path / "dir/run", "renamed")
    scanned = scan_mapping(artifact.entries()).files
    assert {file.path: file.executable for file in scanned} == {"run": True, "data": False, "renamed": True}


def test_what_is_uploaded_is_the_file_as_it_was_added(artifact: lading.Artifact, tmp_path: Path) -> None:
    file = make(tmp_path, "model") / "model"
    artifact.add_file(file)
    file.write_text("of the next epoch")
    (found,) = scan_mapping(artifact.entries()).files
    assert not found.is_still(file.stat())


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a//b", "a\\b", "C:x", "nul\0", "a/./b"])
def test_a_name_that_cannot_be_in_a_tree_is_refused_at_once(
    artifact: lading.Artifact, tmp_path: Path, name: str
) -> None:
    file = make(tmp_path, "file") / "file"
    with pytest.raises(lading.InvalidArgument):
        artifact.add_file(file, name)
    with pytest.raises(lading.InvalidArgument):
        artifact.add_reference("s3://bucket/key", name)
    with pytest.raises(lading.InvalidArgument), artifact.new_file(name):
        pytest.fail("the block was entered")
    assert len(artifact) == 0


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("a", "a", "'a' already"),
        ("a", "a/b", "'a' is a file"),
        ("a/b", "a", "'a' is a directory"),
        ("a", "A", "differ only by case"),
        ("a/b", "A", "differ only by case"),
        ("dir/x", "Dir/y", "differ only by case"),
        ("stra\u00dfe", "strasse", "differ only by case"),
        ("e\u0301", "\u00e9", "normalization"),
    ],
)
def test_paths_that_do_not_go_together_are_refused(
    artifact: lading.Artifact, first: str, second: str, words: str
) -> None:
    artifact.add_reference("s3://bucket/1", first)
    with pytest.raises(lading.AlreadyExists, match=words):
        artifact.add_reference("s3://bucket/2", second)
    artifact.remove(first)
    artifact.add_reference("s3://bucket/2", second)
    assert list(artifact.entries()) == [second]


@given(st.lists(st.text("aAbB/\u00e9\u00c9", min_size=1, max_size=4), max_size=8))
def test_the_rules_are_those_of_a_tree(paths: list[str]) -> None:
    names = _Names()
    mine = None
    for path in paths:
        try:
            names.add(path)
        except lading.LadingError as error:
            mine = error
            break
    conflicts = PathConflicts()
    theirs = None
    try:
        for path in paths:
            check_path(path)
        for path in sorted(paths, key=str.encode):
            conflicts.add(path)
    except FormatError as error:
        theirs = error
    assert (mine is None) == (theirs is None), (mine, theirs)


def test_a_directory_is_added_whole_or_not_at_all(artifact: lading.Artifact, tmp_path: Path) -> None:
    make(tmp_path, "data/a", "data/b", "data/c")
    artifact.add_reference("s3://bucket/b", "b")
    with pytest.raises(lading.AlreadyExists, match="'b' already"):
        artifact.add_dir(tmp_path / "data")
    assert list(artifact.entries()) == ["b"]
    artifact.remove("b")
    artifact.add_dir(tmp_path / "data")
    assert len(artifact) == 3


def test_what_is_no_file_or_no_directory_is_refused(artifact: lading.Artifact, tmp_path: Path) -> None:
    with pytest.raises(lading.InvalidArgument, match="nowhere"):
        artifact.add_file(tmp_path / "nowhere")
    with pytest.raises(lading.InvalidArgument, match="not a regular file"):
        artifact.add_file(tmp_path, "dir")
    with pytest.raises(lading.InvalidArgument, match="not a directory"):
        artifact.add_dir(tmp_path / "nowhere")


def test_a_directory_is_removed_with_everything_below(artifact: lading.Artifact, tmp_path: Path) -> None:
    artifact.add_dir(make(tmp_path, "a/1", "a/b/2", "ab", "c"))
    artifact.remove("a")
    assert list(artifact.entries()) == ["ab", "c"]
    artifact.add_reference("s3://bucket/a", "A")
    with pytest.raises(lading.NotFound, match="'a/1'"):
        artifact.remove("a/1")


def test_a_new_file_lives_as_long_as_the_artifact() -> None:
    artifact = lading.Artifact("notes", type="text")
    with artifact.new_file("sub/words.txt") as file:
        file.write("süß")
    with artifact.new_file("bytes", "wb") as file:
        file.write(b"\xff")
    words, raw = (Path(entry) for entry in artifact.entries().values() if not isinstance(entry, lading.Reference))
    assert words.read_bytes() == "süß".encode()
    assert raw.read_bytes() == b"\xff"
    assert stat.S_IMODE(words.parent.stat().st_mode) == 0o700
    del artifact
    gc.collect()
    assert not words.parent.exists()


def test_a_new_file_that_failed_is_not_added(artifact: lading.Artifact) -> None:
    with pytest.raises(ZeroDivisionError), artifact.new_file("half") as file:
        file.write(str(1 // 0))
    assert len(artifact) == 0
    with pytest.raises(lading.InvalidArgument, match="mode"), artifact.new_file("read", "r"):  # type: ignore[arg-type]
        pytest.fail("the block was entered")


def test_the_child_of_a_fork_leaves_the_files_to_its_parent(forked: Callable[[Callable[[], None]], int]) -> None:
    artifact = lading.Artifact("notes", type="text")
    with artifact.new_file("note") as file:
        file.write("kept")
    holder = [artifact]
    del artifact

    def child() -> None:
        holder.clear()
        gc.collect()

    assert forked(child) == 0
    assert contents(holder[0]) == {"note": "kept"}


@pytest.mark.parametrize(
    ("name", "kind", "metadata"),
    [("a b", "model", None), ("", "model", None), ("a", "m/n", None), ("a", "model", {"x": {1, 2}})],
)
def test_what_cannot_be_a_version_is_refused_at_once(name: str, kind: str, metadata: dict[str, object] | None) -> None:
    with pytest.raises(lading.InvalidArgument):
        lading.Artifact(name, type=kind, metadata=metadata)


def test_a_path_alone_becomes_an_artifact_of_its_name(tmp_path: Path) -> None:
    make(tmp_path, "digits/a", "model.pt")
    assert contents(lading.Artifact.of(tmp_path / "digits")) == {"a": "digits/a"}
    one = lading.Artifact.of(tmp_path / "model.pt", type="model")
    assert (one.name, one.type, contents(one)) == ("model.pt", "model", {"model.pt": "model.pt"})
    before = os.getcwd()
    os.chdir(tmp_path / "digits")
    try:
        assert lading.Artifact.of(".").name == "digits"
    finally:
        os.chdir(before)
