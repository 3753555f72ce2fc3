"""After a crash, wherever it hit: everything durable is there, nothing else, and the pack is sealed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lading_server.common.errors import CorruptRecord, StorageFailed
from lading_server.ingest.packs.format import HEADER_BYTES, record_span
from lading_server.ingest.packs.local import LocalPackStorage
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.reader import read_index, read_payloads, scan_records, verify_pack
from lading_server.ingest.packs.recovery import SealedPack, seal_after_crash
from lading_server.ingest.packs.storage import PackNotFound, ShortRead
from tests.support.disks import FaultyPacks

from .samples import open_pack, pack_of, payloads, records

CONTENTS = payloads()


def test_a_crash_after_any_record_keeps_what_was_durable_and_nothing_else() -> None:
    for durable_count in range(len(CONTENTS) + 1):
        storage = MemoryPackStorage()
        writer = open_pack(storage)
        locations = writer.append(records(CONTENTS[:durable_count]))
        durable_bytes = writer.sync()
        writer.append(records(CONTENTS[durable_count:]))
        storage.crash()
        sealed = seal_after_crash(storage, writer.pack, durable_bytes)
        assert sealed == SealedPack(storage.size(writer.pack), durable_count + 1)
        verify_pack(storage, writer.pack)
        assert len(read_index(storage, writer.pack)) == durable_count + 1
        digests = [record.digest for record in records(CONTENTS[:durable_count])]
        assert read_payloads(storage, locations, digests) == CONTENTS[:durable_count]


def test_a_tail_torn_at_any_byte_is_cut_off(tmp_path: Path) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    writer, _ = pack_of(storage, [b"durable"])
    durable_bytes = writer.sync()
    writer.append(records([b"not yet"]))
    whole = storage.read(writer.pack, 0, writer.length_bytes)
    writer.abandon()
    for length in range(durable_bytes, len(whole) + 1):
        file = storage.recover(writer.pack, durable_bytes)
        file.append([whole[durable_bytes:length]])
        file.close()
        assert seal_after_crash(storage, writer.pack, durable_bytes).record_count == 2
        verify_pack(storage, writer.pack)
    storage.close()


def test_a_crash_at_any_byte_of_sealing_is_repaired_and_repairing_twice_changes_nothing() -> None:
    storage = MemoryPackStorage()
    writer, _ = pack_of(storage, CONTENTS)
    durable_bytes = writer.length_bytes
    total_bytes = writer.seal()
    sealed = storage.read(writer.pack, 0, total_bytes)
    for length in range(durable_bytes, total_bytes + 1, 8):
        file = storage.recover(writer.pack, durable_bytes)
        file.append([sealed[durable_bytes:length]])
        assert seal_after_crash(storage, writer.pack, durable_bytes).total_bytes == total_bytes
        assert storage.read(writer.pack, 0, total_bytes) == sealed
    assert seal_after_crash(storage, writer.pack, durable_bytes).total_bytes == total_bytes
    assert storage.read(writer.pack, 0, total_bytes) == sealed


def test_garbage_after_the_durable_length_does_not_matter() -> None:
    storage = MemoryPackStorage()
    writer, _ = pack_of(storage, CONTENTS)
    durable_bytes = writer.length_bytes
    file = storage.recover(writer.pack, durable_bytes)
    file.append([b"\xff" * 1000])
    assert seal_after_crash(storage, writer.pack, durable_bytes).record_count == len(CONTENTS) + 1
    verify_pack(storage, writer.pack)


def test_a_pack_of_which_nothing_is_durable_is_deleted() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage)
    assert seal_after_crash(storage, writer.pack, 0) == SealedPack(0, 0)
    assert list(storage.packs()) == []
    # Not even its name survived, or the crash came after the delete.
    assert seal_after_crash(storage, writer.pack, 0) == SealedPack(0, 0)


def test_a_crash_loses_the_bytes_and_the_packs_that_were_not_synced() -> None:
    storage = MemoryPackStorage()
    synced, _ = pack_of(storage, [b"durable"])
    never_synced = open_pack(storage)
    durable_bytes = synced.length_bytes
    synced.append(records([b"lost"]))
    storage.crash()
    assert storage.size(synced.pack) == durable_bytes
    with pytest.raises(PackNotFound):
        storage.size(never_synced.pack)
    with pytest.raises(StorageFailed):
        synced.append(records([b"from before the crash"]))


@pytest.mark.parametrize("durable_bytes", [1, 32, HEADER_BYTES])
def test_a_durable_length_before_the_first_record_cuts_nothing(durable_bytes: int) -> None:
    storage = MemoryPackStorage()
    writer, _ = pack_of(storage, CONTENTS)
    with pytest.raises(CorruptRecord, match="before its first record"):
        seal_after_crash(storage, writer.pack, durable_bytes)
    assert storage.size(writer.pack) == writer.length_bytes


@pytest.mark.parametrize("in_header", [True, False])
@pytest.mark.parametrize("damaged", range(len(CONTENTS)))
def test_damage_before_the_durable_length_is_told_and_the_rest_is_sealed(damaged: int, *, in_header: bool) -> None:
    storage = MemoryPackStorage()
    writer, locations = pack_of(storage, CONTENTS)
    durable_bytes = writer.length_bytes
    writer.append(records([b"not yet"]))
    place = locations[damaged]
    if not (in_header or place.stored_bytes):
        return
    storage.corrupt(writer.pack, place.offset + (8 if in_header else HEADER_BYTES))
    sealed = seal_after_crash(storage, writer.pack, durable_bytes)
    # The owner is listed too, and what has a header that can be believed.
    assert sealed.record_count == len(CONTENTS) + 1 - in_header
    (span,) = sealed.damages
    assert (span.begin, span.end) == (place.offset, place.offset + record_span(place.stored_bytes))
    digests = [record.digest for record in records(CONTENTS)]
    for at, location in enumerate(locations):
        if at == damaged:
            with pytest.raises(CorruptRecord):
                read_payloads(storage, [location], [digests[at]])
        else:
            assert read_payloads(storage, [location], [digests[at]]) == [CONTENTS[at]]
    listed = {entry.offset for entry in read_index(storage, writer.pack)}
    assert listed == {HEADER_BYTES, *(location.offset for location in locations)} - (
        {place.offset} if in_header else set()
    )
    # What was not durable is gone.
    assert b"not yet" not in storage.read(writer.pack, 0, storage.size(writer.pack))


def test_a_damaged_header_of_the_pack_costs_no_record() -> None:
    storage = MemoryPackStorage()
    writer, locations = pack_of(storage, CONTENTS)
    storage.corrupt(writer.pack, 8)
    sealed = seal_after_crash(storage, writer.pack, writer.length_bytes)
    assert sealed.record_count == len(CONTENTS) + 1
    (span,) = sealed.damages
    assert (span.begin, span.end) == (0, HEADER_BYTES)
    assert read_payloads(storage, locations, [record.digest for record in records(CONTENTS)]) == CONTENTS
    assert len(read_index(storage, writer.pack)) == sealed.record_count


@pytest.mark.parametrize("at", [0, 1, 2])
def test_where_the_disk_refuses_to_read_what_is_there_is_lost_and_the_rest_is_sealed(at: int) -> None:
    contents = [bytes([number]) * 10_000 for number in range(1, 5)]
    inner = MemoryPackStorage()
    writer, locations = pack_of(inner, contents)
    storage = FaultyPacks(inner)
    place = locations[at]
    # In the middle of a payload, so that no header is touched.
    storage.bad = (writer.pack, place.offset + 5000, place.offset + 5100)
    sealed = seal_after_crash(storage, writer.pack, writer.length_bytes)
    assert sealed.record_count == len(contents) + 1
    assert [(span.begin, span.end) for span in sealed.damages] == [(place.offset, locations[at + 1].offset)]
    digests = [record.digest for record in records(contents)]
    for each, location in enumerate(locations):
        if each != at:
            assert read_payloads(storage, [location], [digests[each]]) == [contents[each]]
    assert len(read_index(storage, writer.pack)) == sealed.record_count
    # The bytes were not touched: what can be read again is whole again, and the trailer says that it was not.
    storage.bad = None
    assert read_payloads(storage, locations, digests) == contents
    with pytest.raises(CorruptRecord):
        verify_pack(storage, writer.pack)


def test_a_pack_of_which_the_disk_gives_nothing_is_not_cut() -> None:
    inner = MemoryPackStorage()
    writer, _ = pack_of(inner, CONTENTS)
    durable_bytes = writer.length_bytes
    writer.append(records([b"not yet"]))
    storage = FaultyPacks(inner)
    storage.bad = (writer.pack, 0, writer.length_bytes)
    with pytest.raises(StorageFailed):
        seal_after_crash(storage, writer.pack, durable_bytes)
    assert inner.size(writer.pack) == writer.length_bytes


def test_several_damaged_records_are_told_apart() -> None:
    storage = MemoryPackStorage()
    contents = [bytes([number]) * 100 for number in range(6)]
    writer, locations = pack_of(storage, contents)
    for at in (1, 2, 4):
        storage.corrupt(writer.pack, locations[at].offset + (8 if at == 2 else HEADER_BYTES))
    sealed = seal_after_crash(storage, writer.pack, writer.length_bytes)
    assert [(span.begin, span.end) for span in sealed.damages] == [
        (locations[1].offset, locations[3].offset),
        (locations[2].offset, locations[3].offset),
        (locations[4].offset, locations[5].offset),
    ]


def test_a_pack_without_a_whole_record_is_told_and_nothing_is_cut() -> None:
    storage = MemoryPackStorage()
    writer = open_pack(storage)
    durable_bytes = writer.length_bytes
    writer.append(records([b"not yet"]))
    storage.corrupt(writer.pack, 2 * HEADER_BYTES)
    before = storage.read(writer.pack, 0, writer.length_bytes)
    with pytest.raises(CorruptRecord):
        seal_after_crash(storage, writer.pack, durable_bytes)
    assert storage.read(writer.pack, 0, len(before)) == before


def test_a_pack_shorter_than_what_was_durable_is_told() -> None:
    storage = MemoryPackStorage()
    writer, _ = pack_of(storage, CONTENTS)
    with pytest.raises(ShortRead):
        seal_after_crash(storage, writer.pack, writer.length_bytes + 800)
    with pytest.raises(PackNotFound):
        seal_after_crash(storage, open_pack(MemoryPackStorage()).pack, 64)


def test_a_pack_whose_sync_failed_is_sealed_at_its_last_good_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalPackStorage(tmp_path / "store")
    writer, locations = pack_of(storage, CONTENTS)
    durable_bytes = writer.sync()
    writer.append(records([b"lost"]))

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageFailed):
            writer.sync()
    writer.abandon()
    storage.close()
    again = LocalPackStorage(tmp_path / "store")
    seal_after_crash(again, writer.pack, durable_bytes)
    verify_pack(again, writer.pack)
    assert read_payloads(again, locations, [record.digest for record in records(CONTENTS)]) == CONTENTS
    index = read_index(again, writer.pack)
    assert len(index) == len(CONTENTS) + 1
    assert sum(1 for _ in scan_records(again, writer.pack, durable_bytes)) == len(index)
    again.close()
