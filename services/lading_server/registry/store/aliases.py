"""Aliases: where they point, and the rows and events of their moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from lading_server.common.direct import leave, rows_of
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import AliasMove, CollectionKey, JsonObject, VersionPoint
from lading_server.registry.store.schema import VersionState, aliases, versions

# Made once: to make a statement costs more than to run it.
_FIND = (
    sa.select(aliases.c.alias, versions.c.id, versions.c.uid, versions.c.number)
    .join(versions, versions.c.id == aliases.c.version_id)
    .where(
        aliases.c.collection_id == sa.bindparam("of_collection"),
        aliases.c.alias.in_(sa.bindparam("names", expanding=True)),
    )
)
_NEWEST = (
    sa.select(versions.c.id, versions.c.uid, versions.c.number)
    .where(versions.c.collection_id == sa.bindparam("of_collection"), versions.c.state == VersionState.LIVE.value)
    .order_by(versions.c.number.desc())
    .limit(1)
)
_REMOVE = sa.delete(aliases).where(
    aliases.c.collection_id == sa.bindparam("of_collection"), aliases.c.alias == sa.bindparam("name")
)
_ADD = sa.insert(aliases)
_POINT = (
    sa.update(aliases)
    .where(aliases.c.collection_id == sa.bindparam("of_collection"), aliases.c.alias == sa.bindparam("name"))
    .values(version_id=sa.bindparam("target"))
)


async def find_aliases(change: Change, key: CollectionKey, names: Iterable[str]) -> dict[str, VersionPoint]:
    """Return where those of these aliases point that the collection has."""
    rows = await rows_of(change.connection, _FIND, {"of_collection": key.id, "names": sorted(set(names))})
    return {row.alias: VersionPoint(row.id, row.uid, row.number) for row in rows}


async def newest_version(change: Change, key: CollectionKey) -> VersionPoint | None:
    """Return the live version of the highest number, or None when there is none."""
    row = (await change.connection.execute(_NEWEST, {"of_collection": key.id})).one_or_none()
    return None if row is None else VersionPoint(*row)


async def move_aliases(change: Change, key: CollectionKey, moves: Sequence[AliasMove]) -> None:
    """Move aliases from where they are known to point. One that stays where it is makes no event."""
    moves = [move for move in moves if move.after != move.before]
    # Of an alias that is moved twice, the first move says whether it is there, and the last one where it points.
    first = {move.alias: move.before for move in reversed(moves)}
    last = {move.alias: move.after for move in moves}
    gone, new, moved = [], [], []
    for alias, point in last.items():
        if point is None:
            gone.append({"of_collection": key.id, "name": alias})
        elif first[alias] is None:
            whose = {"collection_id": key.id, "entity_id": change.entity_id}
            new.append({**whose, "alias": alias, "version_id": point.id})
        else:
            moved.append({"of_collection": key.id, "name": alias, "target": point.id})
    for statement, rows in ((_REMOVE, gone), (_ADD, new), (_POINT, moved)):
        if rows:
            await leave(change.connection, statement, rows)
    for move in moves:
        _add_event(change, key, move)
        change.touch(key.id)


def _add_event(change: Change, key: CollectionKey, move: AliasMove) -> None:
    about = move.after or move.before
    change.add_event(
        "alias.removed" if move.after is None else "alias.set",
        key.project,
        collection=key.name,
        version_uid=about.uid if about is not None else None,
        before=_target(move.alias, move.before),
        after=_target(move.alias, move.after),
    )


def _target(alias: str, point: VersionPoint | None) -> JsonObject | None:
    return None if point is None else {"alias": alias, "number": point.number}
