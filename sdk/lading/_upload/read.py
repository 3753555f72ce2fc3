"""Reads, cuts and hashes files. Everything here runs in threads; it knows no gRPC and no event loop."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType

from lading._errors import FileChanged
from lading._local_files import LocalFile
from lading._upload.content import Chunk, UploadingFile
from lading_format import chunking
from lading_format.borders import format_borders
from lading_format.chunking import SMALL_FILE_BYTES, iter_file_chunks
from lading_format.digest import blake3_digest, new_hasher, xxh3_64

# What is read at once: many small files, or this much of a large one.
BLOCK_BYTES = 8 << 20
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_batch(files: Sequence[UploadingFile]) -> list[Chunk]:
    """Read whole files of up to BLOCK_BYTES each; return their chunks.

    Raises:
        FileChanged: One is not as it was found.
        OSError: One cannot be read.
    """
    chunks: list[Chunk] = []
    for file in files:
        if file.source.size_bytes > SMALL_FILE_BYTES:
            with LargeFile(file) as large:
                while not file.is_read:
                    pieces = large.cut()
                    chunks += large.hash(pieces, are_last=not large.next_bytes())
            continue
        data = _read_whole(file.source)
        file.digest = blake3_digest(data)
        file.is_read = True
        if data:
            file.chunk_sizes.append(len(data))
            file.unsettled = 1
            chunks.append(Chunk(file, 0, file.digest, xxh3_64(data), data))
    return chunks


def read_again(file: UploadingFile, index: int, offset: int, size_bytes: int, digest: bytes) -> Chunk:
    """Read one chunk of a file that was read before.

    Raises:
        FileChanged: It is not what it was.
    """
    fd = _open(file.source)
    try:
        data = os.pread(fd, size_bytes, offset)
    finally:
        os.close(fd)
    if blake3_digest(data) != digest:
        raise _changed(file.source)
    return Chunk(file, index, digest, xxh3_64(data), data)


class LargeFile:
    """One file of several chunks. A context manager; for one thread that cuts and one that hashes.

    Invariant: the hasher has seen exactly the bytes of the chunks that were returned, in order.
    """

    def __init__(self, file: UploadingFile) -> None:
        self._file = file
        self._fd = _open(file.source)
        self._hasher = new_hasher()
        self._pieces: Iterator[tuple[int, memoryview]] | None = None
        self._position = 0

    def __enter__(self) -> LargeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def next_bytes(self) -> int:
        """About how many bytes the next `cut` returns: up to one chunk more. 0 at the end."""
        return min(BLOCK_BYTES, self._file.source.size_bytes - self._position)

    def cut(self) -> list[memoryview]:
        """Read and return the next pieces.

        Raises:
            FileChanged: The file is not as it was found.
        """
        source = self._file.source
        until = self._position + self.next_bytes()
        pieces: list[memoryview] = []
        try:
            while self._position < until:
                _, piece = next(self._each())
                self._position += len(piece)
                pieces.append(piece)
        except chunking.FileChanged as error:
            raise _changed(source) from error
        if self._position == source.size_bytes and not source.is_still(os.fstat(self._fd)):
            raise _changed(source)
        return pieces

    def hash(self, pieces: Sequence[memoryview], *, are_last: bool) -> list[Chunk]:
        """Return the chunks of what was cut, in the order of cutting. The last ones mark the file as read."""
        chunks: list[Chunk] = []
        for piece in pieces:
            self._hasher.update(piece)
            chunks.append(_added(self._file, piece))
        if are_last:
            self._file.digest = self._hasher.digest()
            self._file.is_read = True
        return chunks

    def _each(self) -> Iterator[tuple[int, memoryview]]:
        """Return the file's pieces. Not before a thread reads: where to cut may be in the file."""
        if self._pieces is None:
            size_bytes = self._file.source.size_bytes
            borders = format_borders(
                lambda offset, length: os.pread(self._fd, length, offset), size_bytes, self._file.source.location
            )
            self._pieces = iter_file_chunks(self._fd, size_bytes, borders)
        return self._pieces


def _added(file: UploadingFile, data: memoryview) -> Chunk:
    """Add a chunk to the file's list, and return it."""
    digest = blake3_digest(data)
    file.chunk_digests += digest
    file.chunk_sizes.append(len(data))
    file.unsettled += 1
    return Chunk(file, file.chunk_count - 1, digest, xxh3_64(data), data)


def _read_whole(source: LocalFile) -> bytes:
    fd = _open(source)
    try:
        # One byte more than there should be, to see a file that grew.
        data = os.read(fd, source.size_bytes + 1)
        if len(data) != source.size_bytes or not source.is_still(os.fstat(fd)):
            raise _changed(source)
    finally:
        os.close(fd)
    return data


def _open(source: LocalFile) -> int:
    try:
        return os.open(source.location, _READ_FLAGS)
    except FileNotFoundError as error:
        raise FileChanged(f"{source.location!r} was removed while it was uploaded. Upload again.") from error


def _changed(source: LocalFile) -> FileChanged:
    return FileChanged(f"{source.location!r} changed while it was uploaded. Upload again when nobody writes to it.")
