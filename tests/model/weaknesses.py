"""The rules that can be weakened: each member is one rule left out, or done in another order."""

from __future__ import annotations

from enum import Enum


class Weakness(Enum):
    """What is done wrong. The value says it to a reader of the table."""

    PACKS_NAMED_BY_CONTENT = "a pack is named by its content, so that a name comes back"
    PACKS_WITHOUT_CAS = "a pack is condemned without looking at its generation"
    ROWS_WITHOUT_CAS = "a blob or tree is condemned without looking at its generation"
    JUDGED_BEFORE_READ = "what is reachable is computed before the generation is read"
    COMMITTED_BEFORE_PIN = "a version is committed before its pin was acknowledged"
    PIN_CHECKS_NOTHING = "a pin is made without a look at the content"
    PIN_COUNTS_NOTHING = "a pin does not count generations up"
    PIN_LAPSES = "a pin has a time limit"
    PIN_CHECKS_FIRST_BLOB = "a pin checks the first blob of a tree alone"
    PIN_CHECKS_BLOBS_ALONE = "a pin takes a damaged blob for a live one, and does not look for its chunks"
    CONDEMNED_IS_VISIBLE = "content in condemned packs is found, committed and pinned"
    COMMITTED_AFTER_ABORT = "an answer that comes after the abort commits the version"
    NO_TOMBSTONE = "a released pin leaves no tombstone"
    REVIVED_WHILE_DELETING = "a pack is revived after its delete was sent"
    DELETED_BEFORE_DELETING = "a file is deleted before `deleting` is durable"
    ROW_BEFORE_FILE = "a pack's row goes before its file"
    RELEASED_AT_SOFT_DELETE = "a soft delete releases the pin"
    COMPACTION_WITHOUT_CAS = "a compaction moves rows without looking at the old pack's generation"
    DAMAGED_IS_LIVE = "a pin takes a damaged blob for a live one"
    DAMAGED_KEEPS_NOTHING = "a damaged blob does not keep its chunks"
    LOSS_ANYWHERE = "a lost chunk's row goes, wherever it points by then"
    TRASH_IGNORED = "what was condemned is deleted before the trash window ends"
    NO_RECONCILIATION = "collections run without a reconciliation"
    PURGED_BEFORE_RECONCILED = "the trash is emptied before the reconciliation"
    TOMBSTONE_OVERRIDDEN = "a kept version with a tombstone is pinned without asking again"
    UNKNOWN_RELEASED = "a pin that the list did not have is released without asking"
    NOTHING_ADOPTED = "packs that a restored database does not know are not adopted"
    GROWN_NOT_READ = "packs that grew since the backup are not read again"
