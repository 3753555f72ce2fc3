"""What uploaders do. They have no memory here: a client may be at any step at any time, and there are any number.

Sessions are left out on purpose. A session only keeps a collector away for a while, and may lapse at any moment; here
a collector goes everywhere at any time, as if every session had just lapsed. What is safe so is safe with sessions.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.state import Feature, Model, Pack, Row, State, put, taken

Step = tuple[str, State]


def upload(model: Model, state: State) -> Iterator[Step]:
    """Store chunks that FindMissingChunks does not show in a fresh pack, durable before the rows.

    ChunkSink and GroupWrite._write_chunks. A row in a pack that is not live is replaced.
    """
    missing = [chunk for chunk in model.chunks if not model.is_visible(state, chunk)]
    groups = [missing] if model.has(Feature.TOGETHER) else [[chunk] for chunk in missing]
    for pack in model.fresh_pack(state):
        empty = taken(state, pack)
        for chunks in filter(None, groups):
            place, excused = empty.place, empty.excused
            for chunk in chunks:
                place, excused = put(place, chunk, pack), put(excused, chunk, 0)
            stored = empty._replace(
                packs=put(empty.packs, pack, Pack.LIVE),
                files=put(empty.files, pack, True),
                contents=put(empty.contents, pack, sum(1 << chunk for chunk in chunks)),
                place=place,
                excused=excused,
            )
            yield f"upload{chunks}->p{pack}", stored
    if model.has(Feature.GROWTH):
        yield from _append(model, state, missing)


def commit_blob(model: Model, state: State) -> Iterator[Step]:
    """Make a blob live, new or again, if each of its chunks is in a live pack; refer to these packs.

    BlobIntake, GroupWrite._write_packs and _write_blobs.
    """
    for blob, chunks in enumerate(model.world.blobs):
        if state.blobs[blob] != Row.LIVE and all(model.is_visible(state, chunk) for chunk in chunks):
            packs = {state.place[chunk] for chunk in chunks}
            live = state._replace(blobs=put(state.blobs, blob, Row.LIVE))
            yield f"commit b{blob}", model.referred(live, packs=packs, blobs=(blob,))


def put_tree(model: Model, state: State) -> Iterator[Step]:
    """Make a tree live, new or again, if its blobs are. It refers to none of them: a pin does.

    TreeWriter and GroupWrite._write_trees. Its pages are chunks like others, and not modelled apart.
    """
    for tree, blobs in enumerate(model.world.trees):
        if state.trees[tree] != Row.LIVE and all(state.blobs[blob] == Row.LIVE for blob in blobs):
            live = state._replace(trees=put(state.trees, tree, Row.LIVE))
            yield f"put t{tree}", model.referred(live, packs=set(), tree=tree)


def _append(model: Model, state: State, missing: list[int]) -> Iterator[Step]:
    """Store chunks in packs that are there already."""
    for pack in model.packs:
        if state.packs[pack] == Pack.LIVE:
            for chunk in missing:
                stored = state._replace(
                    contents=put(state.contents, pack, state.contents[pack] | 1 << chunk),
                    place=put(state.place, chunk, pack),
                    excused=put(state.excused, chunk, 0),
                )
                yield f"append[{chunk}]->p{pack}", model.referred(stored, packs={pack})
