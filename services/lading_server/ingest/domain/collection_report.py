"""What a collection did, or would do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

# More would only be scrolled past, and memory is bounded.
_EXAMPLES = 1000


class Example(NamedTuple):
    """One thing that went, or would go. `kind` is tree, blob or pack; `id` as people write it."""

    kind: str
    id: str
    size_bytes: int
    why: str


@dataclass
class CollectionReport:
    """What a collection of one entity came to. Bytes of packs are those of their files.

    Attributes:
        packs_condemned: Packs that went to the trash, those that were compacted included.
        bytes_condemned: What these packs have.
        packs_compacted: Packs of which a part was needed, and copied.
        bytes_compacted: What was copied, with the headers of records.
        bytes_freed: What the packs had that were deleted for good.
        packs_in_trash, bytes_in_trash: What lies in the trash afterwards.
        unreadable_packs: Packs with a record that is needed and cannot be read; they were left alone.
        skipped: What was not done, and why.
        examples: The first thousand things that went.
    """

    entity: str
    trees_condemned: int = 0
    blobs_condemned: int = 0
    packs_condemned: int = 0
    bytes_condemned: int = 0
    packs_compacted: int = 0
    bytes_compacted: int = 0
    packs_deleted: int = 0
    blobs_deleted: int = 0
    trees_deleted: int = 0
    bytes_freed: int = 0
    packs_in_trash: int = 0
    bytes_in_trash: int = 0
    unreadable_packs: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    def note(self, kind: str, id_text: str, size_bytes: int, why: str) -> None:
        """Remember an example, while there are few."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(Example(kind, id_text, size_bytes, why))

    def condemned(self, pack: bytes, size_bytes: int, why: str) -> None:
        """Count a pack that went to the trash."""
        self.packs_condemned += 1
        self.bytes_condemned += size_bytes
        self.note("pack", str(UUID(bytes=pack)), size_bytes, why)

    def deleted(self, pack: UUID, size_bytes: int) -> None:
        """Count a pack that was deleted for good."""
        self.packs_deleted += 1
        self.bytes_freed += size_bytes
