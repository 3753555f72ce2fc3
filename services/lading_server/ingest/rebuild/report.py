"""What a rebuild found and made. Bounded, however much is damaged."""

from __future__ import annotations

from dataclasses import dataclass, field

# Lines of one kind that are kept; the rest is counted.
_NAMED = 100


@dataclass
class Findings:
    """Places and names of one kind."""

    named: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, text: str) -> None:
        """Keep one more, or count it."""
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(text)


@dataclass
class Report:
    """How far a rebuild is, and in the end what it came to."""

    packs: int = 0
    packs_known: int = 0
    packs_adopted: int = 0
    read_bytes: int = 0
    chunks: int = 0
    blobs: int = 0
    trees: int = 0
    # Packs that are gone, short, or of no use at all.
    lost_packs: Findings = field(default_factory=Findings)
    damaged_records: Findings = field(default_factory=Findings)
    damaged_blobs: Findings = field(default_factory=Findings)
    damaged_trees: Findings = field(default_factory=Findings)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost."""
        return not (
            self.lost_packs.count or self.damaged_records.count or self.damaged_blobs.count or self.damaged_trees.count
        )
