"""What a check of the store tells: plain values that know no protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What is wrong in a store.

    A chunk, a blob and a tree that are lost or damaged, and content and packs that are missing, heal when the same
    files are stored again. The others say in their messages what to do.
    """

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
class CheckProgress:
    """How far a check is.

    Attributes:
        phase: What is being checked.
        items_done: Rows, packs and blobs that were checked.
        bytes_done: Bytes of packs that were read.
        bytes_total: How many that will be, about; 0 where next to nothing is read.
    """

    phase: str
    items_done: int
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that is not as it should be.

    Attributes:
        kind: What is wrong.
        is_loss: Whether something that was stored is lost until it is stored again.
        entity: The tenant; empty where nobody knows.
        pack: The pack, a UUID; empty where it is about none.
        offset: Where in the pack, in bytes; None where it is about the whole pack, or none.
        digest: The chunk, page, blob or tree, `b3:<64 hex>`; empty where it is about none.
        message: What is wrong, and what to do next.
    """

    kind: FindingKind
    is_loss: bool
    entity: str
    pack: str
    offset: int | None
    digest: str
    message: str


@dataclass(frozen=True, slots=True)
class HurtVersion:
    """A version that cannot be read whole.

    Attributes:
        entity: The tenant.
        version_uid: The version's id, 32 hexadecimal digits.
        version: The version as `entity/project/name:vN`; empty where the key may not ask.
        tree_digest: Its tree, `b3:<64 hex>`.
        tree_damaged: Whether a part of the list of its files is lost.
        damaged_paths: Files of which a part is lost: the first 20. None for the operator, who sees no names.
        damaged_files: How many there are.
    """

    entity: str
    version_uid: str
    version: str
    tree_digest: str
    tree_damaged: bool
    damaged_paths: tuple[str, ...]
    damaged_files: int


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """What came of a check, over all calls that it took.

    Attributes:
        complete: Whether everything was checked. If not, check again to continue.
        items_done: Rows, packs and blobs that were checked.
        bytes_done: Bytes of packs that were read.
        findings: How many findings were told.
        losses: How many of these are losses.
        healed: Blobs and trees that were damaged and turned out to be whole again.
        hurt_versions: Versions that need what is lost; known when `complete`.
    """

    complete: bool
    items_done: int
    bytes_done: int
    findings: int
    losses: int
    healed: int
    hurt_versions: int
