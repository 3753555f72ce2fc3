"""protobuf's variable-length integers, for the few messages that both sides read and write by hand."""

from __future__ import annotations

_MAX_U64 = (1 << 64) - 1


def put_varint(out: bytearray, number: int) -> None:
    """Append a number that is not negative."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def take_varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number at a position and where it ends. Raises IndexError where `raw` ends first."""
    number = shift = 0
    while True:
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _MAX_U64, at
        shift += 7
        if shift > 63:
            # Longer than any that protobuf writes.
            raise IndexError(at)
