"""Nothing is written outside of the root, and nothing through a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import lading
from lading._files import SafeRoot, make_executable


@pytest.fixture
def root(tmp_path: Path) -> Iterator[SafeRoot]:
    """A root that is ready to be written to."""
    with SafeRoot(tmp_path / "root") as safe_root:
        safe_root.open_partial()
        yield safe_root


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_file_gets_its_directories_its_bytes_and_its_mode(root: SafeRoot) -> None:
    mask = os.umask(0o027)
    try:
        with root.cursor() as cursor:
            cursor.write(b"data", "a/b/plain", executable=False)
            cursor.write(b"run", "a/run", executable=True)
            cursor.write(b"top", "top", executable=False)
    finally:
        os.umask(mask)
    assert Path(root.name, "a/b/plain").read_bytes() == b"data"
    assert Path(root.name, "top").read_bytes() == b"top"
    assert (_mode(f"{root.name}/a/b/plain"), _mode(f"{root.name}/a/run")) == (0o640, 0o750)


def test_a_file_takes_the_place_of_the_one_that_was_there(root: SafeRoot) -> None:
    with root.cursor() as cursor:
        cursor.write(b"long old content", "f", executable=False)
        cursor.write(b"new", "f", executable=False)
    assert Path(root.name, "f").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["../outside", ".", "/tmp"])
def test_a_link_on_the_way_is_refused(root: SafeRoot, target: str) -> None:
    Path(root.name, "a").mkdir()
    Path(root.name, "a/link").symlink_to(target)
    with root.cursor() as cursor:
        with pytest.raises(lading.UnsafePath, match="a/link"):
            cursor.write(b"data", "a/link/f", executable=False)
        with pytest.raises(lading.UnsafePath, match="a/link"):
            cursor.status("a/link/f")
    assert os.listdir(root.partial_fd) == []


def test_a_link_in_a_files_place_is_replaced_and_not_written_through(root: SafeRoot, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    Path(root.name, "f").symlink_to(outside)
    with root.cursor() as cursor:
        with pytest.raises(lading.UnsafePath):
            cursor.status("f")
        cursor.write(b"data", "f", executable=False)
    assert outside.read_bytes() == b"mine"
    assert not Path(root.name, "f").is_symlink()


def test_a_directory_that_became_a_link_after_it_was_opened_is_not_followed(root: SafeRoot, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with root.cursor() as cursor:
        cursor.write(b"1", "a/one", executable=False)
        os.rename(f"{root.name}/a", f"{root.name}/moved")
        os.symlink(tmp_path / "outside", f"{root.name}/a")
        cursor.write(b"2", "a/two", executable=False)
    assert list((tmp_path / "outside").iterdir()) == []
    assert sorted(os.listdir(f"{root.name}/moved")) == ["one", "two"]


def test_a_file_where_a_directory_should_be_is_left_alone(root: SafeRoot) -> None:
    with root.cursor() as cursor:
        cursor.write(b"mine", "a", executable=False)
        with pytest.raises(lading.AlreadyExists):
            cursor.write(b"data", "a/f", executable=False)
    assert Path(root.name, "a").read_bytes() == b"mine"


def test_a_directory_where_a_file_should_be_is_left_alone(root: SafeRoot) -> None:
    Path(root.name, "f").mkdir()
    with root.cursor() as cursor:
        with pytest.raises(lading.AlreadyExists):
            cursor.write(b"data", "f", executable=False)
        with pytest.raises(lading.AlreadyExists):
            cursor.status("f")
    assert os.listdir(root.partial_fd) == []


def test_a_copy_has_the_same_bytes_and_a_life_of_its_own(root: SafeRoot) -> None:
    data = bytes(range(256)) * 100_000
    with root.cursor() as cursor:
        cursor.write(data, "one", executable=False)
        fd = cursor.open_existing("one")
        try:
            cursor.copy(fd, len(data), "b/two", executable=True)
        finally:
            os.close(fd)
    assert Path(root.name, "b/two").read_bytes() == data
    assert not os.path.samefile(f"{root.name}/one", f"{root.name}/b/two")


def test_the_partial_directory_goes_when_it_is_empty_and_stays_when_not(tmp_path: Path) -> None:
    with SafeRoot(tmp_path / "root") as root:
        root.open_partial()
        os.close(root.open_part("0000", executable=False))
    assert (tmp_path / "root" / ".lading-partial" / "0000").exists()
    with SafeRoot(tmp_path / "root") as root:
        root.open_partial()
        root.discard("0000")
    assert not (tmp_path / "root" / ".lading-partial").exists()


def test_what_a_killed_download_left_for_nobody_goes_after_an_hour(root: SafeRoot, tmp_path: Path) -> None:
    part = "ab" * 32
    os.close(root.open_part(part, executable=False))
    # As a hard link of the cache is, for a moment: an old file, and a new name.
    name = root.temporary_name()
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (0, 0))
    os.link(tmp_path / "old", name, dst_dir_fd=root.partial_fd)
    root.clear_abandoned()
    assert sorted(os.listdir(root.partial_fd)) == sorted([part, name])
    made = os.stat(name, dir_fd=root.partial_fd).st_ctime
    root.clear_abandoned(made + 3601)
    assert os.listdir(root.partial_fd) == [part]


def test_a_download_begins_with_removing_what_killed_ones_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = tmp_path / "root" / ".lading-partial"
    with SafeRoot(tmp_path / "root") as killed:
        killed.open_partial()
        os.close(killed.create_temporary(executable=False)[0])
        (partial / "mine.new").touch()
    monkeypatch.setattr("lading._files._ABANDONED_SECONDS", -1)  # or the test would have to wait
    with SafeRoot(tmp_path / "root") as root:
        root.open_partial()
        assert os.listdir(partial) == ["mine.new"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with SafeRoot(tmp_path / "root") as root:
        root.open_partial()
        with root.cursor() as cursor:
            for depth in range(1, 100):
                cursor.write(b"x", "/".join(["d"] * depth) + "/f", executable=False)
            assert cursor.status("nowhere/at/all") is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_right_to_execute_follows_the_right_to_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    path.chmod(0o640)
    with path.open() as file:
        make_executable(file.fileno(), True)
        assert _mode(str(path)) == 0o750
        make_executable(file.fileno(), False)
        assert _mode(str(path)) == 0o640
