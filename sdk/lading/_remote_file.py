"""A stored file that is read by ranges, with read-ahead, as if it were here."""

from __future__ import annotations

import asyncio
import io
import os
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING

from lading._errors import IntegrityError, InvalidArgument
from lading_format.digest import format_digest, new_hasher

if TYPE_CHECKING:
    from lading._content_reads import ContentReads

# One read of a header costs little more than its round trip; a file that is read in order soon comes in few calls.
_FIRST_BYTES = 256 << 10
_BLOCK_BYTES = 8 << 20


class RemoteFile:
    """A file of a version, open for reading. An async context manager; for one task at a time.

    Whoever reads in order has the next block fetched meanwhile; blocks grow to 8 MiB, and two are in memory at most.
    Bytes that are read from the file's start to its end in order are verified: the `read` that comes to the end raises
    when they do not have the file's digest, and so does every later one until the file is read from its start again.
    Each read from the start begins anew. Of a file that is read in parts, the parts are as the server sent them.

    Invariant: `_block` holds the file's bytes from `_block_offset` on; between reads, the hasher has seen exactly the
    first `_hashed_bytes` bytes of the file, as they were returned since it was last read from the start.

    Attributes:
        path: Its path in the version.
        digest: `b3:<64 hex>`.
        size: Its size in bytes.
    """

    def __init__(
        self, content: ContentReads, path: str, digest: str, size_bytes: int, cached_fd: int | None = None
    ) -> None:
        """Use what opened it.

        Args:
            content: Where its bytes come from.
            path: Its path in the version.
            digest: `b3:<64 hex>`.
            size_bytes: Its size.
            cached_fd: The same file on this machine, which was just hashed; closed with this one.
        """
        self.path = path
        self.digest = digest
        self.size = size_bytes
        self._content = content
        self._cached_fd = cached_fd
        self._position = 0
        self._block = b""
        self._block_offset = 0
        self._block_bytes = _FIRST_BYTES
        self._ahead: asyncio.Task[bytes] | None = None
        self._ahead_offset = 0
        self._hasher = new_hasher()
        self._hashed_bytes = 0
        self._is_wrong = False
        self._closed = False

    async def __aenter__(self) -> RemoteFile:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, n: int = -1) -> bytes:
        """Return the next `n` bytes, fewer at the end of the file; all that are left when `n` is negative.

        A read that fails or is cancelled has read nothing: the next one begins where it began.

        Raises:
            IntegrityError: The file was read from start to end, and does not have its digest; or that was so before,
                and it was not read from its start since.
            NotFound: The file's content is gone.
            InvalidArgument: The file is closed.

        Source: IngestService.ReadFile in protos/lading_proto/ingest/v1/ingest.proto.
        """
        if self._closed:
            raise InvalidArgument(f"{self.path!r} is closed. Read inside of the block that opened it.")
        began_at = self._position
        end = self.size if n < 0 else min(self.size, began_at + n)
        if not began_at and end:
            self._start_over()
        if began_at and self._is_wrong:
            raise self._wrong_bytes()
        hasher, hashed_bytes = self._hasher.copy(), self._hashed_bytes
        pieces: list[bytes] = []
        try:
            while self._position < end:
                data = await self._some(end - self._position)
                self._verify(data)
                self._position += len(data)
                pieces.append(data)
        except BaseException:
            # What came is lost, and may come differently the next time: nothing of it counts.
            self._position = began_at
            self._hasher, self._hashed_bytes = hasher, hashed_bytes
            raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next read begins, and return it. Transfers nothing.

        Args:
            offset: In bytes.
            whence: From where: `io.SEEK_SET` the start, `io.SEEK_CUR` the present position, `io.SEEK_END` the end.

        Raises:
            InvalidArgument: That is before the start, or `whence` is none of these.
        """
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        if whence not in starts or starts[whence] + offset < 0:
            raise InvalidArgument(f"{self.path!r} has no position {offset} from {whence}.")
        self._position = starts[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._position

    async def close(self) -> None:
        """Stop what is read ahead, and forget what was read."""
        self._closed = True
        self._block = b""
        await self._drop_ahead()
        cached_fd, self._cached_fd = self._cached_fd, None
        if cached_fd is not None:
            os.close(cached_fd)

    async def _some(self, wanted_bytes: int) -> bytes:
        """Return from 1 to `wanted_bytes` bytes at the position, which is before the end."""
        at = self._position - self._block_offset
        if not 0 <= at < len(self._block):
            await self._load(wanted_bytes)
            at = 0
        return self._block[at : at + wanted_bytes]

    async def _load(self, wanted_bytes: int) -> None:
        """Make the block that begins at the position the present one, and fetch the one after it if that pays."""
        in_order = bool(self._block) and self._position == self._block_offset + len(self._block)
        self._block_bytes = min(_BLOCK_BYTES, self._block_bytes * 4) if in_order else _FIRST_BYTES
        if self._ahead is not None and self._ahead_offset == self._position:
            ahead, self._ahead = self._ahead, None
            self._block = await ahead
        else:
            await self._drop_ahead()
            self._block = await self._fetch(self._position, max(self._block_bytes, min(wanted_bytes, _BLOCK_BYTES)))
        self._block_offset = self._position
        following = self._position + len(self._block)
        if in_order and following < self.size:
            self._ahead_offset = following
            self._ahead = asyncio.create_task(self._fetch(following, self._block_bytes))

    async def _fetch(self, offset: int, size_bytes: int) -> bytes:
        length_bytes = min(size_bytes, self.size - offset)
        if self._cached_fd is not None:
            data = await asyncio.to_thread(os.pread, self._cached_fd, length_bytes, offset)
            if len(data) == length_bytes:
                return data
        pieces = self._content.read_file(self.digest, offset_bytes=offset, length_bytes=length_bytes)
        async with aclosing(pieces):
            data = b"".join([piece async for piece in pieces])
        if len(data) != length_bytes:
            raise IntegrityError(
                f"{self.path!r} has {self.size} bytes, and the server ended it at {offset + len(data)}."
            )
        return data

    def _verify(self, data: bytes) -> None:
        """Hash what continues what was hashed, and compare at the end of the file."""
        if self._position > self._hashed_bytes or self._position + len(data) <= self._hashed_bytes:
            return
        self._hasher.update(data[self._hashed_bytes - self._position :])
        self._hashed_bytes = self._position + len(data)
        if self._hashed_bytes == self.size and format_digest(self._hasher.digest()) != self.digest:
            self._is_wrong = True
            self._block = b""
            raise self._wrong_bytes()

    def _start_over(self) -> None:
        """Forget what was hashed: whoever reads from the start again may be given other bytes than before."""
        self._hasher = new_hasher()
        self._hashed_bytes = 0
        self._is_wrong = False

    def _wrong_bytes(self) -> IntegrityError:
        return IntegrityError(
            f"The bytes that came for {self.path!r} do not have its digest. Discard them, and read it from its start."
        )

    async def _drop_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
