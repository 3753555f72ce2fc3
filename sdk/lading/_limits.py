"""The limits that a server told, with the protocol's defaults for those that it did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes at most. The defaults are the smallest that any server of this protocol has."""

    max_message_bytes: int = 4 << 20
    max_chunk_bytes: int = 2 << 20
    max_digests_per_call: int = 10_000
    max_chunks_per_message: int = 1_000
    max_blobs_per_message: int = 1_000
    max_ranges_per_call: int = 1_000
    max_page_size: int = 1_000

    @classmethod
    def of(cls, told: Mapping[str, int]) -> Limits:
        """Take those that this SDK knows from what GetCapabilities told; ignore zeros and strangers."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known and value > 0})
