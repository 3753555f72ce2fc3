"""What travels in an upload: files that are being read, and their chunks. Knows no I/O."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from lading._local_files import LocalFile
from lading._upload.blocks import Block

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
    chunk_digests: bytes | bytearray = b""
    chunk_sizes: tuple[int, ...] | array[int] = ()
    unsettled: int = 0
    sent_chunks: int = 0
    is_read: bool = False
    durable_chunks: int = 0
    is_handed_on: bool = False
    repairs: int = 0
    number: int = 0
    _ahead: set[int] | None = None

    @property
    def is_durable(self) -> bool:
        """Whether the file can be committed."""
        return self.is_read and not self.unsettled

    @property
    def chunk_count(self) -> int:
        """How many chunks are known."""
        return len(self.chunk_sizes)

    def be_one_chunk(self, digest: bytes) -> None:
        """Note that the whole file was read as one chunk; an empty one is none."""
        self.digest = digest
        self.is_read = True
        if self.source.size_bytes:
            self.chunk_sizes = (self.source.size_bytes,)
            self.unsettled = 1

    def add_chunk(self, digest: bytes, size_bytes: int) -> int:
        """Note that another chunk was read; return its index."""
        # Made here: most files are one chunk, and there may be a million.
        if not isinstance(self.chunk_sizes, array):
            self.chunk_digests, self.chunk_sizes = bytearray(), array("I")
        self.chunk_digests += digest
        self.chunk_sizes.append(size_bytes)
        self.unsettled += 1
        return len(self.chunk_sizes) - 1

    def settle(self, index: int) -> None:
        """Note that a chunk is durable."""
        self.unsettled -= 1
        if index != self.durable_chunks:
            if self._ahead is None:
                self._ahead = set()
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
        data: The bytes: a view of the block.
        block: What they were read into. Nobody looks at them when they were released.
        twins: Other places, in this file or another, of the same bytes, seen while these were on their way.
        damaged_count: How often the server saw them damaged.
    """

    file: UploadingFile
    index: int
    digest: bytes
    xxh3: int
    data: bytes | memoryview
    block: Block
    twins: list[tuple[UploadingFile, int, int]] | None = None
    damaged_count: int = 0
