"""The chain of an entity's events: what each hash is of. Pure.

Whoever keeps the last hash that was seen can tell later that nothing before it was altered, taken out or put in.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from lading_format.digest import blake3_digest

CHAIN_START = bytes(32)
"""What stands in the place of the hash before the first event."""


class ChainedEvent(NamedTuple):
    """What of an event is in its hash, in this order. `version_uid` is 32 hexadecimal digits, or empty."""

    sequence: int
    revision: int
    time_ms: int
    actor: str
    kind: str
    project: str
    collection: str
    version_uid: str
    run: str
    before: str
    after: str
    origin: str


def chain_hash(previous: bytes, event: ChainedEvent) -> bytes:
    """Return an event's hash: BLAKE3-256 of the hash before it and of the event as a JSON list.

    The list is UTF-8 without spaces between its items, and escapes only what JSON demands.
    """
    text = json.dumps(list(event), ensure_ascii=False, separators=(",", ":"))
    return blake3_digest(previous + text.encode())
