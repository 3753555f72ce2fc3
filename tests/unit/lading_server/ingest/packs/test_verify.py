"""Walking through a damaged pack: everything that is damaged is found, and nothing else."""

from __future__ import annotations

import random

import pytest

from lading_format.digest import blake3_digest
from lading_server.common.ids import uuid7
from lading_server.ingest.packs.format import HEADER_BYTES, RecordType
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.reader import read_index
from lading_server.ingest.packs.storage import PackClass, PackNotFound
from lading_server.ingest.packs.verify import RecordWalk, Structure, read_structure
from lading_server.ingest.packs.writer import NewRecord, PackWriter

_SEED = random.randrange(1 << 32)


class Sample:
    """A sealed pack of chunks of odd sizes, some larger than half a window."""

    def __init__(self) -> None:
        own = random.Random(_SEED)
        self.storage = MemoryPackStorage()
        writer = PackWriter.create(
            self.storage, store_id=uuid7(), writer_epoch=1, pack_class=PackClass.DATA, entity="acme"
        )
        self.pack = writer.pack
        contents = [own.randbytes(size) for size in (1, 19, 5 << 20, 7, 6 << 20, 64, 3 << 20, 100)]
        records = [NewRecord(RecordType.CHUNK, blake3_digest(data), data, None) for data in contents]
        self.places = writer.append(records)
        self.total_bytes = writer.seal()

    def walk(self, *, known: bool = True, reads_digests: bool = True) -> tuple[set[int], set[int]]:
        """Return the offsets of what is right, and of what is not."""
        structure = self.structure()
        offsets = [place.offset for place in self.places] if known else []
        walk = RecordWalk(self.storage, self.pack, structure.end, offsets, reads_digests=reads_digests)
        good: set[int] = set()
        while not walk.is_done:
            good |= {offset for offset, _ in walk.step()}
        if not walk.faults and not structure.faults and structure.trailer is not None:
            assert walk.whole_is(structure.trailer.xxh3_128, self.total_bytes - HEADER_BYTES)
        return good, {fault.offset for fault in walk.faults}

    def structure(self) -> Structure:
        return read_structure(
            self.storage,
            self.pack,
            pack_class=int(PackClass.DATA),
            is_sealed=True,
            durable_bytes=self.total_bytes,
        )


@pytest.fixture
def sample() -> Sample:
    print(f"seed {_SEED}")
    return Sample()


def test_a_pack_that_is_right_has_no_faults(sample: Sample) -> None:
    assert not sample.structure().faults
    good, bad = sample.walk()
    owner = {HEADER_BYTES}
    assert (good, bad) == ({place.offset for place in sample.places} | owner, set())


@pytest.mark.parametrize("at", range(8))
def test_a_damaged_payload_is_found_and_what_follows_is_right(sample: Sample, at: int) -> None:
    place = sample.places[at]
    sample.storage.corrupt(sample.pack, place.offset + HEADER_BYTES + place.stored_bytes // 2)
    good, bad = sample.walk()
    assert bad == {place.offset}
    assert good == {one.offset for one in sample.places} - bad | {HEADER_BYTES}


@pytest.mark.parametrize("at", range(8))
def test_behind_a_damaged_header_the_next_known_record_is_found(sample: Sample, at: int) -> None:
    place = sample.places[at]
    sample.storage.corrupt(sample.pack, place.offset + 13)
    good, bad = sample.walk()
    assert bad == {place.offset}
    assert good == {one.offset for one in sample.places} - bad | {HEADER_BYTES}


def test_without_known_records_the_walk_ends_at_a_damaged_header(sample: Sample) -> None:
    sample.storage.corrupt(sample.pack, sample.places[3].offset)
    good, bad = sample.walk(known=False)
    assert bad == {sample.places[3].offset}
    assert good == {one.offset for one in sample.places[:3]} | {HEADER_BYTES}


def test_every_damaged_record_is_found(sample: Sample) -> None:
    for at, shift in ((0, HEADER_BYTES), (2, 5), (3, HEADER_BYTES), (7, 60)):
        sample.storage.corrupt(sample.pack, sample.places[at].offset + shift)
    _, bad = sample.walk()
    assert bad == {sample.places[at].offset for at in (0, 2, 3, 7)}


def test_padding_is_held_against_the_checksum_of_the_whole(sample: Sample) -> None:
    place = sample.places[1]
    sample.storage.corrupt(sample.pack, place.offset + HEADER_BYTES + place.stored_bytes + 1)
    with pytest.raises(AssertionError):
        sample.walk()


@pytest.mark.parametrize("offset", [0, 20, 63])
def test_a_damaged_pack_header_is_a_fault_of_the_frame(sample: Sample, offset: int) -> None:
    sample.storage.corrupt(sample.pack, offset)
    structure = sample.structure()
    assert [fault.offset for fault in structure.faults] == [0]
    assert structure.entries is not None
    assert len(structure.entries) == 9


def test_a_damaged_trailer_and_index_are_faults_and_the_records_are_read_all_the_same(sample: Sample) -> None:
    index_offset = sample.structure().end
    sample.storage.corrupt(sample.pack, index_offset + HEADER_BYTES + 7)
    assert sample.structure().entries is None
    assert sample.walk()[1] == set()
    sample.storage.corrupt(sample.pack, sample.total_bytes - 40)
    structure = sample.structure()
    assert (structure.entries, structure.trailer) == (None, None)
    good, bad = sample.walk()
    assert {place.offset for place in sample.places} <= good
    assert bad == {index_offset}


def test_a_pack_that_is_not_there_is_told(sample: Sample) -> None:
    assert len(read_index(sample.storage, sample.pack)) == 9
    sample.storage.delete(sample.pack)
    with pytest.raises(PackNotFound):
        sample.structure()
    with pytest.raises(PackNotFound):
        RecordWalk(sample.storage, sample.pack, 1000, [], reads_digests=False).step()
