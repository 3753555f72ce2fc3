"""The worlds that are walked, and the weaknesses, each with the world in which it shows. One table each."""

from __future__ import annotations

from typing import NamedTuple

from tests.model.state import Feature, World
from tests.model.weaknesses import Weakness

# Blobs are written as the chunks that they need, trees as the blobs that they name, versions as their trees.

# Two versions of one tree: commits, aborts, deletes and collections in every order.
CORE = World("core", ((0,),), ((0,),), (0, 0), 2, frozenset({Feature.TREES}))
# Two chunks in one pack, of which one is needed and copied, and the other may come to be needed meanwhile.
COMPACTION = World("compaction", ((0,), (1,)), ((0,),), (0,), 2, frozenset({Feature.TOGETHER, Feature.COMPACTION}))
# A tree of two blobs that share a chunk, in two packs: a pin has to look at more than one row.
PARTIAL = World("partial trees", ((0,), (0, 1)), ((0, 1),), (0,), 2, frozenset({Feature.TREES}))
# The same content on a disk that loses chunks.
LOSSES = World("losses", ((0,), (0, 1)), ((0, 1),), (0,), 2, frozenset({Feature.LOSSES}))
# The trash and the reconciliation, next to a registry that goes back to a backup.
REGISTRY_BACK = World(
    "registry restored",
    ((0,),),
    ((0,),),
    (0,),
    2,
    frozenset({Feature.ONE_STEP, Feature.RECONCILE, Feature.RESTORE_REGISTRY}),
)
# The same, next to an ingest database that goes back, with a pack that grew since or was not there.
INGEST_BACK = World(
    "ingest restored",
    ((0, 1),),
    ((0,),),
    (0,),
    1,
    frozenset({Feature.ONE_STEP, Feature.GROWTH, Feature.RECONCILE, Feature.RESTORE_INGEST}),
)
WORLDS = (CORE, COMPACTION, PARTIAL, LOSSES, REGISTRY_BACK, INGEST_BACK)

# More packs at a time, one of which is in the trash while the others are in use.
INGEST_BACK_WIDE = World(
    "ingest restored, two packs",
    ((0,),),
    ((0,),),
    (0,),
    2,
    frozenset({Feature.ONE_STEP, Feature.RECONCILE, Feature.RESTORE_INGEST}),
)
LARGER_WORLDS = (
    CORE._replace(name="core, three packs", packs=3),
    PARTIAL._replace(name="partial trees, three packs", packs=3),
    REGISTRY_BACK._replace(
        name="registry restored, in three steps", features=REGISTRY_BACK.features - {Feature.ONE_STEP}
    ),
    INGEST_BACK_WIDE,
)


class Mutant(NamedTuple):
    """A weakness, a world in which it shows, and how: LOSS, LEAK, or nothing, with the reason."""

    weakness: Weakness
    world: World
    shows: str
    because: str = ""


MUTANTS = (
    Mutant(Weakness.PACKS_NAMED_BY_CONTENT, CORE, "LOSS"),
    Mutant(Weakness.PACKS_WITHOUT_CAS, CORE, "LOSS"),
    Mutant(Weakness.ROWS_WITHOUT_CAS, CORE, "LOSS"),
    Mutant(Weakness.JUDGED_BEFORE_READ, CORE, "LOSS"),
    Mutant(Weakness.COMMITTED_BEFORE_PIN, CORE, "LOSS"),
    Mutant(Weakness.PIN_CHECKS_NOTHING, CORE, "LOSS"),
    Mutant(Weakness.PIN_COUNTS_NOTHING, CORE, "LOSS"),
    Mutant(Weakness.PIN_LAPSES, CORE, "LOSS"),
    Mutant(Weakness.PIN_CHECKS_FIRST_BLOB, PARTIAL, "LOSS"),
    Mutant(Weakness.PIN_CHECKS_BLOBS_ALONE, LOSSES, "LOSS"),
    Mutant(Weakness.CONDEMNED_IS_VISIBLE, CORE, "LOSS"),
    Mutant(Weakness.COMMITTED_AFTER_ABORT, CORE, "LOSS"),
    # Nothing is lost, but a late AcquirePin makes a pin that nobody takes back.
    Mutant(Weakness.NO_TOMBSTONE, CORE, "LEAK"),
    Mutant(Weakness.REVIVED_WHILE_DELETING, CORE, "LOSS"),
    Mutant(Weakness.DELETED_BEFORE_DELETING, CORE, "LOSS"),
    Mutant(Weakness.ROW_BEFORE_FILE, CORE, "LEAK"),
    Mutant(Weakness.RELEASED_AT_SOFT_DELETE, CORE, "LOSS"),
    Mutant(Weakness.COMPACTION_WITHOUT_CAS, COMPACTION, "LOSS"),
    Mutant(
        Weakness.DAMAGED_IS_LIVE,
        LOSSES,
        "",
        because="AcquirePin looks for each chunk besides, so a blob that lacks one is refused all the same; "
        f"without that, see {Weakness.PIN_CHECKS_BLOBS_ALONE.name}",
    ),
    Mutant(Weakness.DAMAGED_KEEPS_NOTHING, LOSSES, "LOSS"),
    # Takes a third pack: the chunk lies elsewhere by then, and the old file is still there.
    Mutant(Weakness.LOSS_ANYWHERE, LOSSES._replace(name="losses, three packs", packs=3), "LOSS"),
    Mutant(Weakness.TRASH_IGNORED, REGISTRY_BACK, "LOSS"),
    Mutant(Weakness.NO_RECONCILIATION, REGISTRY_BACK, "LOSS"),
    Mutant(Weakness.PURGED_BEFORE_RECONCILED, REGISTRY_BACK, "LOSS"),
    Mutant(Weakness.TOMBSTONE_OVERRIDDEN, REGISTRY_BACK, "LEAK"),
    Mutant(Weakness.UNKNOWN_RELEASED, REGISTRY_BACK, "LOSS"),
    Mutant(Weakness.NOTHING_ADOPTED, INGEST_BACK, "LOSS"),
    Mutant(Weakness.GROWN_NOT_READ, INGEST_BACK, "LOSS"),
)
