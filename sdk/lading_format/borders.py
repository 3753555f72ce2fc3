"""Where the tensors of a checkpoint begin: safetensors, and the zip archives of PyTorch, NumPy and Keras.

The bytes come from anywhere, so nothing in them is believed: whatever does not fit gives no borders, never an error.

The rule. A file is a list of *parts*: headers, tensors, entries. A part of 128 KiB or more has borders on both
sides. Between smaller parts there is one where a hash of the part's name says so, with a chance of its size in
256 KiB: so ten thousand tiny tensors make few chunks, and which of them begin a chunk does not change when other parts
move, grow, come or go.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lading_format.digest import xxh3_64

ReadAt = Callable[[int, int], bytes]

# A file of this size is one chunk, and so is a part.
_LARGE_PART_BYTES = 128 << 10
# What small parts come to in one chunk, on average. Half of what FastCDC aims at: a change in one costs all.
_SMALL_PARTS_BYTES = 256 << 10
# The header of a model with 100,000 tensors has about 12 MiB; hostile JSON takes twenty times its size in memory.
_MAX_HEADER_BYTES = 16 << 20
# The directory of 250,000 entries has 11 MiB and their names; in memory they are some 50 MiB.
_MAX_DIRECTORY_BYTES = 32 << 20
_MAX_PARTS = 250_000

_U64 = struct.Struct("<Q")
_EXTRA_HEAD = struct.Struct("<HH")
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP_ENTRY = struct.Struct("<4s6H3L5H2L")
_ZIP_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_MAX_COMMENT_BYTES = 0xFFFF
_IN_ZIP64 = 0xFFFFFFFF
_ZIP64_TAG = 1


class _Damaged(Exception):
    """The bytes are not what they claim to be."""


class _Part(NamedTuple):
    """A stretch of a file that changes as one. Without a name, it has borders on both sides whatever its size."""

    begin: int
    end: int
    name: bytes


def format_borders(read_at: ReadAt, size_bytes: int, name: str) -> list[int] | None:
    """Return where to cut a file, ascending, or None when its format does not say or it is damaged.

    Args:
        read_at: Returns the bytes at (offset, length), fewer at the end of the file.
        size_bytes: The file's size.
        name: Its name. Only `.safetensors` at its end matters: a zip archive is known by its content.

    Raises:
        Only what `read_at` does.
    """
    try:
        if size_bytes <= _LARGE_PART_BYTES:
            return None
        if name.lower().endswith(".safetensors"):
            return _borders(_safetensors_parts(_Reader(read_at, size_bytes)), size_bytes)
        if read_at(0, len(_ZIP_MAGIC)) == _ZIP_MAGIC:
            return _borders(_zip_parts(_Reader(read_at, size_bytes)), size_bytes)
    except _Damaged:
        pass
    return None


class _Reader:
    """Reads what must be there. Raises _Damaged where it is not."""

    def __init__(self, read_at: ReadAt, size_bytes: int) -> None:
        self._read_at = read_at
        self.size_bytes = size_bytes

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self.size_bytes:
            raise _Damaged
        data = self._read_at(offset, length)
        if len(data) != length:
            raise _Damaged
        return data


def _borders(parts: Iterable[_Part], size_bytes: int) -> list[int]:
    """Return the borders of parts that come in order."""
    borders: list[int] = []
    reached = 0
    was_large = True
    for begin, end, name in parts:
        if not reached <= begin <= end <= size_bytes:
            raise _Damaged
        length = end - begin
        is_large = not name or length >= _LARGE_PART_BYTES
        if is_large or was_large or xxh3_64(name) * _SMALL_PARTS_BYTES < length << 64:
            borders.append(begin)
        if is_large:
            borders.append(end)
        was_large = is_large
        reached = end
    return sorted({border for border in borders if 0 < border < size_bytes})


def _safetensors_parts(reader: _Reader) -> Iterator[_Part]:
    (header_bytes,) = _U64.unpack(reader.read(0, _U64.size))
    if header_bytes > _MAX_HEADER_BYTES:
        raise _Damaged
    begin = _U64.size + header_bytes
    try:
        header = json.loads(reader.read(_U64.size, header_bytes))
    except (ValueError, RecursionError) as error:
        raise _Damaged from error
    if not isinstance(header, dict) or len(header) > _MAX_PARTS:
        raise _Damaged
    yield _Part(0, begin, b"")
    tensors: list[_Part] = []
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        match offsets:
            case [int(first), int(last)] if 0 <= first <= last:
                if first < last:
                    tensors.append(_Part(begin + first, begin + last, name.encode(errors="surrogatepass") or b"\0"))
            case _:
                raise _Damaged
    yield from sorted(tensors)


class _Entry(NamedTuple):
    """An entry of a zip archive, as the central directory has it."""

    header_begin: int
    data_bytes: int
    name: bytes


def _zip_parts(reader: _Reader) -> Iterator[_Part]:
    directory_begin, directory_bytes, count = _zip_directory(reader)
    if directory_bytes > _MAX_DIRECTORY_BYTES or count > _MAX_PARTS:
        raise _Damaged
    entries = sorted(_zip_entries(reader.read(directory_begin, directory_bytes), count))
    if not entries:
        raise _Damaged
    ends = [entry.header_begin for entry in entries[1:]] + [directory_begin]
    for (header_begin, data_bytes, name), end in zip(entries, ends, strict=True):
        begin = header_begin
        if data_bytes >= _LARGE_PART_BYTES:
            # PyTorch pads the header to align the data, so a header's length changes when its entry moves.
            # What follows the data, up to the next header, depends on the data alone.
            begin = _zip_data_begin(reader, header_begin)
            yield _Part(header_begin, begin, b"\0" + name)
        yield _Part(begin, end, name or b"\0")
    yield _Part(directory_begin, reader.size_bytes, b"")


def _zip_directory(reader: _Reader) -> tuple[int, int, int]:
    """Return where the central directory begins, how many bytes it has, and how many entries."""
    tail_begin = max(0, reader.size_bytes - _ZIP_END.size - _ZIP_MAX_COMMENT_BYTES)
    tail = reader.read(tail_begin, reader.size_bytes - tail_begin)
    at = tail.rfind(b"PK\x05\x06", 0, len(tail) - _ZIP_END.size + 4)
    if at < 0:
        raise _Damaged
    *_, count, directory_bytes, directory_begin, _ = _ZIP_END.unpack_from(tail, at)
    if _IN_ZIP64 in (directory_begin, directory_bytes) or count == 0xFFFF:
        locator = reader.read(tail_begin + at - _ZIP64_LOCATOR.size, _ZIP64_LOCATOR.size)
        magic, _, zip64_begin, _ = _ZIP64_LOCATOR.unpack(locator)
        if magic == b"PK\x06\x07":
            end = _ZIP64_END.unpack(reader.read(zip64_begin, _ZIP64_END.size))
            if end[0] != b"PK\x06\x06":
                raise _Damaged
            *_, count, directory_bytes, directory_begin = end
    return directory_begin, directory_bytes, count


def _zip_entries(directory: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        try:
            fields = _ZIP_ENTRY.unpack_from(directory, at)
        except struct.error as error:
            raise _Damaged from error
        magic, data_bytes, plain_bytes, header_begin = fields[0], fields[8], fields[9], fields[16]
        if magic != b"PK\x01\x02":
            raise _Damaged
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        at += _ZIP_ENTRY.size
        name = directory[at : at + name_bytes]
        at += name_bytes
        if _IN_ZIP64 in (data_bytes, header_begin):
            extra = directory[at : at + extra_bytes]
            data_bytes, header_begin = _zip64_fields(extra, plain_bytes, data_bytes, header_begin)
        at += extra_bytes + comment_bytes
        yield _Entry(header_begin, data_bytes, name)


def _zip64_fields(extra: bytes, plain_bytes: int, data_bytes: int, header_begin: int) -> tuple[int, int]:
    """Return the size of an entry's data and where its header begins; those that were too large are in `extra`."""
    at = 0
    try:
        while True:
            tag, length = _EXTRA_HEAD.unpack_from(extra, at)
            at += _EXTRA_HEAD.size
            if tag == _ZIP64_TAG:
                break
            at += length
        if plain_bytes == _IN_ZIP64:
            at += _U64.size
        if data_bytes == _IN_ZIP64:
            (data_bytes,) = _U64.unpack_from(extra, at)
            at += _U64.size
        if header_begin == _IN_ZIP64:
            (header_begin,) = _U64.unpack_from(extra, at)
    except struct.error as error:
        raise _Damaged from error
    return data_bytes, header_begin


def _zip_data_begin(reader: _Reader, header_begin: int) -> int:
    magic, *_, name_bytes, extra_bytes = _ZIP_LOCAL.unpack(reader.read(header_begin, _ZIP_LOCAL.size))
    if magic != _ZIP_MAGIC:
        raise _Damaged
    return int(header_begin + _ZIP_LOCAL.size + name_bytes + extra_bytes)
