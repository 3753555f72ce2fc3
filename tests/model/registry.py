"""What the registry does to versions, and what becomes of its messages to ingest.

A message may be lost, repeated and overtaken: AcquirePin may arrive at any time after the version was meant, however
it ended; its answer at any time while somebody waits for it; ReleasePin at any time while the outbox has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.clients import Step
from tests.model.state import ENDED, HAS_CONTENT, NOWHERE, Feature, Model, Pin, Row, State, Version, put
from tests.model.weaknesses import Weakness


def intend(model: Model, state: State) -> Iterator[Step]:
    """Write down that a version is being committed: Commits, and pending.add_commit."""
    new = Version.COMMITTED if model.is_weak(Weakness.COMMITTED_BEFORE_PIN) else Version.PENDING
    for version in model.versions:
        if state.versions[version] == Version.NONE:
            yield f"intend v{version}", state._replace(versions=put(state.versions, version, new))


def acquire(model: Model, state: State) -> Iterator[Step]:
    """AcquirePin arrives: PinIndex.acquire. One transaction checks that all of it is live, and refers to all of it."""
    for version in model.versions:
        if state.versions[version] in (Version.NONE, Version.UNKNOWN):
            continue
        if state.pins[version] == Pin.HELD:
            if (granted := _answer(model, state, version)) != state:
                yield f"acquire v{version} again", granted
        elif state.pins[version] == Pin.NONE and _is_whole(model, state, model.world.versions[version]):
            pinned = _pin(model, state, version)
            yield f"acquire v{version}", _answer(model, pinned, version)


def commit(model: Model, state: State) -> Iterator[Step]:
    """The answer arrives, and the version gets its number: Commits, and pending.end_commit."""
    for version in model.versions:
        if state.granted[version]:
            done = state._replace(
                versions=put(state.versions, version, Version.COMMITTED),
                granted=put(state.granted, version, False),
                outbox=put(state.outbox, version, False),
            )
            yield f"commit v{version}", done


def abort(model: Model, state: State) -> Iterator[Step]:
    """Give a version up: PendingRows.abort_commit. The outbox has it in the same transaction."""
    keeps_waiting = model.is_weak(Weakness.COMMITTED_AFTER_ABORT)
    for version in model.versions:
        if state.versions[version] == Version.PENDING:
            ended = state._replace(
                versions=put(state.versions, version, Version.ABORTED), outbox=put(state.outbox, version, True)
            )
            if not keeps_waiting:
                ended = ended._replace(granted=put(state.granted, version, False))
            yield f"abort v{version}", ended


def delete(model: Model, state: State) -> Iterator[Step]:
    """Delete a version softly. Its pin stays."""
    for version in model.versions:
        if state.versions[version] == Version.COMMITTED:
            deleted = state._replace(versions=put(state.versions, version, Version.DELETED))
            if model.is_weak(Weakness.RELEASED_AT_SOFT_DELETE):
                deleted = deleted._replace(outbox=put(state.outbox, version, True))
            yield f"delete v{version}", deleted


def undelete(model: Model, state: State) -> Iterator[Step]:
    """Undo a soft delete."""
    for version in model.versions:
        if state.versions[version] == Version.DELETED:
            yield f"undelete v{version}", state._replace(versions=put(state.versions, version, Version.COMMITTED))


def purge(model: Model, state: State) -> Iterator[Step]:
    """End a soft delete for ever. The outbox has the version in the same transaction."""
    for version in model.versions:
        if state.versions[version] == Version.DELETED:
            purged = state._replace(
                versions=put(state.versions, version, Version.PURGED), outbox=put(state.outbox, version, True)
            )
            yield f"purge v{version}", purged


def release(model: Model, state: State) -> Iterator[Step]:
    """ReleasePin arrives: PinIndex.release. One that overtakes its pin leaves a tombstone too."""
    after = Pin.NONE if model.is_weak(Weakness.NO_TOMBSTONE) else Pin.RELEASED
    for version in model.versions:
        if state.outbox[version] and state.pins[version] != after:
            yield f"release v{version}", state._replace(pins=put(state.pins, version, after))


def acknowledge(model: Model, state: State) -> Iterator[Step]:
    """The answer to ReleasePin arrives, and the outbox forgets the version: PinReleases."""
    after = Pin.NONE if model.is_weak(Weakness.NO_TOMBSTONE) else Pin.RELEASED
    for version in model.versions:
        if state.outbox[version] and state.pins[version] == after:
            yield f"acknowledge v{version}", state._replace(outbox=put(state.outbox, version, False))


def lapse(model: Model, state: State) -> Iterator[Step]:
    """A pin ends by itself. Only in weakened rules."""
    if model.is_weak(Weakness.PIN_LAPSES):
        for version in model.versions:
            if state.pins[version] == Pin.HELD:
                yield f"lapse v{version}", state._replace(pins=put(state.pins, version, Pin.RELEASED))


def next_version(model: Model, state: State) -> Iterator[Step]:
    """Let the slot of a version that ended stand for the next one, of a fresh uid.

    The tombstone of the old uid refuses whatever is still on its way for it, so that can be left out.
    """
    if model.is_weak(Weakness.NO_TOMBSTONE, Weakness.COMMITTED_AFTER_ABORT) or _goes_back(model):
        return
    for version in model.versions:
        ended = state.versions[version] in ENDED and state.pins[version] == Pin.RELEASED
        if ended and not state.outbox[version]:
            fresh = state._replace(
                versions=put(state.versions, version, Version.NONE), pins=put(state.pins, version, Pin.NONE)
            )
            # Losses of the old version are not of the new one.
            excused = tuple(bits & ~(1 << version) for bits in state.excused)
            yield f"next v{version}", fresh._replace(excused=excused)


def _goes_back(model: Model) -> bool:
    return model.has(Feature.RESTORE_REGISTRY) or model.has(Feature.RESTORE_INGEST)


def _is_whole(model: Model, state: State, tree: int) -> bool:
    """Tell whether AcquirePin finds all of the tree live."""
    if model.is_weak(Weakness.PIN_CHECKS_NOTHING):
        return True
    blobs = model.world.trees[tree][: 1 if model.is_weak(Weakness.PIN_CHECKS_FIRST_BLOB) else None]
    live = HAS_CONTENT if model.is_weak(Weakness.DAMAGED_IS_LIVE, Weakness.PIN_CHECKS_BLOBS_ALONE) else (Row.LIVE,)
    if state.trees[tree] != Row.LIVE or any(state.blobs[blob] not in live for blob in blobs):
        return False
    if model.is_weak(Weakness.PIN_CHECKS_BLOBS_ALONE):
        return True
    return all(model.is_visible(state, chunk) for blob in blobs for chunk in model.world.blobs[blob])


def _pin(model: Model, state: State, version: int) -> State:
    tree = model.world.versions[version]
    chunks = model.chunks_of_tree[tree]
    excused = state.excused
    for chunk in chunks:
        pack = state.place[chunk]
        if pack != NOWHERE and state.files[pack] and not state.contents[pack] >> chunk & 1:
            # The disk lost it and nobody has recorded that yet, so nobody can refuse it.
            excused = put(excused, chunk, excused[chunk] | 1 << version)
    pinned = state._replace(pins=put(state.pins, version, Pin.HELD), excused=excused)
    if model.is_weak(Weakness.PIN_COUNTS_NOTHING):
        return pinned
    return model.referred(
        pinned, packs={state.place[chunk] for chunk in chunks}, blobs=model.world.trees[tree], tree=tree
    )


def _answer(model: Model, state: State, version: int) -> State:
    """Have the answer on its way, where it still makes a difference."""
    waits = [Version.PENDING]
    if model.is_weak(Weakness.COMMITTED_AFTER_ABORT):
        waits.append(Version.ABORTED)
    if state.versions[version] not in waits:
        return state
    return state._replace(granted=put(state.granted, version, True))
