"""Where the tensors of a checkpoint begin: safetensors, and the zip archives of PyTorch and NumPy.

The bytes come from anywhere, so nothing in them is believed: whatever does not fit gives no borders, never an error.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable

ReadAt = Callable[[int, int], bytes]

# Tensors smaller than this are cut together with those after them: ten thousand tiny ones would make ten thousand
# chunks. Which are joined depends on their sizes alone and not on where they lie, so the cuts survive a move.
MIN_PIECE_BYTES = 64 << 10
# The header of a model with a hundred thousand tensors has some 15 MB.
_MAX_HEADER_BYTES = 64 << 20
_MAX_BORDERS = 200_000

_U64 = struct.Struct("<Q")
_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP64_LOCATOR = struct.Struct("<4sLQL")
_ZIP64_END = struct.Struct("<4sQ2H2L4Q")
_ZIP_ENTRY = struct.Struct("<4s6H3L5H2L")
_ZIP_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP_MAGIC = b"PK\x03\x04"
_NONE_32 = 0xFFFFFFFF


def format_borders(read_at: ReadAt, size_bytes: int, name: str) -> list[int] | None:
    """Return where to cut a file, ascending, or None when its format does not say.

    Args:
        read_at: Returns the bytes at (offset, length), fewer at the end of the file.
        size_bytes: The file's size.
        name: Its name; only its ending matters.
    """
    try:
        if name.endswith(".safetensors"):
            begins = _safetensors(read_at, size_bytes)
        elif read_at(0, 4) == _ZIP_MAGIC:
            begins = _zip(read_at, size_bytes)
        else:
            return None
    except (ValueError, KeyError, TypeError, IndexError, struct.error, OverflowError, RecursionError):
        return None
    if begins is None:
        return None
    return _joined(begins, size_bytes)


def _joined(begins: Iterable[int], size_bytes: int) -> list[int] | None:
    ordered = sorted({begin for begin in begins if 0 < begin < size_bytes})
    borders: list[int] = []
    previous_is_large = True
    for begin, end in zip(ordered, [*ordered[1:], size_bytes], strict=True):
        # A border stands before each piece that is large by itself, and before the first small one after such.
        is_large = end - begin >= MIN_PIECE_BYTES
        if is_large or previous_is_large:
            borders.append(begin)
        previous_is_large = is_large
    return borders or None


def _safetensors(read_at: ReadAt, size_bytes: int) -> list[int] | None:
    head = read_at(0, 8)
    (header_bytes,) = _U64.unpack(head)
    if header_bytes > min(_MAX_HEADER_BYTES, size_bytes - 8):
        return None
    header = json.loads(read_at(8, header_bytes))
    data_begins = 8 + header_bytes
    begins = [data_begins]
    for name, tensor in header.items():
        if name != "__metadata__":
            begins.append(data_begins + int(tensor["data_offsets"][0]))
    return begins if len(begins) <= _MAX_BORDERS else None


def _zip(read_at: ReadAt, size_bytes: int) -> list[int] | None:
    # The end record stands before a comment of at most 64 KiB.
    tail_begins = max(0, size_bytes - _ZIP_END.size - 0xFFFF)
    tail = read_at(tail_begins, size_bytes - tail_begins)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        return None
    *_, count, directory_bytes, directory_begins, _ = _ZIP_END.unpack_from(tail, at)
    if directory_begins == _NONE_32 or count == 0xFFFF:
        locator = _ZIP64_LOCATOR.unpack_from(tail, at - _ZIP64_LOCATOR.size)
        *_, count, directory_bytes, directory_begins = _ZIP64_END.unpack(read_at(locator[2], _ZIP64_END.size))
    if directory_bytes > _MAX_HEADER_BYTES or count > _MAX_BORDERS:
        return None
    directory = read_at(directory_begins, directory_bytes)
    begins = [directory_begins]
    offset = 0
    for _ in range(count):
        fields = _ZIP_ENTRY.unpack_from(directory, offset)
        if fields[0] != b"PK\x01\x02":
            return None
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        extra = directory[offset + _ZIP_ENTRY.size + name_bytes :][:extra_bytes]
        local = fields[16]
        begins += _entry_begins(read_at, _zip64_offset(extra, fields[8], fields[9]) if local == _NONE_32 else local)
        offset += _ZIP_ENTRY.size + name_bytes + extra_bytes + comment_bytes
    return begins


def _entry_begins(read_at: ReadAt, offset: int) -> tuple[int, int]:
    """Return where an entry's header and its bytes begin.

    Both are borders: PyTorch pads the header to align the bytes, so the distance changes when an entry moves.
    """
    *_, name_bytes, extra_bytes = _ZIP_LOCAL.unpack(read_at(offset, _ZIP_LOCAL.size))
    return offset, offset + _ZIP_LOCAL.size + name_bytes + extra_bytes


def _zip64_offset(extra: bytes, compressed: int, plain: int) -> int:
    """Return the offset of a local header that is in the zip64 field, after the sizes that are there too."""
    at = 0
    while True:
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == 1:
            skipped = 8 * ((compressed == _NONE_32) + (plain == _NONE_32))
            (value,) = _U64.unpack_from(extra, at + 4 + skipped)
            return int(value)
        at += 4 + length
