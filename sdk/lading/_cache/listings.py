"""A tree's listing as a file: pages as ListTree sends them, each with its checksum, and an end.

    magic  |  (length u32, XXH3-64 u64, ListTreeResponse) ...  |  (0, 0)

The tree's digest says which lines belong to it, and whoever reads a listing compares; it does not say how long the
files are. That is what the checksums are for.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence

from lading._files import write_all
from lading._listing import entry_from, entry_message
from lading._model import ListedEntry
from lading_format.digest import xxh3_64
from lading_proto.ingest.v1 import trees_pb2

_MAGIC = b"\x89lading-tree-1\n"
_HEAD = struct.Struct("<IQ")
# A message of the protocol has no more; a length beyond is damage.
_PAGE_AT_MOST_BYTES = 64 << 20


class DamagedListing(Exception):
    """A file is no listing, or not all of one."""


class ListingFile:
    """A listing that is being written to an open file. For one thread at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        write_all(fd, _MAGIC)
        self.size_bytes = len(_MAGIC)

    def add(self, entries: Sequence[ListedEntry]) -> None:
        """Write the next page."""
        page = trees_pb2.ListTreeResponse(entries=[entry_message(entry) for entry in entries]).SerializeToString()
        # An empty page would be read as the end.
        if page:
            self._write(_HEAD.pack(len(page), xxh3_64(page)) + page)

    def finish(self) -> None:
        """Write the end."""
        self._write(_HEAD.pack(0, 0))

    def _write(self, data: bytes) -> None:
        write_all(self._fd, data)
        self.size_bytes += len(data)


def read_listing(fd: int) -> Iterator[list[ListedEntry]]:
    """Yield the pages of a listing.

    Raises:
        DamagedListing: It is none, was altered, or ends early.
        LadingError: It holds what this SDK does not know.
    """
    try:
        if os.read(fd, len(_MAGIC)) != _MAGIC:
            raise DamagedListing("it does not begin as a listing does")
        while True:
            length, checksum = _HEAD.unpack(_exactly(fd, _HEAD.size))
            if not length and not checksum:
                return
            if length > _PAGE_AT_MOST_BYTES:
                raise DamagedListing("a page is longer than any")
            page = _exactly(fd, length)
            if xxh3_64(page) != checksum:
                raise DamagedListing("a page is not what was written")
            response = trees_pb2.ListTreeResponse.FromString(page)
            yield [entry_from(entry) for entry in response.entries]
    except OSError as error:
        raise DamagedListing(str(error)) from error


def _exactly(fd: int, size_bytes: int) -> bytes:
    data = os.read(fd, size_bytes)
    while len(data) < size_bytes:
        more = os.read(fd, size_bytes - len(data))
        if not more:
            raise DamagedListing("it ends early")
        data += more
    return data
