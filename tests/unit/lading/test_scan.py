"""What is found to upload."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

import lading
from lading._scan import Patterns, scan_directory, scan_mapping


def _make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def _paths(root: Path, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
    return [file.path for file in scan_directory(root, include=include, exclude=exclude).files]


def test_files_come_sorted_by_the_bytes_of_their_paths(tmp_path: Path) -> None:
    _make(tmp_path, "b", "a/x", "a.txt", "a-b", "Z", "é", "a/b/c")
    assert _paths(tmp_path) == ["Z", "a-b", "a.txt", "a/b/c", "a/x", "b", "é"]


def test_size_time_and_mode_are_those_of_the_file(tmp_path: Path) -> None:
    _make(tmp_path, "run", "data")
    (tmp_path / "run").chmod(0o700)
    data, run = scan_directory(tmp_path).files
    status = (tmp_path / "run").stat()
    assert (run.size_bytes, run.modified_ns, run.executable) == (3, status.st_mtime_ns, True)
    assert run.is_still(status)
    assert not data.executable
    assert not data.is_still(status)


@pytest.mark.parametrize("target", ["real", "../outside", "nowhere", "."])
def test_a_link_is_refused_by_name(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    _make(root, "real", "sub/file")
    _make(tmp_path, "outside")
    (root / "sub" / "link").symlink_to(target)
    with pytest.raises(lading.UnsafePath, match=r"sub/link.*symbolic link"):
        scan_directory(root)
    assert _paths(root, exclude=("sub/link",)) == ["real", "sub/file"]
    assert _paths(root, include=("real",)) == ["real"]


def test_a_link_to_the_root_itself_is_followed(tmp_path: Path) -> None:
    _make(tmp_path, "root/file")
    (tmp_path / "link").symlink_to("root")
    assert _paths(tmp_path / "link") == ["file"]


def test_pipes_and_sockets_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(lading.UnsafePath, match="pipe"):
        scan_directory(tmp_path)
    os.unlink(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(lading.UnsafePath, match="socket"):
            scan_directory(tmp_path)


def test_what_a_download_left_unfinished_is_not_uploaded(tmp_path: Path) -> None:
    _make(tmp_path, "file", ".lading-partial/0000", "sub/.lading-partial")
    assert _paths(tmp_path) == ["file", "sub/.lading-partial"]


@pytest.mark.parametrize("names", [("a", "A"), ("stra\u00dfe", "strasse"), ("e\u0301", "\u00e9")])
def test_names_that_are_one_file_elsewhere_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    _make(tmp_path, *names)
    with pytest.raises(lading.InvalidArgument):
        scan_directory(tmp_path)


@pytest.mark.parametrize("name", [b"back\\slash", b"not-utf-8-\xff", b"C:x"])
def test_a_name_that_cannot_be_in_a_tree_is_refused(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(lading.InvalidArgument):
        scan_directory(tmp_path)


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    _make(tmp_path, "file")
    for missing in ("file", "nowhere"):
        with pytest.raises(lading.InvalidArgument, match="not a directory"):
            scan_directory(tmp_path / missing)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.log", ["a.log", "x/y/a.log"], ["a.log.txt"]),
        ("/*.log", ["a.log"], ["x/a.log"]),
        ("x/*.log", ["x/a.log"], ["x/y/a.log", "z/x/a.log"]),
        ("x/**/*.log", ["x/a.log", "x/y/z/a.log"], ["a.log"]),
        ("x/**", ["x/a", "x/y/z"], ["y/x"]),
        ("**/cache", ["cache", "x/cache"], ["caches"]),
        ("data?", ["data1", "x/data2"], ["data", "data/1"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt", "ab.txt"]),
        ("[!ab].txt", ["c.txt"], ["a.txt"]),
        ("[a-c]", ["b"], ["d", "-"]),
        ("a+b(c)", ["a+b(c)"], ["aab(c)"]),
        ("tmp/", ["tmp", "x/tmp"], ["tmpx"]),
    ],
)
def test_patterns_match_as_in_gitignore(pattern: str, matching: list[str], others: list[str]) -> None:
    patterns = Patterns((), (pattern,))
    assert [path for path in matching if not patterns.excludes(path)] == []
    assert [path for path in others if patterns.excludes(path)] == []


def test_a_pattern_that_matches_a_directory_matches_all_below(tmp_path: Path) -> None:
    _make(tmp_path, "a/x/1", "a/y/2", "b/x/3", "c")
    assert _paths(tmp_path, include=("a",)) == ["a/x/1", "a/y/2"]
    assert _paths(tmp_path, exclude=("x",)) == ["a/y/2", "c"]
    assert _paths(tmp_path, include=("a", "c"), exclude=("a/x",)) == ["a/y/2", "c"]


def test_a_pattern_in_place_of_a_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lading.InvalidArgument, match=r"\['\*\.log'\]"):
        scan_directory(tmp_path, exclude="*.log")


def test_a_mapping_names_files_and_references(tmp_path: Path) -> None:
    _make(tmp_path, "one", "two")
    (tmp_path / "link").symlink_to("two")
    reference = lading.Reference("s3://bucket/key", "etag", 5)
    source = scan_mapping({"z": tmp_path / "one", "a/b": str(tmp_path / "link"), "m": reference})
    assert [(file.path, Path(file.location).name) for file in source.files] == [("a/b", "two"), ("z", "one")]
    assert source.references == [("m", reference)]


@pytest.mark.parametrize("entry", [".", "nowhere"])
def test_a_mapping_to_something_else_than_a_file_is_refused(tmp_path: Path, entry: str) -> None:
    with pytest.raises(lading.InvalidArgument, match="'a'"):
        scan_mapping({"a": tmp_path / entry})


def test_a_mapping_with_an_unsafe_path_is_refused(tmp_path: Path) -> None:
    _make(tmp_path, "f")
    with pytest.raises(lading.InvalidArgument, match=r"\.\./f"):
        scan_mapping({"../f": tmp_path / "f"})
