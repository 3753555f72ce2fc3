"""Records by location, verified; and walking through a pack. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    Raises CorruptRecord when a header or a payload does not have its checksum, or a record is not the one that was
    expected; the metadata says which.
    """
    payloads: list[memoryview] = [memoryview(b"")] * len(locations)
    for run in _runs(locations):
        data = memoryview(_read(storage, run))
        seed = header_seed(run.pack)
        for position in run.positions:
            location = locations[position]
            at = location.offset - run.begin
            payloads[position] = _verified(data, at, location, digests[position], seed)
    return payloads


def _runs(locations: Sequence[Location]) -> Iterator[_Run]:
    run: _Run | None = None
    for position, location in enumerate(locations):
        end = location.offset + HEADER_BYTES + location.stored_bytes
        if (
            run is not None
            and location.pack == run.pack
            and run.begin <= location.offset <= run.end + _GAP_BYTES
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


def _verified(data: memoryview, at: int, location: Location, digest: bytes, seed: int) -> memoryview:
    try:
        header = decode_record_header(data[at : at + HEADER_BYTES], seed)
        if header.digest != digest or header.stored_bytes != location.stored_bytes:
            raise CorruptRecord("another record is where this one should be")
        payload = data[at + HEADER_BYTES : at + HEADER_BYTES + header.stored_bytes]
        if xxh3_64(payload) != header.xxh3:
            raise CorruptRecord("the payload does not have its checksum")
    except CorruptRecord as error:
        raise CorruptRecord(
            f"record b3:{digest.hex()} at {location.offset} of pack {location.pack} is damaged: {error.message}; "
            "store the same content again to heal it, and tell the operator",
            pack=location.pack,
            offset=location.offset,
        ) from error
    return payload


def read_pack_header(storage: PackStorage, pack: UUID) -> PackHeader:
    """Return a pack's header. Raises CorruptRecord, PackNotFound, ShortRead."""
    header = decode_pack_header(storage.read(pack, 0, HEADER_BYTES))
    if header.pack != pack:
        raise CorruptRecord(f"pack {pack} has the header of pack {header.pack}", pack=pack)
    return header


def scan_records(storage: PackStorage, pack: UUID, upto_bytes: int) -> Iterator[ScannedRecord]:
    """Walk through a pack's records, verifying headers and payloads, up to a length.

    Raises CorruptRecord where one is damaged or does not end at or before `upto_bytes`; PackNotFound, ShortRead.
    """
    seed = header_seed(pack)
    offset = HEADER_BYTES
    data, begin = memoryview(b""), offset
    while offset < upto_bytes:
        if offset + HEADER_BYTES > upto_bytes:
            raise CorruptRecord(f"pack {pack} has a torn record at {offset}", pack=pack, offset=offset)
        if offset + HEADER_BYTES > begin + len(data):
            data, begin = _window(storage, pack, offset, upto_bytes, _RUN_BYTES), offset
        header = decode_record_header(data[offset - begin :][:HEADER_BYTES], seed)
        end = offset + record_span(header.stored_bytes)
        if end > upto_bytes:
            raise CorruptRecord(f"pack {pack} has a torn record at {offset}", pack=pack, offset=offset)
        if end > begin + len(data):
            data, begin = _window(storage, pack, offset, upto_bytes, max(_RUN_BYTES, end - offset)), offset
        payload = data[offset - begin + HEADER_BYTES :][: header.stored_bytes]
        if xxh3_64(payload) != header.xxh3:
            raise CorruptRecord(f"the record at {offset} of pack {pack} is damaged", pack=pack, offset=offset)
        yield ScannedRecord(offset, header, payload)
        offset = end


def _window(storage: PackStorage, pack: UUID, offset: int, upto_bytes: int, length: int) -> memoryview:
    return memoryview(storage.read(pack, offset, min(length, upto_bytes - offset)))


def read_trailer(storage: PackStorage, pack: UUID) -> Trailer:
    """Return a sealed pack's trailer. Raises CorruptRecord when it is not sealed; PackNotFound."""
    size_bytes = storage.size(pack)
    if size_bytes < 2 * HEADER_BYTES:
        raise CorruptRecord(f"pack {pack} has no trailer", pack=pack)
    return decode_trailer(storage.read(pack, size_bytes - HEADER_BYTES, HEADER_BYTES))


def read_index(storage: PackStorage, pack: UUID) -> list[IndexEntry]:
    """Return where a sealed pack's records are, sorted by digest. Raises CorruptRecord, PackNotFound."""
    trailer = read_trailer(storage, pack)
    if trailer.index_offset + 2 * HEADER_BYTES > storage.size(pack):
        raise CorruptRecord(f"the trailer of pack {pack} points outside of it", pack=pack)
    records = scan_from(storage, pack, trailer.index_offset, storage.size(pack) - HEADER_BYTES)
    if records.header.type is not RecordType.INDEX:
        raise CorruptRecord(f"the trailer of pack {pack} does not point at its index", pack=pack)
    return list(decode_index(records.payload))


def scan_from(storage: PackStorage, pack: UUID, offset: int, upto_bytes: int) -> ScannedRecord:
    """Return the one record between two offsets. Raises CorruptRecord."""
    header = decode_record_header(storage.read(pack, offset, HEADER_BYTES), header_seed(pack))
    if offset + record_span(header.stored_bytes) != upto_bytes:
        raise CorruptRecord(f"the record at {offset} of pack {pack} does not end where it should", pack=pack)
    payload = memoryview(storage.read(pack, offset + HEADER_BYTES, header.stored_bytes))
    if xxh3_64(payload) != header.xxh3:
        raise CorruptRecord(f"the record at {offset} of pack {pack} is damaged", pack=pack, offset=offset)
    return ScannedRecord(offset, header, payload)


def verify_pack(storage: PackStorage, pack: UUID) -> Trailer:
    """Read a whole sealed pack against the checksum of its trailer. Raises CorruptRecord, PackNotFound."""
    read_pack_header(storage, pack)
    trailer = read_trailer(storage, pack)
    whole = xxh3_128()
    end = storage.size(pack) - HEADER_BYTES
    for offset in range(0, end, _RUN_BYTES):
        whole.update(storage.read(pack, offset, min(_RUN_BYTES, end - offset)))
    if whole.digest() != trailer.xxh3_128:
        raise CorruptRecord(f"pack {pack} does not have its checksum", pack=pack)
    return trailer
