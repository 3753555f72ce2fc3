"""What a moment is made of, and the questions that several actions ask about it. Pure.

Generations are not numbers here. All that a generation is for is to tell a collector that a row was referred to since
it looked; so a reference makes the collector forget the row it is at (`referred`).

Names are never used twice, so a name that is used up can be taken out of the state: a slot of a pack whose file and
row are gone stands for the next fresh id, and whatever is still on its way for the old id hits nothing. That makes
histories endless; a world bounds only what is there at one time.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, IntEnum, auto
from typing import NamedTuple, TypeVar

from tests.model.weaknesses import Weakness

T = TypeVar("T")
NOWHERE = -1


class Pack(IntEnum):
    """The row of a pack."""

    UNUSED = 0
    LIVE = 1
    # The target of a compaction that has not committed; no row yet.
    COPY = 2
    CONDEMNED = 3
    # Condemned before the backup was taken.
    CONDEMNED_BEFORE = 4
    DELETING = 5
    # Its rows are gone, and a backup of ingest's database still knows it.
    GONE = 6


class Row(IntEnum):
    """The row of a blob or a tree."""

    ABSENT = 0
    LIVE = 1
    DAMAGED = 2
    CONDEMNED = 3
    CONDEMNED_BEFORE = 4


class Pin(IntEnum):
    """The row of a pin at ingest."""

    NONE = 0
    HELD = 1
    RELEASED = 2


class Version(IntEnum):
    """The row of a version at the registry."""

    NONE = 0
    PENDING = 1
    COMMITTED = 2
    # Soft: it can be undeleted.
    DELETED = 3
    PURGED = 4
    ABORTED = 5
    # A backup from before it was restored, and its uid is never given again.
    UNKNOWN = 6


class Listed(IntEnum):
    """What the reconciler knows of a version."""

    OTHER = 0
    KEPT = 1
    SAW_TOMBSTONE = 2
    DONE = 3


class Restored(IntEnum):
    """Whether a database went back, and no reconciliation that began later has ended."""

    NO = 0
    LISTED = 1
    YES = 2


class Feature(Enum):
    """What may happen in a world, besides uploads, commits, deletes and collections."""

    # Trees have rows that are collected. Without it a tree is its blobs.
    TREES = auto()
    # What one client uploads lies in one pack.
    TOGETHER = auto()
    # What is uploaded may go to a pack that is there.
    GROWTH = auto()
    COMPACTION = auto()
    # A disk loses a chunk.
    LOSSES = auto()
    # A generation is read, judged and acted upon in one step: how the three interleave is the matter of other worlds.
    ONE_STEP = auto()
    # Collection runs after a reconciliation alone, and what is condemned waits in the trash.
    RECONCILE = auto()
    RESTORE_REGISTRY = auto()
    RESTORE_INGEST = auto()


class Mark(NamedTuple):
    """A row that a collector read the generation of, and whether it then found it unreachable."""

    kind: str
    number: int
    judged: bool


class Copying(NamedTuple):
    """A compaction that has copied, and not yet moved the rows."""

    old: int
    new: int


class Suspect(NamedTuple):
    """A chunk that somebody could not read at this place, and has not yet recorded as lost."""

    chunk: int
    pack: int


class IngestBackup(NamedTuple):
    """What a backup of ingest's database has."""

    packs: tuple[Pack, ...]
    place: tuple[int, ...]
    blobs: tuple[Row, ...]
    trees: tuple[Row, ...]
    pins: tuple[Pin, ...]


class RegistryBackup(NamedTuple):
    """What a backup of the registry's database has."""

    versions: tuple[Version, ...]
    outbox: tuple[bool, ...]


class Unadopted(NamedTuple):
    """The blobs and trees that the packs tell of, while a restored database of ingest has not caught up with them."""

    blobs: tuple[bool, ...]
    trees: tuple[bool, ...]


class State(NamedTuple):
    """One moment. What two rows of a table have in common is one tuple, by the number of the row."""

    # Ingest: files and rows.
    packs: tuple[Pack, ...]
    files: tuple[bool, ...]
    # The chunks that can be read in each pack's file, as bits.
    contents: tuple[int, ...]
    # The pack that each chunk's row names.
    place: tuple[int, ...]
    blobs: tuple[Row, ...]
    trees: tuple[Row, ...]
    pins: tuple[Pin, ...]
    # Physical deletes that are on their way: they may arrive at any time, and more than once.
    deletes: tuple[bool, ...]
    # For each chunk, the versions that the disk took it from, as bits. A new upload ends that.
    excused: tuple[int, ...]
    # Ingest: in memory.
    row_mark: Mark | None
    pack_mark: Mark | None
    copying: Copying | None
    suspect: Suspect | None
    running: bool
    listing: tuple[Listed, ...] | None
    # Registry: rows, and answers of AcquirePin that are on their way.
    versions: tuple[Version, ...]
    outbox: tuple[bool, ...]
    granted: tuple[bool, ...]
    # Backups within the trash window, and what went back to one.
    registry_backup: RegistryBackup | None
    ingest_backup: IngestBackup | None
    restored: Restored
    unadopted: Unadopted | None


KEPT = (Version.COMMITTED, Version.DELETED)
ENDED = (Version.PURGED, Version.ABORTED)
HAS_CONTENT = (Row.LIVE, Row.DAMAGED)
IN_TRASH = (Row.CONDEMNED, Row.CONDEMNED_BEFORE)
PACK_IN_TRASH = (Pack.CONDEMNED, Pack.CONDEMNED_BEFORE)


class World(NamedTuple):
    """What there is: which chunks a blob needs, which blobs a tree names, which tree each version has."""

    name: str
    blobs: tuple[tuple[int, ...], ...]
    trees: tuple[tuple[int, ...], ...]
    versions: tuple[int, ...]
    packs: int
    features: frozenset[Feature]

    @property
    def chunk_count(self) -> int:
        """How many chunks there are."""
        return 1 + max(chunk for blob in self.blobs for chunk in blob)


class Model:
    """A world, under rules of which one may be weakened."""

    def __init__(self, world: World, weakness: Weakness | None = None) -> None:
        self.world = world
        self.weakness = weakness
        self.versions = range(len(world.versions))
        self.packs = range(world.packs)
        self.chunks = range(world.chunk_count)
        self.blobs = range(len(world.blobs))
        self.trees = range(len(world.trees))
        # For each chunk the blobs that need it, and for each tree its chunks.
        self.needed_by = [[b for b in self.blobs if c in world.blobs[b]] for c in self.chunks]
        self.chunks_of_tree = [sorted({c for b in tree for c in world.blobs[b]}) for tree in world.trees]
        # Versions of one tree can change places. Not in a history that somebody will read.
        self.is_symmetric = weakness is None and len(world.versions) == 2 and len(set(world.versions)) == 1

    def has(self, feature: Feature) -> bool:
        """Tell whether the world has the feature."""
        return feature in self.world.features

    def is_weak(self, *weaknesses: Weakness) -> bool:
        """Tell whether the rules are weakened in one of these ways."""
        return self.weakness in weaknesses

    def first(self) -> State:
        """Return the state in which nothing has happened."""
        versions, packs = len(self.versions), len(self.packs)
        has_trees = self.has(Feature.TREES)
        return State(
            packs=(Pack.UNUSED,) * packs,
            files=(False,) * packs,
            contents=(0,) * packs,
            place=(NOWHERE,) * len(self.chunks),
            blobs=(Row.ABSENT,) * len(self.blobs),
            trees=(Row.ABSENT if has_trees else Row.LIVE,) * len(self.trees),
            pins=(Pin.NONE,) * versions,
            deletes=(False,) * packs,
            excused=(0,) * len(self.chunks),
            row_mark=None,
            pack_mark=None,
            copying=None,
            suspect=None,
            # Without reconciliations a collection always runs.
            running=not self.has(Feature.RECONCILE),
            listing=None,
            versions=(Version.NONE,) * versions,
            outbox=(False,) * versions,
            granted=(False,) * versions,
            registry_backup=None,
            ingest_backup=None,
            restored=Restored.NO,
            unadopted=None,
        )

    def is_visible(self, state: State, chunk: int) -> bool:
        """Tell whether FindMissing, commits and pins see the chunk."""
        pack = state.place[chunk]
        if pack == NOWHERE:
            return False
        shown = (Pack.LIVE, *PACK_IN_TRASH) if self.is_weak(Weakness.CONDEMNED_IS_VISIBLE) else (Pack.LIVE,)
        return state.packs[pack] in shown

    def fresh_pack(self, state: State) -> Iterator[int]:
        """Yield a slot for a pack of a new id, if one is left."""
        slots = (0,) if self.is_weak(Weakness.PACKS_NAMED_BY_CONTENT) else self.packs
        for pack in slots:
            if state.packs[pack] == Pack.UNUSED and (
                not state.files[pack] or self.is_weak(Weakness.PACKS_NAMED_BY_CONTENT)
            ):
                yield pack
                return

    def is_needed(self, state: State, chunk: int) -> bool:
        """Tell whether a blob that is not condemned needs the chunk."""
        states = (Row.LIVE,) if self.is_weak(Weakness.DAMAGED_KEEPS_NOTHING) else HAS_CONTENT
        return any(state.blobs[blob] in states for blob in self.needed_by[chunk])

    def referred(self, state: State, *, packs: set[int], blobs: tuple[int, ...] = (), tree: int | None = None) -> State:
        """Count the generations of rows up: a collector or a compaction that read them before gives up."""
        mark = state.row_mark
        rows = blobs if mark is not None and mark.kind == "blob" else (tree,)
        if mark is not None and mark.number in rows and self._notices(mark, Weakness.ROWS_WITHOUT_CAS):
            state = state._replace(row_mark=None)
        mark = state.pack_mark
        if mark is not None and mark.number in packs and self._notices(mark, Weakness.PACKS_WITHOUT_CAS):
            state = state._replace(pack_mark=None)
        copying = state.copying
        if copying is not None and copying.old in packs and not self.is_weak(Weakness.COMPACTION_WITHOUT_CAS):
            state = lost_copy(state)
        return state

    def _notices(self, mark: Mark, without_cas: Weakness) -> bool:
        """Tell whether a collector will see that a generation was counted up."""
        has_read = mark.judged or not self.is_weak(Weakness.JUDGED_BEFORE_READ)
        return has_read and not self.is_weak(without_cas)

    def canonical(self, state: State) -> State:
        """Return the one of the states that differ only in which version of the same tree is which."""
        if not self.is_symmetric:
            return state
        backup = state.registry_backup
        columns = [state.versions, state.pins, state.outbox, state.granted, state.listing or (0, 0), *(backup or ())]
        keys = list(zip(*columns, strict=True))
        if keys[0] <= keys[1]:
            return state
        if backup is not None:
            backup = RegistryBackup(backup.versions[::-1], backup.outbox[::-1])
        return state._replace(
            registry_backup=backup,
            versions=state.versions[::-1],
            pins=state.pins[::-1],
            outbox=state.outbox[::-1],
            granted=state.granted[::-1],
            listing=state.listing[::-1] if state.listing is not None else None,
        )


def put(row: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    """Return the tuple with one value replaced."""
    return (*row[:index], value, *row[index + 1 :])


def lost_copy(state: State) -> State:
    """Leave the copy of a compaction behind: garbage, which a later run condemns."""
    if state.copying is None:
        return state
    return state._replace(packs=put(state.packs, state.copying.new, Pack.CONDEMNED), copying=None)


def taken(state: State, pack: int) -> State:
    """Give a slot to a fresh id: whoever is at the old id does not mean the new one."""
    if state.pack_mark is not None and state.pack_mark.number == pack:
        state = state._replace(pack_mark=None)
    if state.copying is not None and state.copying.old == pack:
        state = lost_copy(state)
    if state.suspect is not None and state.suspect.pack == pack:
        state = state._replace(suspect=None)
    return state


def is_backup_young(state: State) -> bool:
    """Tell whether there is a backup that may still be restored."""
    return state.registry_backup is not None or state.ingest_backup is not None
