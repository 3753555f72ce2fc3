"""Files in little memory: what comes out is what was put in, in the order of the paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lading._local_files import FilesBelow, LocalFile

U64 = st.integers(0, (1 << 64) - 1)
# Before 1970, and after 2262, where 64 bits of nanoseconds end.
TIMES = st.integers(-(10**9) * (1 << 34), 10**9 * (1 << 34))
PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
FILES = st.builds(LocalFile, PATHS, st.just(""), U64, TIMES, st.booleans(), U64, U64, TIMES)


def _status(file: LocalFile) -> os.stat_result:
    mode = 0o100700 if file.executable else 0o100600
    # The first ten have whole seconds; the nanoseconds come by name, after six that are of no interest.
    times = dict.fromkeys(("st_atime_ns",), 0) | {"st_mtime_ns": file.modified_ns, "st_ctime_ns": file.changed_ns}
    return os.stat_result((mode, file.inode, file.device, 1, 0, 0, file.size_bytes, 0, 0, 0), times)


@given(st.lists(FILES, unique_by=lambda file: file.path))
def test_files_come_out_as_they_were_put_in_sorted_by_the_bytes_of_their_paths(files: list[LocalFile]) -> None:
    below = FilesBelow("/root", (FilesBelow.pack(file.path, _status(file)) for file in files))
    expected = [
        file._replace(location=f"/root/{file.path}") for file in sorted(files, key=lambda file: file.path.encode())
    ]
    assert list(below) == expected
    assert len(below) == len(expected)
    assert below[1:3] == expected[1:3]
    assert list(below.paths()) == [file.path for file in expected]
    assert below.size_bytes == sum(file.size_bytes for file in expected)


def test_a_file_is_where_the_directory_says(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    status = (tmp_path / "a").stat()
    for root in (str(tmp_path), f"{tmp_path}/"):
        (file,) = FilesBelow(root, [FilesBelow.pack("a", status)])
        assert (file.location, file.size_bytes, os.fspath(file)) == (f"{tmp_path}/a", 2, f"{tmp_path}/a")
        assert file.is_still(status)


def test_a_file_takes_little_memory(tmp_path: Path) -> None:
    name = "0123456.txt"
    (tmp_path / name).touch()
    packed = FilesBelow.pack(f"directory/{name}", (tmp_path / name).stat())
    # A million of them, with a list's 8 bytes for each, are 110 MB.
    assert sys.getsizeof(packed) <= 102
