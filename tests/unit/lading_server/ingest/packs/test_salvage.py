"""Walking through a pack that the disk refuses to read in places: whatever it gives is found."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from lading_server.common.errors import StorageFailed
from lading_server.ingest.packs.format import HEADER_BYTES
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.reader import read_trailer
from lading_server.ingest.packs.salvage import Part, Salvage, read_parts
from lading_server.ingest.packs.writer import Location

from .samples import pack_of

BLOCK = 4096


class BadBlocks(MemoryPackStorage):
    """Refuses what touches a bad block, as a disk does; notes how many reads it refused."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: set[int] = set()
        self.refused = 0

    def read(self, pack: UUID, offset: int, length: int) -> bytes:
        if not self.bad.isdisjoint(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)):
            self.refused += 1
            raise StorageFailed("EIO")
        return super().read(pack, offset, length)


def pack_of_blocks(count: int, *, is_sealed: bool = True) -> tuple[BadBlocks, UUID, Sequence[Location]]:
    """Return a pack of records of 10,000 bytes: at most two have a part of a block."""
    storage = BadBlocks()
    writer, locations = pack_of(storage, [number.to_bytes(2) * 5000 for number in range(count)])
    if is_sealed:
        writer.seal()
    return storage, writer.pack, locations


def touched(locations: Sequence[Location], bad: set[int]) -> set[int]:
    """Return the offsets of the records that have a byte in a bad block."""
    return {
        place.offset
        for place in locations
        if not bad.isdisjoint(
            range(place.offset // BLOCK, (place.offset + HEADER_BYTES + place.stored_bytes - 1) // BLOCK + 1)
        )
    }


@pytest.mark.parametrize("is_sealed", [False, True])
def test_two_bad_blocks_cost_the_records_that_lie_in_them_and_none_between(*, is_sealed: bool) -> None:
    storage, pack, locations = pack_of_blocks(40, is_sealed=is_sealed)
    # Where the headers of two records lie, so that the next one has to be searched for.
    storage.bad = {locations[10].offset // BLOCK, locations[15].offset // BLOCK}
    lost = touched(locations, storage.bad)
    assert 2 <= len(lost) <= 4
    salvage = Salvage(storage, pack)
    found = {record.offset for record in salvage.records()}
    assert {place.offset for place in locations} - found == lost
    assert salvage.is_sealed is is_sealed
    # What lies behind the last whole record could be read.
    assert not salvage.is_refused


def test_a_bad_block_costs_a_few_reads_and_not_one_for_each_record_before_it() -> None:
    storage, pack, locations = pack_of_blocks(400)
    storage.bad = {locations[390].offset // BLOCK}
    found = list(Salvage(storage, pack).records())
    assert len(found) == 401 - len(touched(locations, storage.bad))
    assert storage.refused < 120


@pytest.mark.parametrize("at", [0, 5, 100, BLOCK - 1, BLOCK])
def test_parts_are_all_there_and_only_what_is_refused_by_itself_is_zeros(at: int) -> None:
    storage, pack, _ = pack_of_blocks(8)
    whole = storage.read(pack, 0, storage.size(pack))
    storage.bad = {2, 5, 6}
    length = 10 * BLOCK - 77
    parts = list(read_parts(storage, pack, at, length))
    expected = bytearray(whole)
    for block in storage.bad:
        expected[block * BLOCK : (block + 1) * BLOCK] = bytes(BLOCK)
    assert b"".join(part.data for part in parts) == expected[at : at + length]
    assert sum(len(part.data) for part in parts if part.is_refused) == 3 * BLOCK
    storage.bad = set()
    assert list(read_parts(storage, pack, at, length)) == [Part(whole[at : at + length], False)]


def test_a_pack_of_which_every_read_is_refused_is_damaged() -> None:
    storage, pack, _ = pack_of_blocks(8)
    storage.bad = set(range(1000))
    salvage = Salvage(storage, pack)
    assert list(salvage.records()) == []
    assert salvage.is_refused
    assert [damage.offset for damage in salvage.damages] == [HEADER_BYTES]


def test_what_is_refused_at_the_end_is_damage_and_no_tail_that_a_crash_left() -> None:
    storage, pack, locations = pack_of_blocks(8)
    # The trailer, and the end of the last record.
    end = read_trailer(storage, pack).index_offset
    storage.bad = {(end - 1) // BLOCK, storage.size(pack) // BLOCK}
    salvage = Salvage(storage, pack)
    assert len(list(salvage.records())) == 1 + 7
    assert (salvage.is_sealed, salvage.is_refused) == (False, True)
    assert locations[7].offset in {damage.offset for damage in salvage.damages}


def test_a_tail_that_is_torn_and_can_be_read_is_no_damage() -> None:
    storage, pack, locations = pack_of_blocks(8, is_sealed=False)
    storage.recover(pack, storage.size(pack) - 5000)
    storage.bad = {locations[2].offset // BLOCK}
    salvage = Salvage(storage, pack)
    list(salvage.records())
    assert not salvage.is_refused
    assert locations[7].offset not in {damage.offset for damage in salvage.damages}
    assert salvage.whole_bytes == locations[7].offset
