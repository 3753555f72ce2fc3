"""A small sealed pack, and what can be done to its bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cache
from uuid import UUID

from xxhash import xxh3_64_intdigest, xxh3_128_digest

from lading_server.ingest.packs.format import HEADER_BYTES, header_seed
from lading_server.ingest.packs.memory import MemoryPackStorage
from lading_server.ingest.packs.storage import PackStorage
from tests.unit.lading_server.ingest.packs.samples import open_pack, payloads, records

PACK = UUID("018f0000-0000-7000-8000-0000000000aa")
# What a reader takes in one go at most, beside what the pack itself has.
RUN_BYTES = 8 << 20


@cache
def sealed_pack() -> bytes:
    """The bytes of a pack with records of every kind of length."""
    storage = MemoryPackStorage()
    writer = open_pack(storage, PACK)
    writer.append(records(payloads((1, 7, 8, 9, 0, 63, 64, 65, 300))))
    size_bytes = writer.seal()
    return storage.read(PACK, 0, size_bytes)


@dataclass
class BytesAsPack:
    """A storage with one pack of these bytes, which notes the most that was asked for at once."""

    data: bytes
    most_bytes: int = field(default=0)

    def storage(self) -> PackStorage:
        whole = MemoryPackStorage()
        file = whole.create(PACK)
        file.append([self.data])
        file.sync()
        read = whole.read

        def noted(pack: UUID, offset: int, length: int) -> bytes:
            self.most_bytes = max(self.most_bytes, length)
            return read(pack, offset, length)

        whole.read = noted  # type: ignore[method-assign]
        return whole


def mutated(changes: bytes) -> bytes:
    """Return the pack with bytes changed as `changes` says: five bytes each, an offset, what to do, and with what.

    One that was changed gets right checksums where it can, so that what is behind them is reached too.
    """
    data = bytearray(sealed_pack())
    for at in range(0, len(changes) - 4, 5):
        offset, action, value = struct.unpack_from("<HBH", changes, at)
        offset %= max(len(data), 1)
        match action % 6:
            case 0:
                data[offset : offset + 1] = bytes([value & 0xFF])
            case 1:
                data[offset : offset + 4] = struct.pack("<I", value << (action & 0x0F))
            case 2:
                del data[offset:]
            case 3:
                del data[offset : offset + value % 200]
            case 4:
                data[offset:offset] = bytes(value % 200)
            case _:
                _reseal(data, offset // 8 * 8)
    return bytes(data)


def _reseal(data: bytearray, offset: int) -> None:
    """Give the header, record or trailer that begins here a right checksum."""
    if len(data) < offset + HEADER_BYTES:
        return
    block = bytes(data[offset : offset + HEADER_BYTES])
    if block[:4] == b"LDRC":
        checksum = xxh3_64_intdigest(block[:-4], header_seed(PACK)) & 0xFFFFFFFF
        data[offset + HEADER_BYTES - 4 : offset + HEADER_BYTES] = struct.pack("<I", checksum)
        return
    if offset and offset + HEADER_BYTES == len(data):
        data[offset + 32 : offset + 48] = xxh3_128_digest(bytes(data[:offset]))
        block = bytes(data[offset : offset + HEADER_BYTES])
    data[offset + 56 : offset + 64] = struct.pack("<Q", xxh3_64_intdigest(block[:-8]))
