"""One pass: counts what a store holds, and removes what was not used for longest, over so many entries at most."""

from __future__ import annotations

from dataclasses import dataclass
from secrets import SystemRandom

from lading._cache.space import Entry, allowed_bytes, kept_bytes, victims
from lading._cache.store import SHARDS, Store
from lading._cache.tally import set_tally

# A tenth of a second. Digests spread evenly over the shards, so a part of them tells what the whole is like.
LOOK_AT_MOST = 20_000


@dataclass(frozen=True, slots=True)
class Evicted:
    """What a pass did: entries and bytes that went, and how many bytes are left; where it saw a part, about."""

    entries: int
    size_bytes: int
    left_bytes: int


def evict(store: Store, limit_bytes: int, look_at_most: int | None = LOOK_AT_MOST) -> Evicted:
    """Bring a store down that holds more than it may; one that does not is only counted.

    Args:
        store: What to look through.
        limit_bytes: What it may hold at most; less where the file system is nearly full.
        look_at_most: After how many entries to be content with what was seen. A store that has more is brought down in
            several passes, each of which sees other shards. None for all entries.
    """
    store.clear_abandoned()
    found, shards_seen = _look(store, look_at_most)
    total_bytes = sum([entry.size_bytes for entry in found]) * len(SHARDS) // shards_seen
    allowed = allowed_bytes(limit_bytes, total_bytes, *store.free_bytes())
    if total_bytes <= allowed:
        set_tally(store, total_bytes)
        return Evicted(0, 0, total_bytes)
    gone = [
        entry for entry in victims(found, kept_bytes(allowed) * shards_seen // len(SHARDS)) if store.drop(entry.name)
    ]
    gone_bytes = sum([entry.size_bytes for entry in gone])
    set_tally(store, total_bytes - gone_bytes)
    return Evicted(len(gone), gone_bytes, total_bytes - gone_bytes)


def _look(store: Store, look_at_most: int | None) -> tuple[list[Entry], int]:
    """Return the entries of some shards, or of all, and how many shards that were."""
    shards = list(SHARDS)
    SystemRandom().shuffle(shards)
    found: list[Entry] = []
    for number, shard in enumerate(shards, 1):
        found += store.scan(shard)
        if look_at_most is not None and len(found) >= look_at_most:
            return found, number
    return found, len(shards)
