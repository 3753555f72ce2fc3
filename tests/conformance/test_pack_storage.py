"""What every pack storage promises, run against each of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from lading_server.common.errors import StorageFailed
from lading_server.common.ids import uuid7
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.storage import PackExists, PackNotFound, PackStorage, ShortRead


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PackStorage]:
    """Each storage in turn, empty."""
    made: PackStorage = LocalPackStorage(tmp_path / "store") if request.param == "local" else MemoryPackStorage()
    yield made
    made.close()


def filled(storage: PackStorage, data: bytes) -> UUID:
    pack = uuid7()
    file = storage.create(pack)
    file.append([data])
    file.sync()
    file.close()
    return pack


def test_a_new_pack_is_empty_and_listed(storage: PackStorage) -> None:
    pack = uuid7()
    file = storage.create(pack)
    assert file.length_bytes == 0
    assert storage.size(pack) == 0
    assert list(storage.packs()) == [pack]
    file.close()


def test_what_is_appended_is_read_back_in_order(storage: PackStorage) -> None:
    pack = uuid7()
    file = storage.create(pack)
    file.append([b"one", bytearray(b"two"), memoryview(b"three")])
    file.append([b""])
    file.append([])
    file.append([b"four", b"", b"five"])
    assert file.length_bytes == len(b"onetwothreefourfive") == storage.size(pack)
    assert storage.read(pack, 0, file.length_bytes) == b"onetwothreefourfive"
    assert storage.read(pack, 3, 8) == b"twothree"
    file.close()


def test_more_buffers_than_one_system_call_takes_arrive_in_order(storage: PackStorage) -> None:
    pack = uuid7()
    file = storage.create(pack)
    buffers = [number.to_bytes(3, "little") for number in range(5_000)]
    file.append(buffers)
    assert storage.read(pack, 0, file.length_bytes) == b"".join(buffers)
    file.close()


def test_a_read_of_nothing_is_empty_even_at_the_end(storage: PackStorage) -> None:
    pack = filled(storage, b"12345678")
    assert storage.read(pack, 8, 0) == b""


@pytest.mark.parametrize(("offset", "length"), [(0, 9), (8, 1), (7, 2), (1_000, 1)])
def test_a_read_beyond_the_end_is_short(storage: PackStorage, offset: int, length: int) -> None:
    pack = filled(storage, b"12345678")
    with pytest.raises(ShortRead):
        storage.read(pack, offset, length)


def test_an_unknown_pack_is_not_found(storage: PackStorage) -> None:
    pack = uuid7()
    with pytest.raises(PackNotFound):
        storage.read(pack, 0, 1)
    with pytest.raises(PackNotFound):
        storage.size(pack)
    with pytest.raises(PackNotFound):
        storage.recover(pack, 0)


def test_an_id_is_not_used_twice(storage: PackStorage) -> None:
    pack = filled(storage, b"first")
    with pytest.raises(PackExists):
        storage.create(pack)
    assert storage.read(pack, 0, 5) == b"first"


def test_an_id_is_not_used_again_after_its_pack_was_deleted(storage: PackStorage) -> None:
    pack = filled(storage, b"first")
    storage.delete(pack)
    with pytest.raises(PackExists):
        storage.create(pack)


def test_a_deleted_pack_is_gone_and_may_be_deleted_again(storage: PackStorage) -> None:
    pack, other = filled(storage, b"data"), filled(storage, b"other")
    assert storage.read(pack, 0, 4) == b"data"
    storage.delete(pack)
    storage.delete(pack)
    storage.delete(uuid7())
    with pytest.raises(PackNotFound):
        storage.read(pack, 0, 4)
    with pytest.raises(PackNotFound):
        storage.size(pack)
    assert list(storage.packs()) == [other]


def test_a_closed_pack_takes_nothing_and_may_be_closed_again(storage: PackStorage) -> None:
    file = storage.create(uuid7())
    file.close()
    file.close()
    with pytest.raises(StorageFailed):
        file.append([b"late"])
    with pytest.raises(StorageFailed):
        file.sync()


@pytest.mark.parametrize("durable_bytes", [0, 3, 8])
def test_a_recovered_pack_is_cut_back_and_grows_from_there(storage: PackStorage, durable_bytes: int) -> None:
    pack = filled(storage, b"12345678")
    file = storage.recover(pack, durable_bytes)
    assert file.length_bytes == storage.size(pack) == durable_bytes
    file.append([b"end"])
    file.sync()
    file.close()
    assert storage.read(pack, 0, durable_bytes + 3) == b"12345678"[:durable_bytes] + b"end"


def test_a_pack_that_is_shorter_than_its_durable_length_is_not_touched(storage: PackStorage) -> None:
    pack = filled(storage, b"12345678")
    with pytest.raises(ShortRead):
        storage.recover(pack, 9)
    assert storage.read(pack, 0, 8) == b"12345678"


def test_every_pack_is_listed_once(storage: PackStorage) -> None:
    made = {filled(storage, b"x") for _ in range(30)}
    listed = list(storage.packs())
    assert len(listed) == 30
    assert set(listed) == made


def test_the_free_space_is_a_number_or_unknown(storage: PackStorage) -> None:
    free_bytes = storage.free_bytes()
    assert free_bytes is None or free_bytes > 0


def test_one_thread_may_sync_and_others_read_while_one_appends(storage: PackStorage) -> None:
    pack = uuid7()
    file = storage.create(pack)
    piece = bytes(range(256)) * 16
    file.append([piece])
    done = threading.Event()
    failures: list[BaseException] = []

    def until_done(action: str) -> None:
        try:
            while not done.is_set():
                if action == "sync":
                    file.sync()
                else:
                    assert storage.read(pack, 0, len(piece)) == piece
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=until_done, args=(action,)) for action in ("sync", "read", "read")]
    for thread in threads:
        thread.start()
    for _ in range(100):
        file.append([piece])
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert storage.read(pack, 0, 101 * len(piece)) == piece * 101
    file.close()
