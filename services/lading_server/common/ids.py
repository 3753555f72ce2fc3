"""Ids of packs, versions and links: they sort in the order in which this process made them, whatever its clock does."""

from __future__ import annotations

import secrets
import threading
import time
from uuid import UUID

# Of the 128 bits of a UUIDv7 (RFC 9562) 48 are milliseconds, 6 say what it is, and these are left.
_RANDOM_BITS = 74
_LOW_BITS = 62
# How far an id is at most from the one before it in the same millisecond: too far to guess, and 2^34 fit into one.
_STEP_BITS = 40


class _Growing:
    """Milliseconds and random bits as one number that only grows: RFC 9562, section 6.2, method 2.

    Where a millisecond's random bits are used up, or the clock went back, ids run ahead of the clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Return a number larger than any before it."""
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._last >> _RANDOM_BITS:
                self._last = now << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
            else:
                self._last += 1 + secrets.randbits(_STEP_BITS)
            return self._last


# One a process, or two threads could make ids that do not grow. It holds nothing else.
_NUMBERS = _Growing()


def uuid7() -> UUID:
    """Return a fresh UUIDv7, larger than every one that this process made before."""
    number = _NUMBERS.next()
    high, low = number >> _LOW_BITS, number & (1 << _LOW_BITS) - 1
    # Version 7 stands after the milliseconds, the variant after twelve random bits.
    return UUID(int=high >> 12 << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0b10 << 62 | low)
