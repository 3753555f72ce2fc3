"""What a disk loses, who records it, and what that leaves to be healed by an upload.

A version that is pinned when the disk loses a chunk of it is excused until the chunk is stored again: no protocol can
help it. Whoever is pinned after the loss was recorded is not excused.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.clients import Step
from tests.model.state import NOWHERE, Feature, Model, Pack, Pin, Row, State, Suspect, put
from tests.model.weaknesses import Weakness


def rot(model: Model, state: State) -> Iterator[Step]:
    """A record cannot be read any more, and somebody saw it: a check, a reader or a compaction."""
    if not model.has(Feature.LOSSES) or state.suspect is not None:
        return
    for chunk in model.chunks:
        pack = state.place[chunk]
        if pack != NOWHERE and state.packs[pack] == Pack.LIVE and state.contents[pack] >> chunk & 1:
            held = sum(1 << version for version in model.versions if state.pins[version] == Pin.HELD)
            rotten = state._replace(
                contents=put(state.contents, pack, state.contents[pack] & ~(1 << chunk)),
                excused=put(state.excused, chunk, state.excused[chunk] | held),
                suspect=Suspect(chunk, pack),
            )
            yield f"rot c{chunk} in p{pack}", rotten


def record_loss(model: Model, state: State) -> Iterator[Step]:
    """Take the chunk's row away if it still names that place, and mark the blobs that need it: Losses."""
    if state.suspect is None:
        return
    chunk, pack = state.suspect
    seen = state._replace(suspect=None)
    if state.place[chunk] == pack or model.is_weak(Weakness.LOSS_ANYWHERE):
        damaged = tuple(blob for blob in model.needed_by[chunk] if state.blobs[blob] == Row.LIVE)
        rows = seen.blobs
        for blob in damaged:
            rows = put(rows, blob, Row.DAMAGED)
        seen = seen._replace(place=put(seen.place, chunk, NOWHERE), blobs=rows)
        seen = model.referred(seen, packs=set(), blobs=damaged)
    yield f"record loss of c{chunk}", seen
