"""One open pack: records in, locations out, and at the end the index and the trailer. Blocking."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple, Self
from uuid import UUID

from xxhash import xxh3_128

from lading_format.digest import blake3_digest, xxh3_64
from lading_server.common.errors import DiskLow, StorageFailed
from lading_server.common.ids import uuid7
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

    Appends take turns. Another thread may sync meanwhile: what was appended before `sync` was called is durable when it
    returns, and what is appended during it may or may not be.

    Invariant: the hash and the entries have seen exactly what the file has, in order. An append that was cut short ends
    that, so the pack takes nothing more; what is whole can still be synced.

    Memory: about 200 bytes a record until the pack is sealed. Whoever uses it bounds their number.
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
        self._failure: StorageFailed | DiskLow | None = None
        # Taken in this order where both are needed.
        self._append_lock = threading.Lock()
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
        pack: UUID | None = None,
    ) -> Self:
        """Make a pack, of a fresh id unless one is given, and write its header and its owner.

        Raises PackExists, DiskLow, StorageFailed.
        """
        pack = pack or uuid7()
        writer = cls(storage.create(pack), pack)
        owner = entity.encode()
        try:
            writer._append_bytes(encode_pack_header(PackHeader(pack_class, pack, store_id, writer_epoch)))
            writer.append([NewRecord(RecordType.OWNER, blake3_digest(owner), owner, None)])
        except BaseException:
            writer.abandon()
            raise
        return writer

    @property
    def length_bytes(self) -> int:
        """How long the pack is, with what is not synced."""
        return self._file.length_bytes

    @property
    def whole_bytes(self) -> int:
        """How long the pack is up to its last whole record."""
        return self._whole_bytes

    @property
    def record_count(self) -> int:
        """How many records it has."""
        return len(self._entries)

    @property
    def payload_bytes(self) -> int:
        """How many bytes the payloads of these records have."""
        return self._payload_bytes

    def append(self, records: Sequence[NewRecord]) -> list[Location]:
        """Append records in order and return where they are.

        Raises:
            DiskLow: There was no space, now or before; the pack takes nothing more, and what is whole can be synced.
            StorageFailed: The disk refused, or refused before; the pack takes nothing more.
            ValueError: A digest has the wrong length; nothing was written.
        """
        with self._append_lock:
            entries = self._append_records(records)
            self._entries += entries
            self._payload_bytes += sum(entry.raw_bytes for entry in entries)
        return [Location(self.pack, entry.offset, entry.stored_bytes, entry.raw_bytes) for entry in entries]

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
        """Write index and trailer, sync, and return the final length; close in any case.

        Raises DiskLow, StorageFailed.
        """
        with self._append_lock:
            try:
                # The index does not list itself.
                payload = encode_index(self._entries)
                (index,) = self._append_records([NewRecord(RecordType.INDEX, blake3_digest(payload), payload, None)])
                trailer = Trailer(index.offset, len(self._entries), self._payload_bytes, self._hash.digest())
                self._append_bytes(encode_trailer(trailer))
                return self.sync()
            finally:
                self._close()

    def abandon(self) -> None:
        """Close the pack unsealed, when an append or a sync that runs has ended."""
        with self._append_lock:
            self._close()

    def _close(self) -> None:
        with self._sync_lock:
            self._file.close()

    def _append_records(self, records: Sequence[NewRecord]) -> list[IndexEntry]:
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
        self._append_bytes(*buffers)
        return entries

    def _append_bytes(self, *buffers: Buffer) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._file.append([buffer for buffer in buffers if len(buffer)])
            for buffer in buffers:
                self._hash.update(buffer)
        except (DiskLow, StorageFailed) as error:
            self._failure = error
            raise
        except BaseException as error:
            self._failure = StorageFailed(
                f"an append to pack {self.pack} was cut short by {error!r}, and it takes nothing more; "
                "start the server again"
            )
            raise
        self._whole_bytes = self._file.length_bytes
