"""Identifiers that sort by the millisecond in which they were made."""

from __future__ import annotations

import secrets
import time
import uuid


def uuid7() -> uuid.UUID:
    """Return a fresh UUIDv7 (RFC 9562): 48 bits of milliseconds and 74 random ones."""
    milliseconds = time.time_ns() // 1_000_000
    bits = (milliseconds & ((1 << 48) - 1)) << 80
    bits |= 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return uuid.UUID(int=bits)
