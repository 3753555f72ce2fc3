"""What travels in an upload: files that are being read, and their chunks. Knows no I/O."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from lading._local_files import LocalFile

DIGEST_BYTES = 32


@dataclass(slots=True, eq=False)
class UploadingFile:
    """One file, from its first chunk to its commit.

    Invariant: `unsettled` is the number of chunks that were read and are not known to be durable.

    Attributes:
        source: The file on disk.
        number: Its place among the files of the upload.
        digest: Of the whole; empty until all was read.
        chunk_digests: 32 bytes a chunk, in order. Empty for a file of one chunk, which is the file's own digest.
        chunk_sizes: Bytes, in order.
        unsettled: Chunks that are not yet known to be durable.
        sent_chunks: Chunks that the server did not have.
        is_read: Whether no more chunks will come.
        durable_chunks: How many chunks from the first on are durable without a gap.
        is_handed_on: Whether it was given to be committed.
        repairs: How often chunks were sent again because the commit missed them.
    """

    source: LocalFile
    digest: bytes = b""
    chunk_digests: bytearray = field(default_factory=bytearray)
    chunk_sizes: array[int] = field(default_factory=lambda: array("I"))
    unsettled: int = 0
    sent_chunks: int = 0
    is_read: bool = False
    durable_chunks: int = 0
    is_handed_on: bool = False
    repairs: int = 0
    number: int = 0
    _ahead: set[int] = field(default_factory=set)

    @property
    def is_durable(self) -> bool:
        """Whether the file can be committed."""
        return self.is_read and not self.unsettled

    @property
    def chunk_count(self) -> int:
        """How many chunks are known."""
        return len(self.chunk_sizes)

    def settle(self, index: int) -> None:
        """Note that a chunk is durable."""
        self.unsettled -= 1
        if index != self.durable_chunks:
            self._ahead.add(index)
            return
        self.durable_chunks += 1
        while self._ahead and self.durable_chunks in self._ahead:
            self._ahead.discard(self.durable_chunks)
            self.durable_chunks += 1

    def ranges(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield index, offset, size and digest of every chunk."""
        offset = 0
        for index, size_bytes in enumerate(self.chunk_sizes):
            start = index * DIGEST_BYTES
            digest = bytes(self.chunk_digests[start : start + DIGEST_BYTES]) or self.digest
            yield index, offset, size_bytes, digest
            offset += size_bytes


@dataclass(slots=True, eq=False)
class Chunk:
    """Some bytes of a file on their way.

    Attributes:
        file: The file that they were read from.
        index: The chunk's place in it.
        digest: BLAKE3-256 of the data.
        xxh3: XXH3-64 of the data.
        data: The bytes: what the budget counts. A view of what was read with it, which stays in memory as well.
        twins: Other places, in this file or another, of the same bytes, seen while these were on their way.
        damaged_count: How often the server saw them damaged.
    """

    file: UploadingFile
    index: int
    digest: bytes
    xxh3: int
    data: bytes | memoryview
    twins: list[tuple[UploadingFile, int, int]] | None = None
    damaged_count: int = 0
