"""What the batches of a group add to what their entities store, and which of them are too much. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lading_server.common.registry_errors import QuotaExceeded


class Claim(NamedTuple):
    """A batch by its number, the number of its entity, and how much that may store; 0 is no limit."""

    number: int
    entity_id: int
    quota_bytes: int


def quota_exceeded(quota_bytes: int, stored_bytes: int, needed_bytes: int) -> QuotaExceeded:
    """Return the error for what does not fit."""
    return QuotaExceeded(
        f"the entity stores {stored_bytes:,} bytes and may store {quota_bytes:,}, so {needed_bytes:,} more do not fit; "
        "delete versions that nobody needs, or ask the operator for more",
        limit_bytes=quota_bytes,
        stored_bytes=stored_bytes,
    )


class Charges:
    """The bytes that one transaction adds."""

    def __init__(self) -> None:
        self._added: Counter[int] = Counter()
        self._freed: Counter[int] = Counter()

    def add(self, number: int, size_bytes: int) -> None:
        """Note what a batch adds."""
        if size_bytes:
            self._added[number] += size_bytes

    def free(self, entity_id: int, size_bytes: int) -> None:
        """Note what an entity stores no longer, because something took its place."""
        self._freed[entity_id] += size_bytes

    def changes(self, claims: Iterable[Claim]) -> dict[int, int]:
        """Return by how much what entities store changes, for those to which something was added."""
        changes: Counter[int] = Counter()
        for claim in claims:
            if claim.number in self._added:
                changes[claim.entity_id] += self._added[claim.number]
        changes.subtract(self._freed)
        return changes

    def too_much(self, claims: Iterable[Claim], before: Mapping[int, int]) -> dict[int, Exception]:
        """Return which batches do not fit, by their numbers: the first that fit are taken.

        Args:
            before: What each entity stores without any of them.
        """
        stored = {entity_id: size_bytes - self._freed[entity_id] for entity_id, size_bytes in before.items()}
        reasons: dict[int, Exception] = {}
        for number, entity_id, quota_bytes in sorted(claims):
            added_bytes = self._added[number]
            if not added_bytes:
                continue
            if quota_bytes and stored[entity_id] + added_bytes > quota_bytes:
                reasons[number] = quota_exceeded(quota_bytes, stored[entity_id], added_bytes)
            else:
                stored[entity_id] += added_bytes
        return reasons
