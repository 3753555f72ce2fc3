"""What calls about retention take and return: plain values that know no protocol."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class BestOrder(StrEnum):
    """Which end of a field is the best: the largest, or the smallest."""

    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Which versions of a collection stay: those in use, and those that one of the parts keeps. 0 is no part.

    Attributes:
        project: The project.
        collection: The collection; empty for each of the project that has no rule of its own.
        keep_last: So many versions with the highest numbers.
        keep_best: So many of the best by `best_by`.
        best_by: What they are compared by: `metadata.accuracy`. Where it is no number a version comes last; of equal
            ones the newer is better.
        best_order: Which end of it is the best.
        keep_days: Versions that were committed less than so many days ago.
        keep_tags: Versions with one of these tags.
        keep_all: Every version.
        default_ttl_seconds: The time to live of new versions that bring none; 0 for none.
        set_at: When it was set; None for one that is only tried.
        set_by: Who set it.
    """

    project: str
    collection: str
    keep_last: int
    keep_best: int
    best_by: str
    best_order: BestOrder
    keep_days: int
    keep_tags: tuple[str, ...]
    keep_all: bool
    default_ttl_seconds: int
    set_at: datetime | None
    set_by: str


@dataclass(frozen=True, slots=True)
class RetentionVerdict:
    """What becomes, or became, of a version.

    Attributes:
        entity: The tenant.
        project: The project of its collection.
        collection: The name of its collection.
        number: N: people write `vN`.
        uid: Its id.
        size_bytes: The sum of its files' sizes. What is freed is at most that: other versions may share its content.
        goes: Whether it goes.
        why: Why it goes, or everything that keeps it, in words.
    """

    entity: str
    project: str
    collection: str
    number: int
    uid: str
    size_bytes: int
    goes: bool
    why: str

    @property
    def reference(self) -> str:
        """How it is written: `entity/project/name:vN`."""
        return f"{self.entity}/{self.project}/{self.collection}:v{self.number}"


@dataclass(frozen=True, slots=True)
class RetentionApplied:
    """What was deleted: how many versions, and the sum of their sizes, which is the most that can be freed."""

    deleted: int
    size_bytes: int
