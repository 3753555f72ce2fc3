"""One open pack: records in, locations out, and at the end the index and the trailer. Blocking."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple, Self
from uuid import UUID

from xxhash import xxh3_128

from lading_format.digest import blake3_digest, xxh3_64
from lading_server.ingest.packs.format import (
    IndexEntry,
    PackHeader,
    RecordHeader,
    RecordType,
    Trailer,
    encode_index,
    encode_pack_header,
    encode_record_header,
    encode_trailer,
    header_seed,
    padding_of,
    record_span,
)
from lading_server.ingest.packs.storage import Buffer, PackClass, PackFile, PackStorage

_PADDING = tuple(bytes(length) for length in range(8))


class NewRecord(NamedTuple):
    """A record to append. `digest` is the payload's BLAKE3-256; `xxh3` its XXH3-64, or None to have it computed."""

    type: RecordType
    digest: bytes
    payload: Buffer
    xxh3: int | None


class Location(NamedTuple):
    """Where a record is: the offset is that of its header, the lengths are of its payload."""

    pack: UUID
    offset: int
    stored_bytes: int
    raw_bytes: int


class PackWriter:
    """Appends records to one pack.

    One thread appends at a time. Another may sync meanwhile: what was appended before `sync` was called is durable
    when it returns, and what is appended during it may or may not be.

    Memory: about 200 bytes a record until the pack is sealed; a pack of 256 MiB of the smallest records that come in
    bulk (tiny files of 1 KiB) has 250,000 of them.
    """

    def __init__(self, file: PackFile, pack: UUID) -> None:
        """Use `create`, or for a pack that a crash left open `recovery.seal_after_crash`."""
        self._file = file
        self._seed = header_seed(pack)
        self._hash = xxh3_128()
        self._entries: list[IndexEntry] = []
        self._payload_bytes = 0
        # Ends with a whole record, also while another thread is in the middle of an append.
        self._whole_bytes = file.length_bytes
        self._sync_lock = threading.Lock()
        self.pack = pack

    @classmethod
    def create(
        cls,
        storage: PackStorage,
        *,
        store_id: UUID,
        writer_epoch: int,
        pack_class: PackClass,
        entity: str,
        pack: UUID,
    ) -> Self:
        """Make a pack and write its header and its owner. Raises PackExists, StorageFailed."""
        writer = cls(storage.create(pack), pack)
        writer.append_raw(encode_pack_header(PackHeader(pack_class, pack, store_id, writer_epoch)))
        owner = entity.encode()
        writer.append([NewRecord(RecordType.OWNER, blake3_digest(owner), owner, None)])
        return writer

    @property
    def length_bytes(self) -> int:
        """How long the pack is, with what is not synced."""
        return self._file.length_bytes

    @property
    def record_count(self) -> int:
        """How many records it has."""
        return len(self._entries)

    def append(self, records: Sequence[NewRecord]) -> list[Location]:
        """Append records in order and return where they are. Raises StorageFailed: the pack takes nothing more."""
        buffers: list[Buffer] = []
        entries: list[IndexEntry] = []
        offset = self._file.length_bytes
        for kind, digest, payload, xxh3 in records:
            length = len(payload)
            checksum = xxh3_64(payload) if xxh3 is None else xxh3
            sequence = len(self._entries) + len(entries)
            header = RecordHeader(kind, length, length, checksum, digest, sequence)
            buffers += (encode_record_header(header, self._seed), payload, _PADDING[padding_of(length)])
            entries.append(IndexEntry(digest, offset, length, length, kind))
            offset += record_span(length)
        self._file.append([buffer for buffer in buffers if len(buffer)])
        for buffer in buffers:
            self._hash.update(buffer)
        self._entries += entries
        self._payload_bytes += sum(entry.raw_bytes for entry in entries)
        self._whole_bytes = self._file.length_bytes
        return [Location(self.pack, entry.offset, entry.stored_bytes, entry.raw_bytes) for entry in entries]

    def append_raw(self, data: Buffer) -> None:
        """Append bytes that are no record: a pack's header."""
        self._file.append([data])
        self._hash.update(data)
        self._whole_bytes = self._file.length_bytes

    def adopt(self, data: Buffer, entries: Sequence[IndexEntry]) -> None:
        """Take over what the pack has already, in order: its bytes for the hash, its records for the index."""
        self._hash.update(data)
        self._entries += entries
        self._payload_bytes += sum(entry.raw_bytes for entry in entries)

    def sync(self) -> int:
        """Make everything appended before the call durable; return that length. Raises StorageFailed."""
        with self._sync_lock:
            length = self._whole_bytes
            self._file.sync()
            return length

    def seal(self) -> int:
        """Write index and trailer, sync, close, and return the final length. Raises StorageFailed."""
        payload = encode_index(self._entries)
        (index,) = self._append_index(payload)
        trailer = Trailer(index.offset, len(self._entries), self._payload_bytes, self._hash.digest())
        self.append_raw(encode_trailer(trailer))
        length = self.sync()
        self._file.close()
        return length

    def abandon(self) -> None:
        """Close the pack unsealed."""
        self._file.close()

    def _append_index(self, payload: bytes) -> list[Location]:
        # The index does not list itself.
        entries, payload_bytes = list(self._entries), self._payload_bytes
        location = self.append([NewRecord(RecordType.INDEX, blake3_digest(payload), payload, None)])
        self._entries, self._payload_bytes = entries, payload_bytes
        return location
