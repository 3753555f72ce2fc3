"""Packs in a directory: the lock, permissions, failures of the disk, and descriptors that are in use."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from lading_server.common.errors import DiskLow, StorageFailed
from lading_server.common.ids import uuid7
from lading_server.ingest.packs.local import LocalPackStorage, StoreLocked
from lading_server.ingest.packs.storage import PackNotFound

HOLDER = """
import sys
from pathlib import Path
from lading_server.ingest.packs.local import LocalPackStorage
storage = LocalPackStorage(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def storage(root: Path) -> Iterator[LocalPackStorage]:
    made = LocalPackStorage(root, read_descriptors=2)
    yield made
    made.close()


def open_files(path: Path) -> int:
    """Return how many descriptors of this process are open on files below `path`, deleted ones too."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith(str(path))
        except FileNotFoundError:
            continue
    return count


def failing(number: int) -> Any:
    def call(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


def test_a_second_process_is_refused_and_told_who_has_the_store(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked, match=rf"process id {holder.pid};"):
            LocalPackStorage(root)
        holder.kill()
    # A killed holder leaves no lock behind.
    LocalPackStorage(root).close()


def test_a_second_opening_in_the_same_process_is_refused_until_the_first_is_closed(root: Path) -> None:
    first = LocalPackStorage(root)
    with pytest.raises(StoreLocked, match=str(os.getpid())):
        LocalPackStorage(root)
    first.close()
    first.close()
    LocalPackStorage(root).close()


def test_a_lock_that_cannot_be_taken_for_another_reason_is_not_called_in_use(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lading_server.ingest.packs.local.fcntl.flock", failing(errno.ENOLCK))
    with pytest.raises(OSError, match="locks"):
        LocalPackStorage(root)
    assert open_files(root) == 0


def test_only_the_owner_may_read(root: Path, storage: LocalPackStorage) -> None:
    storage.create(uuid7()).close()
    (file,) = root.glob("packs/*/*.pack")
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (root, root / "packs", file.parent)} == {0o700}


def test_packs_outlive_the_object_that_made_them(root: Path) -> None:
    first = LocalPackStorage(root)
    pack = uuid7()
    file = first.create(pack)
    file.append([b"data"])
    file.sync()
    file.close()
    first.close()
    second = LocalPackStorage(root)
    assert list(second.packs()) == [pack]
    assert second.read(pack, 0, 4) == b"data"
    second.close()


def test_files_that_are_not_packs_are_left_alone(root: Path, storage: LocalPackStorage) -> None:
    pack = uuid7()
    storage.create(pack).close()
    stray = root / "packs" / pack.hex[-2:]
    for name in ("notes.txt", "notes.pack", f"{{{pack}}}.pack", f"{pack}.pack", f"{uuid4().hex[:-2]}zz.pack"):
        (stray / name).touch()
    assert list(storage.packs()) == [pack]


def test_a_write_that_takes_a_part_is_continued(storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, buffers: writev(fd, [memoryview(buffers[0])[:3]]))
    pack = uuid7()
    file = storage.create(pack)
    file.append([b"0123456789", b"", b"abcdefgh", b"XY"])
    assert storage.read(pack, 0, file.length_bytes) == b"0123456789abcdefghXY"
    file.close()


def test_after_a_failed_sync_the_pack_takes_nothing_and_is_never_synced_again(
    storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = storage.create(uuid7())
    file.append([b"data"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(StorageFailed, match="EIO"):
            file.sync()
    synced: list[int] = []
    # The disk is well again, and would say that all is fine.
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with pytest.raises(StorageFailed, match="EIO"):
        file.sync()
    with pytest.raises(StorageFailed, match="EIO"):
        file.append([b"more"])
    assert synced == []
    file.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_the_pack_takes_nothing_more_but_a_sync(
    storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    file = storage.create(uuid7())
    file.append([b"before"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", failing(error))
        with pytest.raises(DiskLow, match=os.strerror(error)):
            file.append([b"data"])
    with pytest.raises(DiskLow, match="free some space"):
        file.append([b"data"])
    file.sync()
    file.close()


def test_a_disk_that_fails_is_told_and_the_pack_takes_nothing_more(
    storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = storage.create(uuid7())
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", failing(errno.EIO))
        with pytest.raises(StorageFailed, match="EIO"):
            file.append([b"data"])
    with pytest.raises(StorageFailed, match="EIO"):
        file.append([b"data"])
    with pytest.raises(StorageFailed, match="EIO"):
        file.sync()
    file.close()


def test_a_packs_name_is_durable_before_the_first_sync_returns(
    root: Path, storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    synced: list[Path] = []

    def noting(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    pack = uuid7()
    # As if another thread, or a run that was killed, had made the directory and not come to sync it.
    (root / "packs" / pack.hex[-2:]).mkdir()
    file = storage.create(pack)
    monkeypatch.setattr(os, "fsync", noting)
    file.sync()
    assert {root / "packs", root / "packs" / pack.hex[-2:]} <= set(synced)
    synced.clear()
    file.sync()
    assert synced == []
    file.close()


def test_early_writeback_never_touches_what_is_synced_already(
    storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    advised: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _fd, begin, length, _advice: advised.append((begin, length)))
    file = storage.create(uuid7())
    piece = bytes(3 << 20)
    for _ in range(3):
        file.append([piece])
    assert advised == [(0, 9 << 20)]
    file.append([piece])
    file.sync()
    file.append([piece])
    file.append([piece])
    assert advised == [(0, 9 << 20)]
    file.append([piece])
    assert advised == [(0, 9 << 20), (12 << 20, 9 << 20)]
    file.close()


def test_few_descriptors_serve_many_readers_of_many_packs(root: Path, storage: LocalPackStorage) -> None:
    contents = {}
    for number in range(12):
        pack = uuid7()
        contents[pack] = bytes([number]) * 4096
        file = storage.create(pack)
        file.append([contents[pack]])
        file.close()
    failures: list[BaseException] = []

    def read_all() -> None:
        try:
            for _ in range(40):
                for pack, content in contents.items():
                    assert storage.read(pack, 0, 4096) == content
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read_all) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    # The lock file and the two idle descriptors.
    assert open_files(root) == 3


def test_a_pack_that_is_deleted_under_a_reader_is_gone_for_the_next_one(
    root: Path, storage: LocalPackStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = uuid7()
    file = storage.create(pack)
    file.append([b"data"])
    file.close()
    pread = os.pread

    def deleted_meanwhile(descriptor: int, length: int, offset: int) -> bytes:
        storage.delete(pack)
        return pread(descriptor, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", deleted_meanwhile)
        assert storage.read(pack, 0, 4) == b"data"
    with pytest.raises(PackNotFound):
        storage.read(pack, 0, 4)
    # Only the lock: a descriptor of a deleted file would keep its space.
    assert open_files(root) == 1
