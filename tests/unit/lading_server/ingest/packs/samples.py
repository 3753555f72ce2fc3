"""Packs for tests: small records, and packs that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

from lading_format.digest import blake3_digest
from lading_server.ingest.packs.format import RecordType
from lading_server.ingest.packs.storage import PackClass, PackStorage
from lading_server.ingest.packs.writer import Location, NewRecord, PackWriter

STORE = UUID("018f0000-0000-7000-8000-000000000001")
# Lengths with every kind of padding, an empty payload, and one of several buffers' worth.
LENGTHS = (1, 7, 8, 9, 0, 63, 64, 65, 1000, 70_001)


def payloads(lengths: Sequence[int] = LENGTHS) -> list[bytes]:
    """Return different payloads of these lengths."""
    return [(bytes([number + 1]) * 13 * (length // 13 + 1))[:length] for number, length in enumerate(lengths)]


def records(contents: Sequence[bytes]) -> list[NewRecord]:
    """Return a chunk record for each content."""
    return [NewRecord(RecordType.CHUNK, blake3_digest(content), content, None) for content in contents]


def open_pack(storage: PackStorage, pack: UUID | None = None, entity: str = "acme") -> PackWriter:
    """Return a new pack that holds its owner."""
    return PackWriter.create(
        storage, store_id=STORE, writer_epoch=3, pack_class=PackClass.DATA, entity=entity, pack=pack or uuid4()
    )


def pack_of(storage: PackStorage, contents: Sequence[bytes]) -> tuple[PackWriter, list[Location]]:
    """Return an open, synced pack that holds these contents, and where."""
    writer = open_pack(storage)
    locations = writer.append(records(contents))
    writer.sync()
    return writer, locations
