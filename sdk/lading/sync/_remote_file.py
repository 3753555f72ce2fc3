"""A stored file as an ordinary binary file object."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import lading._remote_file as native
from lading.sync._loop import loop

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What the asynchronous side reads ahead anyway; smaller pieces would cross between threads for every line.
_BUFFER_BYTES = 1 << 20


class _Raw(io.RawIOBase):
    """The unbuffered half."""

    def __init__(self, file: native.RemoteFile) -> None:
        self._file = file
        self._loop = loop()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._loop.run(self._file.read(len(view)))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._loop.run(self._file.read(-1))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._loop.run(self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            try:
                self._loop.run(self._file.close())
            finally:
                super().close()


class RemoteFile(io.BufferedReader):
    """A file of a version, open for reading: what `open(path, "rb")` gives, for `torch.load`, `numpy.load` and others.

    Bytes that are read from the file's start to its end in order are verified, as those of `lading.RemoteFile` are.
    """

    def __init__(self, file: native.RemoteFile) -> None:
        super().__init__(_Raw(file), _BUFFER_BYTES)
        self._file = file

    @property
    def path(self) -> str:
        """Its path in the version."""
        return self._file.path

    @property
    def digest(self) -> str:
        """Its digest, `b3:<64 hex>`."""
        return self._file.digest

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self._file.size
