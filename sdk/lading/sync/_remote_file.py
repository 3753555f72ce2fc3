"""A stored file as an ordinary binary file object."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import lading._remote_file as native
from lading._errors import FailedPrecondition, IntegrityError, LadingError
from lading.sync._loop import loop

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# What the asynchronous side reads ahead anyway; smaller pieces would cross between threads for every line.
_BUFFER_BYTES = 1 << 20


class _Raw(io.RawIOBase):
    """The unbuffered half.

    A read of the buffered half that fails here drops what it had taken from its buffer, and goes on after it the next
    time. So after a failure that may have cost something every read is refused, until it is said where to go on.
    """

    def __init__(self, file: native.RemoteFile) -> None:
        self._file = file
        self._loop = loop()
        self._has_given = False  # since the last seek
        self._refusal: tuple[type[LadingError], str] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(-1)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        position = self._loop.run(self._file.seek(offset, whence))
        self._has_given = False
        self._refusal = None
        return position

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            try:
                self._loop.run(self._file.close())
            finally:
                super().close()

    def _read(self, size_bytes: int) -> bytes:
        if self._refusal is not None:
            kind, reason = self._refusal
            raise kind(reason)
        began_at = self._file.tell()
        try:
            data = self._loop.run(self._file.read(size_bytes))
        except BaseException as error:
            # Ctrl-C may come when the read has ended and its bytes are still on their way.
            if self._has_given or self._file.tell() != began_at:
                self._refusal = _refused_after(error)
            raise
        self._has_given = True
        return data


class RemoteFile(io.BufferedReader):
    """A file of a version, open for reading: what `open(path, "rb")` gives, for `torch.load`, `numpy.load` and others.

    Bytes that are read from the file's start to its end in order are verified, as those of `lading.RemoteFile` are.
    After a read that failed in the middle of the file every read fails, until `seek` says where to go on.
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


def _refused_after(error: BaseException) -> tuple[type[LadingError], str]:
    """Return what later reads raise. Not the error itself: it would keep the file, by its traceback."""
    if isinstance(error, IntegrityError):
        return IntegrityError, str(error)
    return (
        FailedPrecondition,
        f"A read of this file failed, and the next would leave something out. Seek to where to read on. ({error!r})",
    )
