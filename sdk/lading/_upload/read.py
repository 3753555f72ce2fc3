"""Reads, cuts and hashes files. Everything here runs in threads; it knows no gRPC and no event loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType

from lading._errors import FileChanged
from lading._local_files import LocalFile
from lading._upload.blocks import Block
from lading._upload.content import Chunk, UploadingFile
from lading_format import chunking
from lading_format.borders import format_borders
from lading_format.chunking import SMALL_FILE_BYTES, FileCutter
from lading_format.digest import blake3_digest, new_hasher, xxh3_64

# What is read at once: many small files, or this much of a large one.
BLOCK_BYTES = 8 << 20
# Where what a file has more than it should is read to.
_SURPLUS = bytearray(1)
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_batch(files: Sequence[UploadingFile], block: Block) -> list[Chunk]:
    """Read whole files, all of which fit into a block; return their chunks.

    Raises:
        FileChanged: One is not as it was found.
        OSError: One cannot be read.
    """
    chunks: list[Chunk] = []
    begin = 0
    for file in files:
        data = block.memory[begin : begin + file.source.size_bytes]
        begin += len(data)
        if len(data) > SMALL_FILE_BYTES:
            with LargeFile(file) as large:
                while not file.is_read:
                    chunks += large.hash(block, large.cut(data), are_last=large.is_cut)
            continue
        _read_whole(file.source, data)
        file.be_one_chunk(blake3_digest(data))
        if data:
            chunks.append(Chunk(file, 0, file.digest, xxh3_64(data), data, block))
    return chunks


def read_again(file: UploadingFile, index: int, offset: int, size_bytes: int, digest: bytes, block: Block) -> Chunk:
    """Read one chunk of a file that was read before.

    Raises:
        FileChanged: It is not what it was.
    """
    data = block.memory[:size_bytes]
    fd = _open(file.source)
    try:
        count = os.preadv(fd, [data], offset)
    finally:
        os.close(fd)
    if count != size_bytes or blake3_digest(data) != digest:
        raise _changed(file.source)
    return Chunk(file, index, digest, xxh3_64(data), data, block)


class LargeFile:
    """One file of several chunks. A context manager; for one thread that cuts and one that hashes.

    Invariant: the hasher has seen exactly the bytes of the chunks that were returned, in order.

    Attributes:
        is_cut: Whether its last piece was returned.
    """

    def __init__(self, file: UploadingFile) -> None:
        self._file = file
        self._fd = _open(file.source)
        self._hasher = new_hasher()
        self._cutter: FileCutter | None = None
        self.is_cut = False

    def __enter__(self) -> LargeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def cut(self, memory: memoryview) -> list[memoryview]:
        """Read the next pieces and return them: views of the memory, which has room for a block or for all of them.

        Raises:
            FileChanged: The file is not as it was found.
        """
        source = self._file.source
        if self._cutter is None:
            # Not before a thread reads: where to cut may be in the file.
            borders = format_borders(
                lambda offset, length: os.pread(self._fd, length, offset), source.size_bytes, source.location
            )
            self._cutter = FileCutter(self._fd, source.size_bytes, borders)
        try:
            pieces = self._cutter.cut(memory)
        except chunking.FileChanged as error:
            raise _changed(source) from error
        self.is_cut = not self._cutter.left_bytes
        if self.is_cut and not source.is_still(os.fstat(self._fd)):
            raise _changed(source)
        return pieces

    def hash(self, block: Block, pieces: Sequence[memoryview], *, are_last: bool) -> list[Chunk]:
        """Return the chunks of what was cut, in the order of cutting. The last ones mark the file as read."""
        chunks: list[Chunk] = []
        for piece in pieces:
            self._hasher.update(piece)
            chunks.append(_added(self._file, piece, block))
        if are_last:
            self._file.digest = self._hasher.digest()
            self._file.is_read = True
        return chunks


def _added(file: UploadingFile, data: memoryview, block: Block) -> Chunk:
    """Add a chunk to the file's list, and return it."""
    digest = blake3_digest(data)
    return Chunk(file, file.add_chunk(digest, len(data)), digest, xxh3_64(data), data, block)


def _read_whole(source: LocalFile, data: memoryview) -> None:
    fd = _open(source)
    try:
        # One byte more than there should be, to see a file that grew.
        count = os.preadv(fd, [data, _SURPLUS], 0)
        if count != source.size_bytes or not source.is_still(os.fstat(fd)):
            raise _changed(source)
    finally:
        os.close(fd)


def _open(source: LocalFile) -> int:
    try:
        return os.open(source.location, _READ_FLAGS)
    except FileNotFoundError as error:
        raise FileChanged(f"{source.location!r} was removed while it was uploaded. Upload again.") from error


def _changed(source: LocalFile) -> FileChanged:
    return FileChanged(f"{source.location!r} changed while it was uploaded. Upload again when nobody writes to it.")
