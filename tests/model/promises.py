"""What has to hold in every state, and what has to stay possible from every state."""

from __future__ import annotations

from tests.model.restores import is_recoverable
from tests.model.state import (
    ENDED,
    HAS_CONTENT,
    KEPT,
    NOWHERE,
    Feature,
    Model,
    Pack,
    Pin,
    Restored,
    State,
    Version,
)


def broken(model: Model, state: State) -> str | None:
    """Return what is broken, or None."""
    for version in model.versions:
        if state.versions[version] in KEPT and not _is_kept(model, state, version):
            return f"LOSS of v{version}"
    if not model.has(Feature.RESTORE_INGEST):
        for version in model.versions:
            is_over = state.versions[version] in ENDED and not state.outbox[version]
            if is_over and state.pins[version] == Pin.HELD:
                return f"LEAK: nobody will ever release the pin of v{version}"
        for pack in model.packs:
            if state.files[pack] and state.packs[pack] == Pack.UNUSED:
                return f"LEAK: nobody will ever delete the file of p{pack}"
    return None


def is_empty(model: Model, state: State) -> bool:
    """Tell whether all garbage is gone, in a state where all is garbage."""
    return (
        all(pack in (Pack.UNUSED, Pack.GONE) for pack in state.packs)
        and not any(state.files)
        and not any(row in HAS_CONTENT for row in state.blobs)
        and (not model.has(Feature.TREES) or not any(row in HAS_CONTENT for row in state.trees))
    )


def is_all_garbage(model: Model, state: State) -> bool:
    """Tell whether nothing is pinned, and nothing that is kept waits for its pin."""
    return not any(pin == Pin.HELD for pin in state.pins) and not any(version in KEPT for version in state.versions)


def has_committed(model: Model, state: State) -> bool:
    """Tell whether a version is committed, and whole."""
    return any(
        state.versions[version] == Version.COMMITTED and _is_whole(model, state, version) for version in model.versions
    )


def can_begin(model: Model, state: State) -> bool:
    """Tell whether a version can still be meant: a world has only so many."""
    return Version.NONE in state.versions


def _is_kept(model: Model, state: State, version: int) -> bool:
    """Tell whether a version that the registry keeps is whole, or at least recoverable where a database went back."""
    if state.restored == Restored.NO or state.pins[version] == Pin.HELD:
        return _is_whole(model, state, version) or state.unadopted is not None
    return state.unadopted is not None or is_recoverable(model, state, version) or _is_whole(model, state, version)


def _is_whole(model: Model, state: State, version: int) -> bool:
    tree = model.world.versions[version]
    if state.trees[tree] not in HAS_CONTENT:
        return False
    return all(state.blobs[blob] in HAS_CONTENT for blob in model.world.trees[tree]) and all(
        state.excused[chunk] >> version & 1 or _can_be_read(model, state, chunk) for chunk in model.chunks_of_tree[tree]
    )


def _can_be_read(model: Model, state: State, chunk: int) -> bool:
    """Tell whether the chunk's row names a live pack whose file has it."""
    pack = state.place[chunk]
    return pack != NOWHERE and state.packs[pack] == Pack.LIVE and bool(state.contents[pack] >> chunk & 1)
