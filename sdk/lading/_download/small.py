"""Puts small files together from the messages of one stream, and writes them. Runs in a thread."""

from __future__ import annotations

from collections.abc import Sequence

from lading._cache.transfer import Transfer
from lading._download.pieces import PieceOrder
from lading._download.plan import Wanted
from lading._download.wire import ReceivedPiece
from lading._errors import IntegrityError
from lading._files import Cursor, SafeRoot
from lading_format.digest import blake3_digest, format_digest

# A file of this size is fetched again in a hundredth of a second; larger ones are worth continuing.
SMALL_AT_MOST_BYTES = 1 << 20


class SmallFiles:
    """Takes one stream's messages, in order. For one thread at a time.

    Args:
        root: Where to write.
        wanted: The blobs in the order of the request, none longer than SMALL_AT_MOST_BYTES.
        cache: Where to keep them as well, if there is a cache.
    """

    def __init__(self, root: SafeRoot, wanted: Sequence[Wanted], cache: Transfer | None) -> None:
        self._root = root
        self._cache = cache
        self._gives_links = cache is not None and cache.gives_links(root)
        self._order = PieceOrder(wanted)
        self._parts: list[bytes | memoryview] = []

    @property
    def is_complete(self) -> bool:
        """Whether every file was written."""
        return self._order.is_complete

    def take(self, pieces: Sequence[ReceivedPiece]) -> list[Wanted]:
        """Write the files that the message completes, and return their blobs.

        Raises:
            IntegrityError: Bytes do not have their digest, or are not what was asked for. They are not written.
        """
        written: list[Wanted] = []
        with self._root.cursor() as cursor:
            for wanted, data, last in self._order.check(pieces):
                if not last:
                    self._parts.append(data)
                    continue
                if self._parts:
                    data = b"".join([*self._parts, data])
                    self._parts = []
                if blake3_digest(data) != wanted.digest:
                    raise wrong_bytes(wanted)
                self._write(cursor, wanted, data)
                written.append(wanted)
        return written

    def _write(self, cursor: Cursor, wanted: Wanted, data: bytes | memoryview) -> None:
        cache = self._cache
        # A hard link is one to the cache, so that comes first; where it cannot be, the files are like any others.
        if (
            cache is not None
            and self._gives_links
            and cache.keep(wanted.digest, data)
            and cache.give(self._root, [wanted])
        ):
            return
        for target in wanted.targets:
            cursor.write(data, target.path, executable=target.executable)
        # The last, for its directory is open. Not a clone, which would wait for the disk at every file.
        if cache is not None and not cache.keep_placed(wanted.digest, cursor, target.path, wanted.size_bytes):
            cache.keep_little(wanted.digest, data)


def wrong_bytes(wanted: Wanted) -> IntegrityError:
    """Return the error for bytes that do not have the digest of their blob."""
    return IntegrityError(
        f"The bytes that came for {wanted.targets[0].path!r} are not those of {format_digest(wanted.digest)}. "
        "They were discarded. Ask the operator to run a check of the store.",
        reason="DIGEST_MISMATCH",
    )
