"""Databases that go back to a backup, and the reconciliation that has to come before anything is deleted.

When a database goes back, the process over it was stopped. What it had sent and what was on its way to it is gone: so
no answer of AcquirePin comes from before, and no physical delete that an old ingest asked for is done after. That is
assumed, not shown; it holds on a directory, and on an object store when its requests have timed out. Nor is a backup
taken of a database that went back, before it was reconciled.

A run of the collector takes its clock when its reconciliation begins, and is shorter than the trash window: a window
does not end while a run goes on. That is assumed too.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.clients import Step
from tests.model.state import (
    HAS_CONTENT,
    IN_TRASH,
    KEPT,
    NOWHERE,
    PACK_IN_TRASH,
    Feature,
    IngestBackup,
    Listed,
    Model,
    Pack,
    Pin,
    RegistryBackup,
    Restored,
    Row,
    State,
    Unadopted,
    Version,
    is_backup_young,
    put,
)
from tests.model.weaknesses import Weakness

_EXPECTED = (Version.PENDING, *KEPT)


def list_kept(model: Model, state: State) -> Iterator[Step]:
    """Begin to reconcile: read which versions the registry keeps. KeptVersions; it is old when it is used."""
    if model.has(Feature.RECONCILE) and not state.running and state.listing is None:
        listing = tuple(Listed.KEPT if version in KEPT else Listed.OTHER for version in state.versions)
        restored = Restored.LISTED if state.restored == Restored.YES else state.restored
        yield "list", state._replace(listing=listing, restored=restored)


def reconcile(model: Model, state: State) -> Iterator[Step]:
    """Hold one entry of the list against the pins."""
    if state.listing is None:
        return
    for version, listed in enumerate(state.listing):
        if listed == Listed.DONE:
            continue
        for what, after in _reconcile_one(model, state, version, listed):
            yield f"{what} v{version}", after


def begin_run(model: Model, state: State) -> Iterator[Step]:
    """Begin to collect: every version that is kept has its pin."""
    is_done = state.listing is not None and all(listed == Listed.DONE for listed in state.listing)
    if is_done or (model.is_weak(Weakness.NO_RECONCILIATION) and not state.running):
        restored = Restored.NO if is_done and state.restored == Restored.LISTED else state.restored
        yield "run", state._replace(running=True, listing=None, restored=restored)


def release_unknown(model: Model, state: State) -> Iterator[Step]:
    """An operator releases a pin that the registry does not expect, after asking it: --release-unknown-pins."""
    if model.has(Feature.RECONCILE):
        for version in model.versions:
            if state.pins[version] == Pin.HELD and state.versions[version] not in _EXPECTED:
                yield f"release unknown v{version}", state._replace(pins=put(state.pins, version, Pin.RELEASED))


def back_up(model: Model, state: State) -> Iterator[Step]:
    """Back a database up. What was condemned before need not stay for this backup's sake."""
    if is_backup_young(state) or state.restored != Restored.NO:
        return
    before = state._replace(
        packs=tuple(Pack.CONDEMNED_BEFORE if pack == Pack.CONDEMNED else pack for pack in state.packs),
        blobs=tuple(Row.CONDEMNED_BEFORE if row == Row.CONDEMNED else row for row in state.blobs),
        trees=tuple(Row.CONDEMNED_BEFORE if row == Row.CONDEMNED else row for row in state.trees),
    )
    if model.has(Feature.RESTORE_REGISTRY):
        yield "back up registry", before._replace(registry_backup=RegistryBackup(state.versions, state.outbox))
    if model.has(Feature.RESTORE_INGEST):
        backup = IngestBackup(before.packs, before.place, before.blobs, before.trees, before.pins)
        yield "back up ingest", before._replace(ingest_backup=backup)


def end_window(model: Model, state: State) -> Iterator[Step]:
    """The backup becomes older than the trash window: restoring it is refused from now on."""
    if is_backup_young(state) and not state.running and state.listing is None:
        packs = tuple(Pack.UNUSED if pack == Pack.GONE else pack for pack in state.packs)
        deletes = tuple(sent and packs[pack] != Pack.UNUSED for pack, sent in enumerate(state.deletes))
        ended = state._replace(packs=packs, deletes=deletes, registry_backup=None, ingest_backup=None)
        yield "window ends", ended


def restore_registry(model: Model, state: State) -> Iterator[Step]:
    """The registry goes back. Versions that it does not know any more had uids that are never given again."""
    backup = state.registry_backup
    if backup is None:
        return
    versions = tuple(
        Version.UNKNOWN if old == Version.NONE != now else old
        for old, now in zip(backup.versions, state.versions, strict=True)
    )
    nothing = (False,) * len(versions)
    yield (
        "restore registry",
        state._replace(versions=versions, outbox=backup.outbox, granted=nothing, restored=Restored.YES),
    )


def restore_ingest(model: Model, state: State) -> Iterator[Step]:
    """Ingest's database goes back; the files do not. Until it has caught up, ingest does nothing else."""
    backup = state.ingest_backup
    if backup is None:
        return
    told = Unadopted(tuple(row in HAS_CONTENT for row in state.blobs), tuple(row in HAS_CONTENT for row in state.trees))
    restored = state._replace(
        packs=backup.packs,
        place=backup.place,
        blobs=backup.blobs,
        trees=backup.trees,
        pins=backup.pins,
        deletes=(False,) * len(state.packs),
        row_mark=None,
        pack_mark=None,
        running=False,
        listing=None,
        granted=(False,) * len(state.versions),
        restored=Restored.YES,
        unadopted=told,
    )
    yield "restore ingest", restored


def catch_up(model: Model, state: State) -> Iterator[Step]:
    """Hold a restored database against the packs: adopt those it does not know, drop those that are gone.

    The records of an adopted pack get rows where there are none in a live pack, and so do those of a known pack that
    has grown since. What recipes and trees tell of becomes live where it is not known: a blob of one chunk has no
    recipe, and the pages of trees tell of it.
    """
    if state.unadopted is None:
        return
    packs, place, blobs, trees = list(state.packs), list(state.place), list(state.blobs), list(state.trees)
    for pack in model.packs:
        if packs[pack] in (Pack.LIVE, *PACK_IN_TRASH) and not state.files[pack]:
            packs[pack] = Pack.GONE
    adopted = [pack for pack in model.packs if packs[pack] == Pack.UNUSED and state.files[pack]]
    if model.is_weak(Weakness.NOTHING_ADOPTED):
        adopted = []
    for pack in adopted:
        packs[pack] = Pack.LIVE
    if not model.is_weak(Weakness.GROWN_NOT_READ):
        adopted += [pack for pack in model.packs if packs[pack] == Pack.LIVE and pack not in adopted]
        adopted += [pack for pack in model.packs if packs[pack] in PACK_IN_TRASH]
    for chunk in model.chunks:
        at = place[chunk]
        if at == NOWHERE or packs[at] != Pack.LIVE:
            holders = [pack for pack in adopted if state.contents[pack] >> chunk & 1]
            if holders:
                place[chunk] = holders[0]
            elif at != NOWHERE and packs[at] == Pack.GONE:
                place[chunk] = NOWHERE
    blobs = _adopted_rows(blobs, state.unadopted.blobs)
    trees = _adopted_rows(trees, state.unadopted.trees)
    for chunk in model.chunks:
        if place[chunk] == NOWHERE:
            for blob in model.needed_by[chunk]:
                blobs[blob] = Row.DAMAGED if blobs[blob] == Row.LIVE else blobs[blob]
    caught_up = state._replace(
        packs=tuple(packs), place=tuple(place), blobs=tuple(blobs), trees=tuple(trees), unadopted=None
    )
    yield "catch up", caught_up


def is_recoverable(model: Model, state: State, version: int) -> bool:
    """Tell whether a reconciliation can still make the version whole: nothing of it has begun to be deleted."""
    tree = model.world.versions[version]
    if state.trees[tree] == Row.ABSENT or any(state.blobs[blob] == Row.ABSENT for blob in model.world.trees[tree]):
        return False
    return all(
        (pack := state.place[chunk]) != NOWHERE
        and state.packs[pack] in (Pack.LIVE, *PACK_IN_TRASH)
        and (state.files[pack] or state.unadopted is not None)
        for chunk in model.chunks_of_tree[tree]
    )


def _reconcile_one(model: Model, state: State, version: int, listed: Listed) -> Iterator[Step]:
    pin = state.pins[version]
    done = _listed(state, version, Listed.DONE)
    if listed == Listed.OTHER:
        if pin == Pin.HELD and model.is_weak(Weakness.UNKNOWN_RELEASED):
            yield "release unlisted", done._replace(pins=put(done.pins, version, Pin.RELEASED))
        else:
            # A pin that the registry does not expect is reported, and nothing else.
            yield "reconcile", done
    elif pin == Pin.HELD:
        yield "reconcile", done
    elif pin == Pin.RELEASED and listed == Listed.KEPT and not model.is_weak(Weakness.TOMBSTONE_OVERRIDDEN):
        yield "tombstone of", _listed(state, version, Listed.SAW_TOMBSTONE)
    elif listed == Listed.SAW_TOMBSTONE and state.versions[version] not in KEPT:
        # The list was older than the tombstone.
        yield "not expected any more", done
    elif is_recoverable(model, state, version):
        # The question and the pin are one step here: docs/reliability.md says what a purge between them costs.
        yield "pin again", _pin_again(model, done, version)


def _pin_again(model: Model, state: State, version: int) -> State:
    """Take what the version needs out of the trash, and pin it: one transaction."""
    tree = model.world.versions[version]
    blobs, packs, trees = state.blobs, state.packs, state.trees
    for blob in model.world.trees[tree]:
        blobs = put(blobs, blob, Row.LIVE) if blobs[blob] in IN_TRASH else blobs
    used = {state.place[chunk] for chunk in model.chunks_of_tree[tree]}
    for pack in used:
        packs = put(packs, pack, Pack.LIVE)
    trees = put(trees, tree, Row.LIVE) if trees[tree] in IN_TRASH else trees
    revived = state._replace(packs=packs, blobs=blobs, trees=trees, pins=put(state.pins, version, Pin.HELD))
    return model.referred(revived, packs=used, blobs=model.world.trees[tree], tree=tree)


def _adopted_rows(rows: list[Row], told: tuple[bool, ...]) -> list[Row]:
    return [Row.LIVE if is_told and row == Row.ABSENT else row for row, is_told in zip(rows, told, strict=True)]


def _listed(state: State, version: int, listed: Listed) -> State:
    if state.listing is None:
        raise AssertionError("only what is listed is reconciled")
    return state._replace(listing=put(state.listing, version, listed))
