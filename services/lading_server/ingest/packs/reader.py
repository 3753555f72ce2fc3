"""Records by location, verified; and walking through a pack. Blocking."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple
from uuid import UUID

from xxhash import xxh3_128

from lading_format.digest import xxh3_64
from lading_server.common.errors import CorruptRecord
from lading_server.ingest.packs.format import (
    HEADER_BYTES,
    IndexEntry,
    PackHeader,
    RecordHeader,
    RecordType,
    Trailer,
    decode_index,
    decode_pack_header,
    decode_record_header,
    decode_trailer,
    header_seed,
    record_span,
)
from lading_server.ingest.packs.storage import PackNotFound, PackStorage, ShortRead
from lading_server.ingest.packs.writer import Location

# Neighbours closer than this are read together: reading so much costs less than another system call.
_GAP_BYTES = 64 << 10
# Read in one call: bounds the memory of a run.
_RUN_BYTES = 8 << 20


class ScannedRecord(NamedTuple):
    """A record met while walking through a pack."""

    offset: int
    header: RecordHeader
    payload: memoryview


class _Run(NamedTuple):
    """Records that are read with one call: their positions in the request, and where they lie."""

    pack: UUID
    begin: int
    end: int
    positions: list[int]


def read_payloads(storage: PackStorage, locations: Sequence[Location], digests: Sequence[bytes]) -> list[memoryview]:
    """Return the payloads of records, in the order that was asked for; neighbours are read together.

    Raises:
        CorruptRecord: A header or a payload does not have its checksum, or a record is not the one that was expected,
            or the pack is gone or short; the metadata says which.
        ValueError: There are not as many digests as locations.
    """
    if len(locations) != len(digests):
        raise ValueError(f"{len(locations)} locations need as many digests, and there are {len(digests)}")
    payloads: list[memoryview] = [memoryview(b"")] * len(locations)
    for run in _runs(locations):
        data = memoryview(_read(storage, run))
        seed = header_seed(run.pack)
        for position in run.positions:
            payloads[position] = _expected(data, run.begin, locations[position], digests[position], seed)
    return payloads


def _runs(locations: Sequence[Location]) -> Iterator[_Run]:
    run: _Run | None = None
    # By place: neighbours are found in whatever order they are asked for.
    for position in sorted(range(len(locations)), key=lambda each: (locations[each].pack.int, locations[each].offset)):
        location = locations[position]
        end = location.offset + HEADER_BYTES + location.stored_bytes
        if (
            run is not None
            and location.pack == run.pack
            and location.offset <= run.end + _GAP_BYTES
            and end - run.begin <= _RUN_BYTES
        ):
            run.positions.append(position)
            run = run._replace(end=max(run.end, end))
            continue
        if run is not None:
            yield run
        run = _Run(location.pack, location.offset, end, [position])
    if run is not None:
        yield run


def _read(storage: PackStorage, run: _Run) -> bytes:
    try:
        return storage.read(run.pack, run.begin, run.end - run.begin)
    except (ShortRead, PackNotFound) as error:
        raise CorruptRecord(f"{error}; tell the operator", pack=run.pack, offset=run.begin) from error


def _expected(data: memoryview, begin: int, location: Location, digest: bytes, seed: int) -> memoryview:
    """Return the payload of one record of a run, if it is the one that was asked for."""
    at = location.offset - begin
    try:
        header = decode_record_header(data[at : at + HEADER_BYTES], seed)
        if header.digest != digest or header.stored_bytes != location.stored_bytes:
            raise CorruptRecord("another record is where this one should be")
        return _payload(data, at, header)
    except CorruptRecord as error:
        raise CorruptRecord(
            f"record b3:{digest.hex()} at {location.offset} of pack {location.pack} is damaged: {error.message}; "
            "store the same content again to heal it, and tell the operator",
            pack=location.pack,
            offset=location.offset,
        ) from error


def _unverified(data: memoryview, at: int, header: RecordHeader) -> memoryview:
    return data[at + HEADER_BYTES : at + HEADER_BYTES + header.stored_bytes]


def _payload(data: memoryview, at: int, header: RecordHeader) -> memoryview:
    payload = _unverified(data, at, header)
    if xxh3_64(payload) != header.xxh3:
        raise CorruptRecord("the payload does not have its checksum")
    return payload


@contextmanager
def _placed(pack: UUID, offset: int) -> Iterator[None]:
    """Say of whatever is found damaged inside where it is."""
    try:
        yield
    except CorruptRecord as error:
        raise CorruptRecord(f"pack {pack} at {offset}: {error.message}", pack=pack, offset=offset) from error


def read_pack_header(storage: PackStorage, pack: UUID) -> PackHeader:
    """Return a pack's header. Raises CorruptRecord, PackNotFound, ShortRead."""
    data = storage.read(pack, 0, HEADER_BYTES)
    with _placed(pack, 0):
        header = decode_pack_header(data)
        if header.pack != pack:
            raise CorruptRecord(f"this is the header of pack {header.pack}")
    return header


def scan_records(
    storage: PackStorage, pack: UUID, upto_bytes: int, *, verified: Container[RecordType] = frozenset(RecordType)
) -> Iterator[ScannedRecord]:
    """Walk through a pack's records, verifying headers, payloads and their order, up to a length.

    Args:
        verified: Of records of other types the payload is not held against its checksum.

    Raises CorruptRecord where one is damaged, stands where another should, or does not end at or before `upto_bytes`;
    PackNotFound, ShortRead.
    """
    seed = header_seed(pack)
    offset = HEADER_BYTES
    data, begin = memoryview(b""), offset
    for sequence in count():
        if offset >= upto_bytes:
            return
        with _placed(pack, offset):
            if offset + HEADER_BYTES > upto_bytes:
                raise CorruptRecord("a torn record: it has not even a header")
            if offset + HEADER_BYTES > begin + len(data):
                data, begin = _window(storage, pack, offset, upto_bytes, _RUN_BYTES), offset
            header = decode_record_header(data[offset - begin :][:HEADER_BYTES], seed)
            if header.sequence != sequence:
                raise CorruptRecord(f"record {header.sequence} stands where number {sequence} should")
            end = offset + record_span(header.stored_bytes)
            if end > upto_bytes:
                raise CorruptRecord(f"a torn record: it ends at {end}, after {upto_bytes}")
            if end > begin + len(data):
                data, begin = _window(storage, pack, offset, upto_bytes, max(_RUN_BYTES, end - offset)), offset
            verify = _payload if header.type in verified else _unverified
            payload = verify(data, offset - begin, header)
        yield ScannedRecord(offset, header, payload)
        offset = end


def _window(storage: PackStorage, pack: UUID, offset: int, upto_bytes: int, length: int) -> memoryview:
    return memoryview(storage.read(pack, offset, min(length, upto_bytes - offset)))


def read_trailer(storage: PackStorage, pack: UUID) -> Trailer:
    """Return a sealed pack's trailer. Raises CorruptRecord when it is not sealed; PackNotFound."""
    size_bytes = storage.size(pack)
    offset = max(0, size_bytes - HEADER_BYTES)
    with _placed(pack, offset):
        if size_bytes < 2 * HEADER_BYTES:
            raise CorruptRecord(f"{size_bytes} bytes are too short for a pack with a trailer")
        return decode_trailer(storage.read(pack, offset, HEADER_BYTES))


def read_index(storage: PackStorage, pack: UUID) -> list[IndexEntry]:
    """Return where a sealed pack's records are, sorted by digest. Raises CorruptRecord, PackNotFound."""
    trailer = read_trailer(storage, pack)
    offset, end = trailer.index_offset, storage.size(pack) - HEADER_BYTES
    with _placed(pack, offset):
        if offset + HEADER_BYTES > end:
            raise CorruptRecord("the trailer says that the index is here, and no record fits")
        header = decode_record_header(storage.read(pack, offset, HEADER_BYTES), header_seed(pack))
        if header.type is not RecordType.INDEX or offset + record_span(header.stored_bytes) != end:
            raise CorruptRecord("the trailer says that the index is here, and it is another record")
        return list(decode_index(_payload(memoryview(storage.read(pack, offset, end - offset)), 0, header)))


def verify_pack(storage: PackStorage, pack: UUID) -> Trailer:
    """Read a whole sealed pack against the checksum of its trailer. Raises CorruptRecord, PackNotFound."""
    read_pack_header(storage, pack)
    trailer = read_trailer(storage, pack)
    whole = xxh3_128()
    end = storage.size(pack) - HEADER_BYTES
    for offset in range(0, end, _RUN_BYTES):
        whole.update(storage.read(pack, offset, min(_RUN_BYTES, end - offset)))
    if whole.digest() != trailer.xxh3_128:
        raise CorruptRecord(f"pack {pack} does not have its checksum", pack=pack, offset=0)
    return trailer
