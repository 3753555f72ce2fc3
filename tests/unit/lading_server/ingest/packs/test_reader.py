"""Records by location: as if each were read alone, few reads, and every damage told with its place."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_format.digest import blake3_digest
from lading_server.common.errors import CorruptRecord
from lading_server.ingest.packs.format import HEADER_BYTES
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.reader import (
    read_index,
    read_pack_header,
    read_payloads,
    read_trailer,
    scan_records,
    verify_pack,
)
from lading_server.ingest.packs.storage import PackNotFound, ShortRead

from .samples import open_pack, pack_of, payloads, records


class CountingStorage(MemoryPackStorage):
    """Notes every read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        self.reads.append(length)
        return super().read(pack, offset, length)


@pytest.fixture
def storage() -> CountingStorage:
    return CountingStorage()


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_records_read_together_are_as_read_alone(lengths: list[int], shuffle: random.Random) -> None:
    storage = CountingStorage()
    packs = [pack_of(storage, payloads(lengths)), pack_of(storage, payloads(lengths[::-1]))]
    wanted = [where for _, locations in packs for where in locations]
    contents = payloads(lengths) + payloads(lengths[::-1])
    order = [shuffle.randrange(len(wanted)) for _ in range(2 * len(wanted))]
    digests = [blake3_digest(contents[at]) for at in order]
    together = read_payloads(storage, [wanted[at] for at in order], digests)
    alone = [read_payloads(storage, [wanted[at]], [blake3_digest(contents[at])])[0] for at in order]
    assert together == alone == [contents[at] for at in order]


def test_nothing_is_read_for_nothing(storage: CountingStorage) -> None:
    assert read_payloads(storage, [], []) == []
    assert storage.reads == []


@pytest.mark.parametrize("step", [1, -1])
def test_neighbours_are_one_read_in_whatever_order_they_are_asked_for(storage: CountingStorage, step: int) -> None:
    contents = payloads()
    _, locations = pack_of(storage, contents)
    assert read_payloads(storage, locations[::step], [blake3_digest(each) for each in contents[::step]])
    assert len(storage.reads) == 1


def test_records_far_apart_are_not_read_with_what_lies_between(storage: CountingStorage) -> None:
    contents = [b"first", bytes(200 << 10), b"last"]
    _, locations = pack_of(storage, contents)
    read_payloads(storage, [locations[0], locations[2]], [blake3_digest(contents[0]), blake3_digest(contents[2])])
    assert len(storage.reads) == 2
    assert sum(storage.reads) < 1000


def test_a_read_is_at_most_eight_mebibytes(storage: CountingStorage) -> None:
    contents = payloads([1 << 20] * 20)
    writer, locations = pack_of(storage, contents)
    read_payloads(storage, locations, [blake3_digest(each) for each in contents])
    assert len(storage.reads) == 3
    assert max(storage.reads) <= 8 << 20
    storage.reads.clear()
    assert sum(1 for _ in scan_records(storage, writer.pack, writer.length_bytes)) == 21
    assert max(storage.reads) <= 8 << 20


def test_as_many_digests_as_locations_are_needed(storage: CountingStorage) -> None:
    _, locations = pack_of(storage, payloads())
    with pytest.raises(ValueError, match="digests"):
        read_payloads(storage, locations, [])


@pytest.mark.parametrize("part", ["header", "payload"])
def test_a_damaged_record_is_told_with_its_pack_and_offset(storage: CountingStorage, part: str) -> None:
    contents = payloads()
    writer, locations = pack_of(storage, contents)
    damaged = locations[5]
    storage.corrupt(writer.pack, damaged.offset + (9 if part == "header" else HEADER_BYTES))
    place = {"pack": str(writer.pack), "offset": str(damaged.offset)}
    with pytest.raises(CorruptRecord) as caught:
        read_payloads(storage, locations, [blake3_digest(each) for each in contents])
    assert caught.value.metadata == place
    with pytest.raises(CorruptRecord) as caught:
        list(scan_records(storage, writer.pack, writer.length_bytes))
    assert caught.value.metadata == place


def test_another_record_than_the_expected_one_is_refused(storage: CountingStorage) -> None:
    _, locations = pack_of(storage, [b"one", b"two"])
    with pytest.raises(CorruptRecord, match="another record"):
        read_payloads(storage, locations[:1], [blake3_digest(b"two")])
    with pytest.raises(CorruptRecord, match="another record"):
        read_payloads(storage, [locations[0]._replace(stored_bytes=2)], [blake3_digest(b"one")])


def test_a_record_of_a_pack_that_is_gone_or_short_is_corrupt(storage: CountingStorage) -> None:
    _, (location,) = pack_of(storage, [b"content"])
    digest = blake3_digest(b"content")
    with pytest.raises(CorruptRecord) as caught:
        read_payloads(storage, [location._replace(offset=location.offset + 8)], [digest])
    assert caught.value.metadata["pack"] == str(location.pack)
    storage.delete(location.pack)
    with pytest.raises(CorruptRecord, match="no pack"):
        read_payloads(storage, [location], [digest])


def test_a_scan_finds_what_was_written_in_order(storage: CountingStorage) -> None:
    contents = payloads()
    writer, locations = pack_of(storage, contents)
    owner, *found = scan_records(storage, writer.pack, writer.length_bytes)
    assert bytes(owner.payload) == b"acme"
    assert [bytes(record.payload) for record in found] == contents
    assert [record.offset for record in found] == [where.offset for where in locations]


def test_a_scan_that_ends_inside_a_record_says_so(storage: CountingStorage) -> None:
    writer, (location,) = pack_of(storage, [b"content"])
    for upto_bytes in range(location.offset + 1, writer.length_bytes):
        with pytest.raises(CorruptRecord, match="torn"):
            list(scan_records(storage, writer.pack, upto_bytes))
    with pytest.raises(ShortRead):
        list(scan_records(storage, writer.pack, writer.length_bytes + 200))


def test_a_record_that_stands_at_the_wrong_place_is_seen(storage: CountingStorage) -> None:
    writer, (first, second) = pack_of(storage, [b"content!", b"CONTENT!"])
    data = bytearray(storage.read(writer.pack, 0, writer.length_bytes))
    data[first.offset : second.offset], data[second.offset :] = (
        data[second.offset :],
        data[first.offset : second.offset],
    )
    file = storage.recover(writer.pack, 0)
    file.append([data])
    with pytest.raises(CorruptRecord, match="record 2 stands where number 1 should"):
        list(scan_records(storage, writer.pack, len(data)))


def test_an_open_pack_has_no_trailer(storage: CountingStorage) -> None:
    writer = open_pack(storage)
    writer.append(records([b"content" * 100]))
    for read in (read_trailer, read_index, verify_pack):
        with pytest.raises(CorruptRecord) as caught:
            read(storage, writer.pack)
        assert caught.value.metadata["pack"] == str(writer.pack)


def test_an_empty_pack_and_an_unknown_one_are_told_apart(storage: CountingStorage) -> None:
    writer = open_pack(storage)
    storage.recover(writer.pack, 0)
    with pytest.raises(CorruptRecord, match="too short"):
        read_trailer(storage, writer.pack)
    with pytest.raises(ShortRead):
        read_pack_header(storage, writer.pack)
    storage.delete(writer.pack)
    with pytest.raises(PackNotFound):
        read_trailer(storage, writer.pack)


def test_every_damaged_byte_of_a_sealed_pack_is_seen(storage: CountingStorage) -> None:
    writer, _ = pack_of(storage, [b"seven 7", b"content"])
    length = writer.seal()
    for offset in range(length):
        storage.corrupt(writer.pack, offset)
        with pytest.raises(CorruptRecord):
            verify_pack(storage, writer.pack)
        storage.corrupt(writer.pack, offset)
    verify_pack(storage, writer.pack)
    assert len(read_index(storage, writer.pack)) == 3


def test_a_pack_under_another_packs_id_is_refused(storage: CountingStorage) -> None:
    writer, _ = pack_of(storage, [b"content"])
    other = open_pack(storage)
    file = storage.recover(other.pack, 0)
    file.append([storage.read(writer.pack, 0, writer.length_bytes)])
    with pytest.raises(CorruptRecord, match="header of pack"):
        read_pack_header(storage, other.pack)
