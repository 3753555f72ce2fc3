"""Digests of files that did not change, and that nothing else is believed."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from lading._digest_cache import RACY_NS, DigestCache, digest_cache
from lading._local_files import LocalFile
from lading._scan import scan_directory
from lading_format.digest import blake3_digest

COUNT = 1_201  # more than two queries ask for


@pytest.fixture
def cache(tmp_path: Path) -> DigestCache:
    """A cache that is not there yet."""
    return DigestCache(str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a file."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").write_bytes(b"content")
    return root


def _scan(root: Path) -> list[LocalFile]:
    return list(scan_directory(root).files)


def _later(files: list[LocalFile]) -> int:
    """Return the first moment at which no change of these files could go unseen."""
    return max(max(file.modified_ns, file.changed_ns) for file in files) + RACY_NS


def _remember(cache: DigestCache, files: list[LocalFile]) -> list[bytes | None]:
    digests = [blake3_digest(Path(file.location).read_bytes()) for file in files]
    cache.remember(list(zip(files, digests, strict=True)), _later(files))
    return list(digests)


def test_many_files_are_found_again(cache: DigestCache, root: Path) -> None:
    for number in range(COUNT):
        (root / f"{number:05}").write_text(str(number))
    files = _scan(root)
    assert [*cache.lookup(files)] == [None] * len(files)
    digests = _remember(cache, files)
    assert len(set(digests)) == COUNT + 1
    assert [*cache.lookup(_scan(root))] == digests


def test_nothing_is_made_where_nothing_is_asked_or_kept(cache: DigestCache, root: Path) -> None:
    assert [*cache.lookup(_scan(root))] == [None]
    cache.remember([], 0)
    assert not os.path.exists(cache.path)


def test_a_file_that_changed_is_not_known(cache: DigestCache, root: Path) -> None:
    _remember(cache, _scan(root))
    status = (root / "a").stat()
    (root / "a").write_bytes(b"CONTENT")
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))  # as who restores a backup does
    assert [*cache.lookup(_scan(root))] == [None]


def test_another_file_in_its_place_is_not_known(cache: DigestCache, root: Path) -> None:
    files = _scan(root)
    _remember(cache, files)
    file = files[0]
    for changed in (
        {"device": file.device + 1},
        {"inode": file.inode + 1},
        {"size_bytes": file.size_bytes + 1},
        {"modified_ns": file.modified_ns + 1},
        {"changed_ns": file.changed_ns + 1},
        {"location": f"{file.location}2"},
    ):
        other = file._replace(**changed)
        assert [*cache.lookup([other])] == [None], changed
    assert [*cache.lookup([file])] != [None]


def test_a_file_that_changed_just_before_it_was_hashed_is_not_kept(cache: DigestCache, root: Path) -> None:
    files = _scan(root)
    cache.remember([(files[0], blake3_digest(b"content"))], _later(files) - 1)
    assert [*cache.lookup(files)] == [None]
    cache.remember([(files[0], blake3_digest(b"content"))], _later(files))
    assert [*cache.lookup(files)] == [blake3_digest(b"content")]


def test_a_clock_ahead_of_the_disks_keeps_nothing(cache: DigestCache, root: Path) -> None:
    files = _scan(root)
    cache.remember([(files[0], blake3_digest(b"content"))], files[0].modified_ns - 3600 * 10**9)
    assert [*cache.lookup(files)] == [None]


def test_a_directory_is_the_same_by_every_name(cache: DigestCache, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = _remember(cache, _scan(root))
    monkeypatch.chdir(root.parent)
    assert [*cache.lookup(_scan(Path("data")))] == digests
    monkeypatch.chdir(root)
    assert [*cache.lookup(_scan(Path(".")))] == digests


def test_a_name_that_is_no_utf_8_above_the_directory_is_no_obstacle(cache: DigestCache, tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff")
    root.mkdir()
    (root / "a").write_bytes(b"content")
    digests = _remember(cache, _scan(root))
    assert [*cache.lookup(_scan(root))] == digests


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + bytes(4080)])
def test_a_damaged_cache_is_ignored_with_a_warning(
    cache: DigestCache, root: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    files = _scan(root)
    _remember(cache, files)
    for path in Path(cache.path).parent.iterdir():
        path.unlink()
    Path(cache.path).write_bytes(damage)
    assert [*cache.lookup(files)] == [None]
    _remember(cache, files)
    if damage:
        assert cache.path in caplog.text
    else:
        assert [*cache.lookup(files)] != [None]  # an empty file is an empty database


def test_an_entry_that_lost_a_bit_is_ignored(cache: DigestCache, root: Path) -> None:
    files = _scan(root)
    _remember(cache, files)
    with sqlite3.connect(cache.path) as database:
        entry = bytearray(database.execute("SELECT entry FROM digests_1").fetchone()[0])
        entry[45] ^= 1
        database.execute("UPDATE digests_1 SET entry = ?", [bytes(entry)])
    database.close()
    assert [*cache.lookup(files)] == [None]


def test_a_locked_cache_is_ignored_with_a_warning(
    cache: DigestCache, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lading._digest_store._LOCKED_SECONDS", 0.0)
    files = _scan(root)
    digests = _remember(cache, files)
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    _remember(cache, files)
    assert "locked" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    assert [*cache.lookup(files)] == digests


def test_a_directory_that_cannot_be_made_is_no_error(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = DigestCache(str(tmp_path / "file" / "cache"))
    _remember(cache, _scan(root))
    assert cache.path in caplog.text


def test_a_python_without_sqlite_is_no_error(
    cache: DigestCache, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = _scan(root)
    _remember(cache, files)
    monkeypatch.delitem(sys.modules, "lading._digest_store")
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    assert [*cache.lookup(files)] == [None]
    assert "sqlite3" in caplog.text


def test_what_is_old_is_forgotten(cache: DigestCache, root: Path) -> None:
    files = _scan(root)
    _remember(cache, files)
    with sqlite3.connect(cache.path) as database:
        database.execute("UPDATE digests_1 SET kept_at = kept_at - 31 * 24 * 3600")
    database.close()
    (root / "b").write_bytes(b"another")
    later = _scan(root)
    _remember(cache, later[1:])
    assert [*cache.lookup(later)] == [None, blake3_digest(b"another")]


def test_the_variable_says_where_it_is_or_that_there_is_none(tmp_path: Path) -> None:
    named = digest_cache({"LADING_CACHE_DIR": str(tmp_path)})
    assert named is not None
    assert Path(named.path).parent == tmp_path
    assert digest_cache({"LADING_CACHE_DIR": ""}) is None
    users = digest_cache({})
    assert users is not None
    assert "lading" in users.path
