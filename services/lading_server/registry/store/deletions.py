"""The rows and events of versions that go and come back, many at once. How collections do is in `collection_states`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.digest import format_digest
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import JsonObject, VersionRow
from lading_server.registry.store.schema import (
    VersionState,
    collections,
    entities,
    has_state,
    is_there,
    pin_releases,
    versions,
)

# Made once: to make a statement costs more than to run it.
_HIDE = (
    sa.update(versions)
    .where(versions.c.id == sa.bindparam("hidden"))
    .values(state=VersionState.DELETED.value, deleted_at_ms=sa.bindparam("at_ms"), deletion=sa.bindparam("of_deletion"))
)
_SHOW = (
    sa.update(versions)
    .where(versions.c.id == sa.bindparam("shown"))
    .values(
        state=VersionState.LIVE.value,
        deleted_at_ms=None,
        deletion=None,
        expires_at_ms=sa.case((versions.c.expires_at_ms > sa.bindparam("now_ms"), versions.c.expires_at_ms)),
    )
)
_PURGE = sa.update(versions).where(versions.c.id == sa.bindparam("purged")).values(state=VersionState.PURGED.value)
_RELEASE = sa.insert(pin_releases)
_COUNT = (
    sa.update(collections)
    .where(collections.c.id == sa.bindparam("of_collection"))
    .values(version_count=collections.c.version_count + sa.bindparam("more"), updated_at_ms=sa.bindparam("now_ms"))
)
_LINKS = (
    sa.select(versions.c.id, versions.c.source_id)
    .join(collections, collections.c.id == versions.c.collection_id)
    .where(
        versions.c.source_id.in_(sa.bindparam("sources", expanding=True)),
        has_state(versions, VersionState.LIVE),
        is_there(collections),
    )
    .order_by(versions.c.id)
    .limit(sa.bindparam("most"))
)
_SOURCES = (
    sa.select(versions.c.id)
    .join(collections, collections.c.id == versions.c.collection_id)
    .where(
        versions.c.id.in_(sa.bindparam("sources", expanding=True)),
        has_state(versions, VersionState.LIVE),
        is_there(collections),
    )
)


class LinkEdge(NamedTuple):
    """A link and what it points at, by the numbers of their rows."""

    link_id: int
    source_id: int


class DueVersion(NamedTuple):
    """A version that can be undeleted no more, and whose entity it is."""

    id: int
    entity: str


async def hide_versions(
    change: Change,
    rows: Sequence[VersionRow],
    deletions: Sequence[int],
    at_ms: int | None = None,
    why: str = "",
) -> None:
    """Make versions and links invisible; their pins are kept. Their aliases must have been moved before.

    Args:
        rows: Live ones.
        deletions: What each goes with, in the same order.
        at_ms: From when they can be undeleted for a time; None for the time of the change.
        why: What the events say of it, where nobody asked for these versions by name.
    """
    if not rows:
        return
    when_ms = change.now_ms if at_ms is None else at_ms
    hidden = [
        {"hidden": row.id, "of_deletion": deletion, "at_ms": when_ms}
        for row, deletion in zip(rows, deletions, strict=True)
    ]
    await change.connection.execute(_HIDE, hidden)
    await _count(change, rows, -1)
    for row in rows:
        kind = "version.deleted" if row.source_id is None else "version.unlinked"
        _add_event(change, kind, row, before=_told(row), after={"why": why} if why else None)


async def show_versions(change: Change, rows: Sequence[VersionRow]) -> None:
    """Make deleted versions and links visible again. The caller moves `latest`.

    One whose time to live is over has none any more: it would be deleted again at once.
    """
    if not rows:
        return
    await change.connection.execute(_SHOW, [{"shown": row.id, "now_ms": change.now_ms} for row in rows])
    await _count(change, rows, 1)
    for row in rows:
        is_over = row.expires_at_ms is not None and row.expires_at_ms <= change.now_ms
        before, after = ({"expires_at_ms": row.expires_at_ms}, {"expires_at_ms": None}) if is_over else (None, {})
        _add_event(change, "version.undeleted", row, before=before, after=_told(row) | after)


async def purge_versions(change: Change, rows: Sequence[VersionRow]) -> None:
    """Give deleted versions up for ever, and have the pins of those that are no links released. Their rows stay."""
    if not rows:
        return
    await change.connection.execute(_PURGE, [{"purged": row.id} for row in rows])
    stamps = {"entity_id": change.entity_id, "created_at_ms": change.now_ms}
    pins = [{"uid": row.uid, **stamps} for row in rows if row.source_id is None]
    if pins:
        await change.connection.execute(_RELEASE, pins)
    for row in rows:
        _add_event(change, "version.purged", row, before=_told(row))


async def links_to(change: Change, source_ids: Collection[int], most: int) -> list[LinkEdge]:
    """Return live links to any of these versions, in the order they were made, at most so many."""
    rows = await change.connection.execute(_LINKS, {"sources": list(source_ids), "most": most})
    return [LinkEdge(*row) for row in rows]


async def link_counts(change: Change, source_ids: Collection[int]) -> dict[int, int]:
    """Return how many live links there are to each of these versions that has any, by the numbers of their rows."""
    if not source_ids:
        return {}
    query = (
        sa.select(versions.c.source_id, sa.func.count())
        .join(collections, collections.c.id == versions.c.collection_id)
        .where(
            versions.c.source_id.in_(list(source_ids)), has_state(versions, VersionState.LIVE), is_there(collections)
        )
        .group_by(versions.c.source_id)
        .order_by(versions.c.source_id)
    )
    return {row[0]: row[1] for row in await change.connection.execute(query)}


async def links_that_went_with(change: Change, row: VersionRow, most: int) -> list[int]:
    """Return the deleted links to a version that went with it, where their collections are there."""
    query = (
        sa.select(versions.c.id)
        .join(collections, collections.c.id == versions.c.collection_id)
        .where(
            versions.c.source_id == row.id,
            versions.c.deletion == row.deletion,
            has_state(versions, VersionState.DELETED),
            is_there(collections),
        )
    )
    return list((await change.connection.scalars(query.order_by(versions.c.id).limit(most))).all())


async def live_sources(change: Change, rows: Sequence[VersionRow]) -> set[int]:
    """Return which versions that these links point at are there, by the numbers of their rows."""
    sources = {row.source_id for row in rows if row.source_id is not None}
    if not sources:
        return set()
    return set((await change.connection.scalars(_SOURCES, {"sources": sorted(sources)})).all())


async def due_versions(connection: AsyncConnection, before_ms: int, most: int) -> list[DueVersion]:
    """Return versions that were deleted up to `before_ms`, those that were deleted first, at most so many."""
    query = (
        sa.select(versions.c.id, entities.c.name)
        .join(entities, entities.c.id == versions.c.entity_id)
        .where(has_state(versions, VersionState.DELETED), versions.c.deleted_at_ms <= before_ms)
        .order_by(versions.c.deleted_at_ms)
        .limit(most)
    )
    return [DueVersion(*row) for row in await connection.execute(query)]


async def _count(change: Change, rows: Sequence[VersionRow], sign: int) -> None:
    counts = Counter(row.collection_id for row in rows)
    moved = [
        {"of_collection": number, "more": sign * count, "now_ms": change.now_ms}
        for number, count in sorted(counts.items())
    ]
    await change.connection.execute(_COUNT, moved)
    for number in counts:
        change.stamped(number)


def _told(row: VersionRow) -> dict[str, Any]:
    """Return what an event says of a version that goes or comes back."""
    told: dict[str, Any] = {"number": row.number, "tree_digest": format_digest(row.tree_digest)}
    if row.source_uid is not None:
        told |= {"source": row.source, "source_uid": row.source_uid.hex()}
    return told


def _add_event(
    change: Change, kind: str, row: VersionRow, *, before: JsonObject | None = None, after: JsonObject | None = None
) -> None:
    change.add_event(kind, row.project, collection=row.collection, version_uid=row.uid, before=before, after=after)
