"""What a check tells: plain values. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from uuid import UUID

from lading_server.common.errors import InvalidLevel

HEAL = "store the same files again to heal it, which sends what is lost and nothing else"
TELL = "this is a mistake of the program or of whoever changed the database: keep a copy of it, and report it"


class Level(IntEnum):
    """How closely a check looks. Each level does what those before it do, and more."""

    INDEX = 1
    PACKS = 2
    CHECKSUMS = 3
    DIGESTS = 4

    @classmethod
    def of(cls, number: int) -> Level:
        """Return a level; 0 is the first. Raises InvalidLevel."""
        try:
            return cls(number or cls.INDEX)
        except ValueError:
            raise InvalidLevel(f"there is no level {number} of a check; give 1, 2, 3 or 4") from None


class FindingKind(StrEnum):
    """What is wrong. See FindingKind in check.proto."""

    CHUNK_LOST = "chunk lost"
    BLOB_DAMAGED = "blob damaged"
    TREE_DAMAGED = "tree damaged"
    CONTENT_MISSING = "content missing"
    PACK_MISSING = "pack missing"
    PACK_DAMAGED = "pack damaged"
    RECORD_DAMAGED = "record damaged"
    ROW_WRONG = "row wrong"
    USAGE_WRONG = "usage wrong"
    FILE_UNKNOWN = "file unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: What is wrong.
        entity: Whose it is; empty where nobody knows.
        message: What is wrong in words, and what to do next.
        digest: The chunk, page, blob or tree.
        pack: Where.
        offset: Where in the pack, in bytes.
        is_loss: Whether something that was acknowledged is lost until it is stored again.
    """

    kind: FindingKind
    entity: str
    message: str
    digest: bytes | None = None
    pack: UUID | None = None
    offset: int | None = None
    is_loss: bool = False


@dataclass(frozen=True, slots=True)
class HurtVersion:
    """A version that needs what is lost.

    Attributes:
        entity: Whose it is.
        version_uid: Its id at the registry.
        tree_digest: Its tree.
        tree_damaged: Whether pages of the tree are lost.
        damaged_paths: Files of which a part is lost: the first 20.
        damaged_files: How many there are.
    """

    entity: str
    version_uid: bytes
    tree_digest: bytes
    tree_damaged: bool
    damaged_paths: tuple[str, ...]
    damaged_files: int


@dataclass(slots=True)
class Step:
    """What a part of a check came to: where the next begins, and what was found."""

    position: list[str]
    items: int = 0
    bytes_read: int = 0
    healed: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check is. `bytes_total` is 0 where next to nothing is read."""

    phase: str
    items_done: int
    bytes_done: int
    bytes_total: int


@dataclass(slots=True)
class Summary:
    """What came of a check, over all calls that it took."""

    complete: bool = False
    items_done: int = 0
    bytes_done: int = 0
    findings: int = 0
    losses: int = 0
    healed: int = 0
    hurt_versions: int = 0


CheckEvent = Progress | Finding | HurtVersion | Summary
