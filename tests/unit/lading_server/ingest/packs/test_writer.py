"""One open pack: where records are, what a sync promises while another thread appends, and what a failure leaves."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.packs.format import HEADER_BYTES, RecordType, record_span
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.reader import (
    read_index,
    read_pack_header,
    read_trailer,
    scan_records,
    verify_pack,
)
from lading_server.ingest.packs.storage import Buffer, PackClass, PackExists, PackFile
from lading_server.ingest.packs.writer import NewRecord, PackWriter

from .samples import LENGTHS, STORE, open_pack, pack_of, payloads, records


class CutShort:
    """A pack file whose next append writes a part, and raises something that is no StorageFailed."""

    def __init__(self, file: PackFile) -> None:
        self.file = file
        self.cutting = False

    @property
    def length_bytes(self) -> int:
        return self.file.length_bytes

    def append(self, buffers: Sequence[Buffer]) -> None:
        if self.cutting:
            self.file.append(buffers[:1])
            raise MemoryError
        self.file.append(buffers)

    def sync(self) -> None:
        self.file.sync()

    def close(self) -> None:
        self.file.close()


class Overlap(CutShort):
    """A pack file that gives a second append every chance to begin before the first has ended."""

    def __init__(self, file: PackFile) -> None:
        super().__init__(file)
        self._at_once = 0
        self._two = threading.Event()
        self.most_at_once = 0

    def append(self, buffers: Sequence[Buffer]) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        if self._at_once == 2:
            self._two.set()
        # Times out when appends take turns, as they should: long enough for a thread that is not held back.
        self._two.wait(0.2)
        super().append(buffers)
        self._at_once -= 1


def test_a_new_pack_has_its_header_and_its_owner() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage, entity="größe")
    header = read_pack_header(storage, writer.pack)
    assert (header.pack, header.store_id, header.writer_epoch) == (writer.pack, STORE, 3)
    assert header.pack_class == PackClass.DATA
    (owner,) = scan_records(storage, writer.pack, writer.length_bytes)
    assert owner.header.type is RecordType.OWNER
    assert bytes(owner.payload).decode() == "größe"
    assert writer.record_count == 1


def test_a_pack_without_a_given_id_gets_a_fresh_one() -> None:
    storage = MemoryPackStorage()
    writer = PackWriter.create(storage, store_id=STORE, writer_epoch=1, pack_class=PackClass.META, entity="acme")
    assert list(storage.packs()) == [writer.pack]
    assert writer.pack.version == 7
    assert read_pack_header(storage, writer.pack).pack_class == PackClass.META


def test_a_pack_that_exists_is_not_opened_again() -> None:
    storage = MemoryPackStorage()
    pack = uuid4()
    open_pack(storage, pack).abandon()
    with pytest.raises(PackExists):
        open_pack(storage, pack)


def test_locations_say_where_each_record_begins_and_how_long_its_payload_is() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage)
    begin = writer.length_bytes
    contents = payloads()
    locations = writer.append(records(contents[:4])) + writer.append(records(contents[4:]))
    for location, content in zip(locations, contents, strict=True):
        assert location == (writer.pack, begin, len(content), len(content))
        assert storage.read(writer.pack, location.offset + HEADER_BYTES, len(content)) == content
        begin += record_span(len(content))
    assert writer.length_bytes == begin == storage.size(writer.pack)
    assert writer.payload_bytes == sum(LENGTHS) + len("acme")
    assert writer.record_count == len(LENGTHS) + 1


def test_a_sealed_pack_is_whole_and_its_index_lists_every_record_but_itself() -> None:
    storage = MemoryPackStorage()
    writer, locations = pack_of(storage, payloads())
    length = writer.seal()
    assert length == storage.size(writer.pack)
    trailer = verify_pack(storage, writer.pack)
    assert trailer == read_trailer(storage, writer.pack)
    assert (trailer.record_count, trailer.payload_bytes) == (writer.record_count, writer.payload_bytes)
    entries = read_index(storage, writer.pack)
    assert [entry.digest for entry in entries] == sorted(entry.digest for entry in entries)
    assert {entry.offset for entry in entries if entry.type is RecordType.CHUNK} == {
        where.offset for where in locations
    }
    assert [entry.type for entry in entries].count(RecordType.OWNER) == 1
    with pytest.raises(StorageFailed):
        writer.append(records([b"late"]))


def test_the_same_content_twice_in_a_pack_is_listed_twice() -> None:
    storage = MemoryPackStorage()
    writer, locations = pack_of(storage, [b"same", b"same"])
    writer.seal()
    chunks = [entry for entry in read_index(storage, writer.pack) if entry.type is RecordType.CHUNK]
    assert [entry.offset for entry in chunks] == [where.offset for where in locations]


def test_a_checksum_that_the_caller_has_is_used_and_not_computed_again() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage)
    (record,) = records([b"content"])
    writer.append([record._replace(xxh3=1)])
    with pytest.raises(CorruptRecord, match="payload"):
        list(scan_records(storage, writer.pack, writer.length_bytes))


def test_a_digest_of_the_wrong_length_writes_nothing() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage)
    before = writer.length_bytes
    with pytest.raises(ValueError, match="32"):
        writer.append([*records([b"fine"]), NewRecord(RecordType.CHUNK, b"short", b"payload", None)])
    assert writer.length_bytes == before == storage.size(writer.pack)
    writer.append(records([b"fine"]))
    writer.seal()
    verify_pack(storage, writer.pack)


def test_every_length_that_a_sync_returns_ends_with_a_whole_record(tmp_path: Path) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    writer = open_pack(storage)
    # More buffers than one system call takes, so that an append is seen half-done.
    batch = records([bytes([number % 256]) * 9 for number in range(3_000)])
    done = threading.Event()
    lengths: set[int] = set()

    def sync() -> None:
        while not done.is_set():
            lengths.add(writer.sync())

    thread = threading.Thread(target=sync)
    thread.start()
    for _ in range(10):
        writer.append(batch)
    done.set()
    thread.join()
    ends = {record.offset for record in scan_records(storage, writer.pack, writer.length_bytes)}
    assert lengths <= ends | {writer.length_bytes}
    writer.seal()
    verify_pack(storage, writer.pack)
    storage.close()


def test_a_sync_in_the_middle_of_an_append_answers_the_length_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    writer = open_pack(storage)
    before = writer.length_bytes
    writev = os.writev
    answered: list[int] = []

    def sync_between(descriptor: int, buffers: Sequence[Buffer]) -> int:
        written = writev(descriptor, buffers[:1])
        answered.append(writer.sync())
        return written

    monkeypatch.setattr(os, "writev", sync_between)
    writer.append(records([b"content"]))
    assert answered
    assert set(answered) == {before}
    assert writer.sync() == writer.length_bytes > before
    writer.abandon()
    storage.close()


def test_what_is_appended_during_a_sync_is_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    writer = open_pack(storage)
    before = writer.length_bytes
    fdatasync = os.fdatasync

    def append_after(descriptor: int) -> None:
        fdatasync(descriptor)
        writer.append(records([b"too late for this sync"]))

    monkeypatch.setattr(os, "fdatasync", append_after)
    assert writer.sync() == before < writer.length_bytes
    writer.abandon()
    storage.close()


def test_a_second_append_waits_for_the_first() -> None:
    storage = MemoryPackStorage()
    pack = uuid4()
    file = Overlap(storage.create(pack))
    writer = PackWriter(file, pack)
    threads = [threading.Thread(target=writer.append, args=(records([b"content"]),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.most_at_once == 1


def test_appends_from_many_threads_do_not_mix() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage)

    def append(number: int) -> None:
        for _ in range(50):
            writer.append(records([bytes([number]) * 100] * 3))

    threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(scan_records(storage, writer.pack, writer.length_bytes))) == 601
    writer.seal()
    verify_pack(storage, writer.pack)


def test_after_an_append_that_was_cut_short_the_pack_takes_nothing_more() -> None:
    storage = MemoryPackStorage()
    pack = uuid4()
    file = CutShort(storage.create(pack))
    writer = PackWriter(file, pack)
    durable = writer.sync()
    file.cutting = True
    with pytest.raises(MemoryError):
        writer.append(records([b"content"]))
    file.cutting = False
    with pytest.raises(StorageFailed, match="cut short"):
        writer.append(records([b"content"]))
    assert writer.sync() == durable
    with pytest.raises(StorageFailed, match="cut short"):
        writer.seal()


def test_a_pack_that_cannot_be_sealed_is_closed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    writer, _ = pack_of(storage, payloads())

    def refuse(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(StorageFailed, match="EIO"):
        writer.seal()
    open_paths = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name)}
    assert not any(path.endswith(".pack") for path in open_paths)
    storage.close()


def _is_open(name: str) -> bool:
    # The listing's own descriptor is gone by now.
    return Path(f"/proc/self/fd/{name}").is_symlink()
