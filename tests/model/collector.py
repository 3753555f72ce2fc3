"""What a collector does: it reads a generation, then looks who needs the row, then condemns it if nobody came.

Rows and packs have a collector each, so that two that disagree can be at work. A process that ends at any moment
forgets what it read (`stop`); what is durable goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.clients import Step
from tests.model.state import (
    HAS_CONTENT,
    NOWHERE,
    PACK_IN_TRASH,
    Copying,
    Feature,
    Mark,
    Model,
    Pack,
    Pin,
    Row,
    State,
    is_backup_young,
    lost_copy,
    put,
    taken,
)
from tests.model.weaknesses import Weakness


def read_row(model: Model, state: State) -> Iterator[Step]:
    """Read the generation of a tree or a blob."""
    if state.running and state.row_mark is None:
        for kind, index in _rows(model, state):
            is_unreachable = _is_unreachable(model, state, kind, index)
            if model.has(Feature.ONE_STEP):
                if is_unreachable:
                    yield f"condemn {kind[0]}{index}", _condemned(model, state, kind, index)
            elif is_unreachable or not model.is_weak(Weakness.JUDGED_BEFORE_READ):
                yield f"read {kind[0]}{index}", state._replace(row_mark=Mark(kind, index, False))


def judge_row(model: Model, state: State) -> Iterator[Step]:
    """Find that no pin that is held needs the row."""
    mark = state.row_mark
    if not state.running or mark is None or mark.judged:
        return
    if model.is_weak(Weakness.JUDGED_BEFORE_READ) or _is_unreachable(model, state, mark.kind, mark.number):
        yield f"judge {mark.kind[0]}{mark.number}", state._replace(row_mark=mark._replace(judged=True))


def condemn_row(model: Model, state: State) -> Iterator[Step]:
    """Condemn the row, if its generation is what was read: else the mark is gone, see Model.referred."""
    mark = state.row_mark
    if not state.running or mark is None or not mark.judged:
        return
    rows = state.trees if mark.kind == "tree" else state.blobs
    if rows[mark.number] in HAS_CONTENT:
        yield f"condemn {mark.kind[0]}{mark.number}", _condemned(model, state, mark.kind, mark.number)


def forget_row(model: Model, state: State) -> Iterator[Step]:
    """Delete the row of a tree or blob that was in the trash for long enough."""
    if _may_empty_trash(model, state):
        for kind, rows in (("tree", state.trees), ("blob", state.blobs)):
            for index, row in enumerate(rows):
                if row == Row.CONDEMNED_BEFORE or (row == Row.CONDEMNED and _window_is_over(model, state)):
                    yield f"forget {kind[0]}{index}", _with_row(state, kind, index, Row.ABSENT)


def read_pack(model: Model, state: State) -> Iterator[Step]:
    """Read the generation of a pack."""
    if state.running and state.pack_mark is None:
        for pack in model.packs:
            if state.packs[pack] != Pack.LIVE:
                continue
            is_garbage = _is_garbage(model, state, pack)
            if model.has(Feature.ONE_STEP):
                if is_garbage:
                    yield f"condemn p{pack}", state._replace(packs=put(state.packs, pack, Pack.CONDEMNED))
            elif is_garbage or not model.is_weak(Weakness.JUDGED_BEFORE_READ):
                yield f"read p{pack}", state._replace(pack_mark=Mark("pack", pack, False))


def judge_pack(model: Model, state: State) -> Iterator[Step]:
    """Find that no blob needs a chunk whose row names the pack."""
    mark = state.pack_mark
    if not state.running or mark is None or mark.judged:
        return
    if model.is_weak(Weakness.JUDGED_BEFORE_READ) or _is_garbage(model, state, mark.number):
        yield f"judge p{mark.number}", state._replace(pack_mark=mark._replace(judged=True))


def condemn_pack(model: Model, state: State) -> Iterator[Step]:
    """Condemn the pack, if its generation is what was read."""
    mark = state.pack_mark
    if state.running and mark is not None and mark.judged and state.packs[mark.number] == Pack.LIVE:
        condemned = state._replace(packs=put(state.packs, mark.number, Pack.CONDEMNED), pack_mark=None)
        yield f"condemn p{mark.number}", condemned


def begin_delete(model: Model, state: State) -> Iterator[Step]:
    """Note that a pack is being deleted, in a transaction of its own. There is no way back."""
    if not _may_empty_trash(model, state):
        return
    for pack in model.packs:
        before = state.packs[pack]
        if before == Pack.CONDEMNED_BEFORE or (before == Pack.CONDEMNED and _window_is_over(model, state)):
            yield f"deleting p{pack}", state._replace(packs=put(state.packs, pack, Pack.DELETING))


def send_delete(model: Model, state: State) -> Iterator[Step]:
    """Have the file deleted. PackStorage.delete; a collector that starts finishes what it finds."""
    states = (Pack.DELETING, *PACK_IN_TRASH) if model.is_weak(Weakness.DELETED_BEFORE_DELETING) else (Pack.DELETING,)
    for pack in model.packs:
        if state.packs[pack] in states and not state.deletes[pack]:
            yield f"send delete p{pack}", state._replace(deletes=put(state.deletes, pack, True))


def lose_file(model: Model, state: State) -> Iterator[Step]:
    """The delete is done: at any time after it was sent, and again if there is a file again."""
    for pack in model.packs:
        if state.deletes[pack] and state.files[pack]:
            gone = state._replace(files=put(state.files, pack, False), contents=put(state.contents, pack, 0))
            yield f"file p{pack} goes", gone


def drop_pack(model: Model, state: State) -> Iterator[Step]:
    """Delete the rows of a pack whose file is gone: chunks that still point to it, then the pack."""
    for pack in model.packs:
        file_is_gone = not state.files[pack] or model.is_weak(Weakness.ROW_BEFORE_FILE)
        if state.packs[pack] == Pack.DELETING and file_is_gone:
            backup = state.ingest_backup
            is_remembered = backup is not None and backup.packs[pack] != Pack.UNUSED
            keeps_delete = is_remembered or model.is_weak(Weakness.PACKS_NAMED_BY_CONTENT)
            dropped = state._replace(
                packs=put(state.packs, pack, Pack.GONE if is_remembered else Pack.UNUSED),
                place=tuple(NOWHERE if at == pack else at for at in state.place),
                deletes=state.deletes if keeps_delete else put(state.deletes, pack, False),
            )
            yield f"drop p{pack}", dropped


def revive_pack(model: Model, state: State) -> Iterator[Step]:
    """An operator takes a pack out of the trash."""
    states = (*PACK_IN_TRASH, Pack.DELETING) if model.is_weak(Weakness.REVIVED_WHILE_DELETING) else PACK_IN_TRASH
    for pack in model.packs:
        if state.packs[pack] in states and state.files[pack] and pack in state.place:
            revived = state._replace(packs=put(state.packs, pack, Pack.LIVE))
            yield f"revive p{pack}", model.referred(revived, packs={pack})


def copy_pack(model: Model, state: State) -> Iterator[Step]:
    """Begin a compaction: read the old pack's generation, then copy and verify what is needed of it.

    Not of a pack with a record that cannot be read: that one is left alone.
    """
    if not model.has(Feature.COMPACTION) or not state.running or state.copying is not None:
        return
    for old in model.packs:
        chunks = [c for c in model.chunks if state.place[c] == old and model.is_needed(state, c)]
        can_read = all(state.contents[old] >> chunk & 1 for chunk in chunks)
        if state.packs[old] == Pack.LIVE and chunks and can_read:
            for new in model.fresh_pack(state):
                empty = taken(state, new)
                copied = empty._replace(
                    packs=put(empty.packs, new, Pack.COPY),
                    files=put(empty.files, new, True),
                    contents=put(empty.contents, new, sum(1 << chunk for chunk in chunks)),
                    copying=Copying(old, new),
                )
                yield f"copy p{old}->p{new}", copied


def move_rows(model: Model, state: State) -> Iterator[Step]:
    """End a compaction in one transaction: rows moved, the new pack live, the old one condemned if nobody came."""
    if state.copying is None:
        return
    old, new = state.copying
    if state.packs[old] != Pack.LIVE:
        yield f"copy p{new} is late", lost_copy(state)
        return
    moved = state._replace(
        packs=put(put(state.packs, new, Pack.LIVE), old, Pack.CONDEMNED),
        place=tuple(
            new if at == old and state.contents[new] >> chunk & 1 else at for chunk, at in enumerate(state.place)
        ),
        copying=None,
    )
    # The old pack's generation counts up, and so do those that its rows go to.
    yield f"move p{old}->p{new}", model.referred(moved, packs={old, new})


def stop(model: Model, state: State) -> Iterator[Step]:
    """The collector's process ends, or its run does: what it read is forgotten."""
    stopped = lost_copy(state)._replace(row_mark=None, pack_mark=None)
    if model.has(Feature.RECONCILE):
        stopped = stopped._replace(running=False, listing=None)
    if stopped != state:
        yield "stop", stopped


def _rows(model: Model, state: State) -> Iterator[tuple[str, int]]:
    """Yield what may be condemned."""
    if model.has(Feature.TREES):
        yield from (("tree", index) for index in model.trees if state.trees[index] in HAS_CONTENT)
    yield from (("blob", index) for index in model.blobs if state.blobs[index] in HAS_CONTENT)


def _is_unreachable(model: Model, state: State, kind: str, index: int) -> bool:
    held = {model.world.versions[v] for v in model.versions if state.pins[v] == Pin.HELD}
    if kind == "tree":
        return index not in held
    return not any(index in model.world.trees[tree] for tree in held)


def _is_garbage(model: Model, state: State, pack: int) -> bool:
    return not any(state.place[chunk] == pack and model.is_needed(state, chunk) for chunk in model.chunks)


def _condemned(model: Model, state: State, kind: str, index: int) -> State:
    # Where nobody revives a row but a commit, which makes no difference between the two, condemned is absent.
    after = Row.CONDEMNED if model.has(Feature.RECONCILE) else Row.ABSENT
    return _with_row(state, kind, index, after)._replace(row_mark=None)


def _with_row(state: State, kind: str, index: int, row: Row) -> State:
    if kind == "tree":
        return state._replace(trees=put(state.trees, index, row))
    return state._replace(blobs=put(state.blobs, index, row))


def _may_empty_trash(model: Model, state: State) -> bool:
    return state.running or model.is_weak(Weakness.PURGED_BEFORE_RECONCILED)


def _window_is_over(model: Model, state: State) -> bool:
    """Tell whether what is condemned may be deleted: a backup from before would need it."""
    return not is_backup_young(state) or model.is_weak(Weakness.TRASH_IGNORED)
