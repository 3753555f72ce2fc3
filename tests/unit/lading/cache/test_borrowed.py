"""Entries that are a second name of a user's file: made without a copy, hashed when taken, and never handed on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import lading
from lading._cache import filling
from lading._cache.blocks import Blocks
from lading._cache.store import BORROWED_SUFFIX, Store
from lading._files import SafeRoot
from lading_format.digest import blake3_digest, format_digest
from tests.unit.lading.cache.test_local import (
    HOUR_NS,
    Blob,
    Place,
    cache,  # noqa: F401 - a fixture
    entry,
    given,
    opened,
    root,  # noqa: F401 - a fixture
)

DATA = b"weights!" * 40_000


def borrowed(cache: lading.LocalCache, data: bytes = DATA) -> Path:  # noqa: F811
    path = entry(cache, data)
    return path.with_name(path.name + BORROWED_SUFFIX)


def download(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    path: str = "mine",
    data: bytes = DATA,
    *,
    executable: bool = False,
) -> Path:
    """What a download does with a file that it fetched."""
    with opened(cache) as transfer, root.cursor() as cursor:
        cursor.write(data, path, executable=executable)
        assert transfer.keep_placed(blake3_digest(data), cursor, path, len(data))
    return Path(root.name, path)


@pytest.mark.parametrize("executable", [False, True])
def test_a_file_is_kept_by_a_second_name_and_stays_as_it_was(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    executable: bool,
) -> None:
    mine = download(cache, root, executable=executable)
    before = mine.stat()
    assert os.path.samefile(mine, borrowed(cache))
    assert before.st_mode & 0o222
    assert given(cache, root, Blob(DATA, [Place("a"), Place("b", executable=True)]))
    for name in ("a", "b"):
        assert Path(root.name, name).read_bytes() == DATA
        assert Path(root.name, name).stat().st_nlink == 1
    assert cache.verify().ok
    cache.info()
    after = mine.stat()
    # All of it: nobody touched the file.
    assert after == before
    assert cache.prune(0).entries == 1
    assert mine.read_bytes() == DATA
    assert (mine.stat().st_mode, mine.stat().st_mtime_ns, mine.stat().st_nlink) == (
        before.st_mode,
        before.st_mtime_ns,
        1,
    )


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o755])
def test_hard_links_are_never_of_a_users_file_whatever_its_rights(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    mode: int,
) -> None:
    mine = download(cache, root)
    mine.chmod(mode)
    assert given(cache, root, Blob(DATA, [Place("a"), Place("b")]), links=True)
    assert os.path.samefile(Path(root.name, "a"), Path(root.name, "b"))
    assert os.path.samefile(Path(root.name, "a"), entry(cache, DATA))
    assert not os.path.samefile(Path(root.name, "a"), mine)
    assert entry(cache, DATA).stat().st_mode & 0o777 == 0o444
    assert not borrowed(cache).exists()
    assert (mine.stat().st_mode & 0o777, mine.stat().st_nlink) == (mode, 1)
    mine.chmod(0o644)
    mine.write_bytes(b"edited")
    assert Path(root.name, "a").read_bytes() == DATA


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("edit", [b"weights?" * 40_000, b"short"])
def test_an_edit_in_place_is_found_and_the_users_file_is_left_alone(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    edit: bytes,
    links: bool,
) -> None:
    mine = download(cache, root)
    mine.write_bytes(edit)
    assert not given(cache, root, Blob(DATA), links=links)
    assert not Path(root.name, "out").exists()
    assert not borrowed(cache).exists()
    assert mine.read_bytes() == edit
    mine.write_bytes(DATA)
    mine = download(cache, root)
    mine.write_bytes(edit)
    assert cache.open_blob(format_digest(blake3_digest(DATA))) is None
    assert not borrowed(cache).exists()


def test_a_check_tells_an_edit_from_damage(cache: lading.LocalCache, root: SafeRoot) -> None:  # noqa: F811
    download(cache, root).write_bytes(b"edited")
    found = cache.verify()
    assert found.ok
    assert (found.dropped, found.edited) == ((), (format_digest(blake3_digest(DATA)),))
    assert not borrowed(cache).exists()


@pytest.mark.parametrize("links", [False, True])
def test_a_write_while_it_is_taken_gives_the_right_bytes_or_none(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    links: bool,
) -> None:
    mine = download(cache, root)
    real = os.preadv
    reads: list[int] = []

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        read_bytes = real(fd, buffers, offset)
        # After the first part was read, both it and the next are overwritten, and the times set back.
        if not reads:
            status = mine.stat()
            with mine.open("r+b") as file:
                file.write(b"x" * 8)
                file.seek(300_000)
                file.write(b"x" * 8)
            os.utime(mine, ns=(status.st_atime_ns, status.st_mtime_ns))
        reads.append(offset)
        return read_bytes

    monkeypatch.setattr(os, "preadv", preadv)
    assert not given(cache, root, Blob(DATA), links=links)
    assert len(reads) > 1
    assert not Path(root.name, "out").exists()
    assert os.listdir(root.partial_fd) == []


def test_a_write_to_what_was_read_already_does_not_reach_the_copy(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = download(cache, root)
    real = Blocks.copy

    def copy(blocks: Blocks, source_fd: int, target_fd: int, size_bytes: int) -> bytes:
        digest = real(blocks, source_fd, target_fd, size_bytes)
        mine.write_bytes(b"edited")
        return digest

    monkeypatch.setattr(Blocks, "copy", copy)
    assert given(cache, root, Blob(DATA))
    assert Path(root.name, "out").read_bytes() == DATA


def test_what_is_opened_is_a_copy_that_the_user_cannot_write_to(cache: lading.LocalCache, root: SafeRoot) -> None:  # noqa: F811
    mine = download(cache, root)
    fd = cache.open_blob(format_digest(blake3_digest(DATA)))
    assert fd is not None
    mine.write_bytes(b"edited")
    assert os.pread(fd, len(DATA), 0) == DATA
    os.close(fd)
    assert entry(cache, DATA).exists()
    assert not borrowed(cache).exists()


def test_a_use_is_noted_without_touching_the_users_times(cache: lading.LocalCache, root: SafeRoot) -> None:  # noqa: F811
    mine = download(cache, root)
    long_ago = mine.stat().st_mtime_ns - 50 * HOUR_NS
    os.utime(mine, ns=(long_ago, long_ago))
    assert given(cache, root, Blob(DATA))
    assert (mine.stat().st_atime_ns, mine.stat().st_mtime_ns) == (long_ago, long_ago)
    # The entry is a name of the newer file now.
    assert os.path.samefile(Path(root.name, "out"), borrowed(cache))
    # When nobody else has it, its times are the cache's.
    Path(root.name, "out").unlink()
    os.utime(borrowed(cache), ns=(long_ago, long_ago))
    assert given(cache, root, Blob(DATA))
    assert borrowed(cache).stat().st_atime_ns > long_ago
    assert borrowed(cache).stat().st_mtime_ns == long_ago
    told = cache.info()
    assert (told.files, told.trees) == (1, 0)


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_links_are_refused_little_is_copied_and_nothing_is_said(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusal: int,
) -> None:
    asked: list[str] = []

    def refuse(source: str, *arguments: str, **named: object) -> None:
        asked.append(source)
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(filling, "COPIED_AT_MOST_BYTES", 2 * len(DATA))
    datas = [bytes([number]) + DATA[1:] for number in range(4)]
    kept = []
    with opened(cache) as transfer, root.cursor() as cursor:
        for number, data in enumerate(datas):
            digest = blake3_digest(data)
            cursor.write(data, f"{number}", executable=False)
            assert not transfer.keep_placed(digest, cursor, f"{number}", len(data))
            kept.append(transfer.keep_little(digest, data))
    assert kept == [True, True, False, False]
    # Of one file there may be too many links, and not of the next; whatever else is refused, is refused for good.
    assert len(asked) == (4 if refusal == errno.EMLINK else 1)
    assert not caplog.records
    assert os.listdir(Path(cache.directory, "content-1", "new")) == []
    assert given(cache, root, Blob(datas[0]))


def test_a_finished_file_becomes_an_entry_or_is_left_as_it_was(
    cache: lading.LocalCache,  # noqa: F811
    root: SafeRoot,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = blake3_digest(DATA)
    fd, name = root.create_temporary(executable=False)
    os.write(fd, DATA)
    mode = os.fstat(fd).st_mode

    def refuse(store: Store, new_name: str, name: str) -> None:
        raise OSError(errno.EIO, "refused")

    with opened(cache) as transfer:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "_rename", refuse)
            assert not transfer.keep_unfinished(digest, root, fd, name, len(DATA))
        assert os.listdir(root.partial_fd) == [name]
        assert os.fstat(fd).st_mode == mode
        # With another name it is somebody's.
        os.link(name, "other", src_dir_fd=root.partial_fd, dst_dir_fd=root.partial_fd)
        assert not transfer.keep_unfinished(digest, root, fd, name, len(DATA))
        root.discard("other")
        assert transfer.keep_unfinished(digest, root, fd, name, len(DATA))
    os.close(fd)
    assert os.listdir(root.partial_fd) == []
    assert given(cache, root, Blob(DATA), links=True)
    assert os.path.samefile(Path(root.name, "out"), entry(cache, DATA))


def test_no_descriptor_is_left_open(cache: lading.LocalCache, root: SafeRoot) -> None:  # noqa: F811
    before = len(os.listdir("/proc/self/fd"))
    mine = download(cache, root)
    assert given(cache, root, Blob(DATA))
    assert given(cache, root, Blob(DATA), links=True)
    mine = download(cache, root, data=b"x" * 100)
    mine.write_bytes(b"y" * 100)
    assert not given(cache, root, Blob(b"x" * 100))
    fd = cache.open_blob(format_digest(blake3_digest(DATA)))
    assert fd is not None
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before
