"""What calls about garbage take and return: plain values that know no protocol."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class GarbageStep(StrEnum):
    """What a run of the collector does with an entity."""

    RECONCILE = "reconcile"
    COLLECT = "collect"


class GarbageOutcome(StrEnum):
    """How a run of the collector ended: everything, some entities refused, or failed."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class GarbageProgress:
    """What a run of the collector does now.

    Attributes:
        entity: The tenant that it is done for.
        step: Whether pins are held against versions, or garbage is looked for.
    """

    entity: str
    step: GarbageStep


@dataclass(frozen=True, slots=True)
class LostVersion:
    """A version whose content is gone.

    Attributes:
        uid: Its id, 32 hexadecimal digits.
        digest: Its tree.
        message: What is wrong.
    """

    uid: str
    digest: str
    message: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of holding an entity's pins against the registry's versions.

    Attributes:
        versions: Versions that the registry keeps.
        repinned: Of these, those that had no pin and have one now; of a dry run, that would get one.
        revived: Of these, those whose tree was in the trash.
        over_tombstones: Of these, those whose pin had been released: the registry's database was restored.
        unknown_pins: Pins of versions that the registry does not know. They keep their trees.
        unknown_uids: The first of these, at most 1,000: ids of versions.
        released_pins: Of these, those that were released because it was asked for.
        lost_versions: Versions whose content is gone.
        lost: The first of these, at most 1,000.
    """

    versions: int
    repinned: int
    revived: int
    over_tombstones: int
    unknown_pins: int
    unknown_uids: tuple[str, ...]
    released_pins: int
    lost_versions: int
    lost: tuple[LostVersion, ...]


@dataclass(frozen=True, slots=True)
class GarbageExample:
    """Something that goes.

    Attributes:
        kind: `tree`, `blob` or `pack`.
        id: A digest, or the id of a pack.
        size_bytes: Its bytes.
        why: Why it goes.
    """

    kind: str
    id: str
    size_bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What was collected of an entity; of a dry run, what would be.

    Attributes:
        trees_condemned: Trees that nothing keeps any more. They lie in the trash now, and can be had back.
        blobs_condemned: The same, of blobs,
        packs_condemned: and of packs,
        bytes_condemned: with so many bytes, which will be freed when they leave the trash.
        packs_compacted: Packs whose live records were copied into new ones.
        bytes_compacted: Bytes that were copied.
        packs_deleted: Packs that left the trash and are deleted.
        blobs_deleted: The same, of blobs,
        trees_deleted: and of trees.
        bytes_freed: Bytes that are free on the disk now.
        packs_in_trash: Packs in the trash at the end.
        bytes_in_trash: Their bytes.
        unreadable_packs: Packs that could not be read and were left alone.
        skipped: What was not done, and why.
        examples: Some of what goes, at most 1,000.
    """

    trees_condemned: int
    blobs_condemned: int
    packs_condemned: int
    bytes_condemned: int
    packs_compacted: int
    bytes_compacted: int
    packs_deleted: int
    blobs_deleted: int
    trees_deleted: int
    bytes_freed: int
    packs_in_trash: int
    bytes_in_trash: int
    unreadable_packs: tuple[str, ...]
    skipped: tuple[str, ...]
    examples: tuple[GarbageExample, ...]


@dataclass(frozen=True, slots=True)
class EntityCollection:
    """What a run of the collector came to for an entity.

    Attributes:
        entity: The tenant.
        refused: Why nothing of it was collected; empty when it was.
        reconciled: What came of holding its pins against versions; None where that failed.
        report: What was collected; None where that was refused.
    """

    entity: str
    refused: str
    reconciled: Reconciliation | None
    report: GarbageReport | None


@dataclass(frozen=True, slots=True)
class LastCollection:
    """What the last run of the collector came to. Dry runs do not count.

    Attributes:
        outcome: How it ended; None where there never was a run.
        message: What was wrong; empty when nothing was.
        began_at: When it began.
        ended_at: When it ended.
        entities: Entities that it collected.
        refused_entities: Entities that it refused to collect.
        bytes_condemned: Bytes that it condemned.
        bytes_freed: Bytes that it freed.
        bytes_in_trash: Bytes in the trash at its end.
        is_running: Whether a run is at it now.
    """

    outcome: GarbageOutcome | None
    message: str
    began_at: datetime | None
    ended_at: datetime | None
    entities: int
    refused_entities: int
    bytes_condemned: int
    bytes_freed: int
    bytes_in_trash: int
    is_running: bool


@dataclass(frozen=True, slots=True)
class ContentState:
    """What a digest names, and what may be done with it.

    Attributes:
        kind: `tree`, `blob` or `chunk`. A file of one chunk is a blob and a chunk.
        state: `live`, `damaged` or `condemned`; of a chunk empty: its packs tell.
        size_bytes: The bytes of its files; 0 for a chunk.
    """

    kind: str
    state: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HoldingPack:
    """A pack with a part of some content.

    Attributes:
        id: Its id.
        state: `open`, `sealed`, `condemned`, `deleting` or `damaged`.
        size_bytes: Its bytes: not those of the content alone.
    """

    id: str
    state: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class KeepingVersion:
    """A version that keeps some content.

    Attributes:
        uid: Its id, 32 hexadecimal digits.
        reference: Its name; empty where it was not asked for, or is deleted and not purged yet.
    """

    uid: str
    reference: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of some content, and what keeps it from being collected. A list has at most 1,000.

    Attributes:
        digest: The content.
        states: What its digest names, once for each kind of thing.
        packs: The packs that hold it.
        blobs: The files that have it as a chunk.
        trees: The trees that name it.
        versions: The versions whose pins hold these trees.
        upload_ids: The uploads of single files that keep it.
        session_count: How many sessions of uploaders keep its packs.
        goes_at: When it will be deleted, unless something needs it before; None outside of the trash.
        unreadable_pages: Pages of trees that could not be read: what these name is not known.
    """

    digest: str
    states: tuple[ContentState, ...]
    packs: tuple[HoldingPack, ...]
    blobs: tuple[str, ...]
    trees: tuple[str, ...]
    versions: tuple[KeepingVersion, ...]
    upload_ids: tuple[str, ...]
    session_count: int
    goes_at: datetime | None
    unreadable_pages: tuple[str, ...]
