"""What a change came to: answered, and remembered for when the same request comes again."""

from __future__ import annotations

from typing import Any, NamedTuple

from lading_server.registry.store.change import Change
from lading_server.registry.store.collections import CollectionQueries
from lading_server.registry.store.rows import CollectionRow, VersionRow
from lading_server.registry.store.schema import CollectionState, VersionState
from lading_server.registry.store.versions import VersionQueries


class Outcome(NamedTuple):
    """A version, and whether it was made by this change or was there."""

    version: VersionRow
    created: bool = False


def to_memory(outcome: Outcome) -> dict[str, Any]:
    """Return what is remembered, as values that JSON has: what cannot be told from the version's row later."""
    version = outcome.version
    return {
        "uid": version.uid.hex(),
        "created": outcome.created,
        "aliases": list(version.aliases),
        "tags": list(version.tags),
    }


async def from_memory(
    change: Change, versions: VersionQueries, memory: dict[str, Any], *, briefly: bool = False
) -> Outcome:
    """Return an outcome with the aliases and tags of that moment, though the version may be deleted by now.

    Args:
        briefly: Without card and metadata.
    """
    row = await versions.once(change.connection, change.entity_id, bytes.fromhex(memory["uid"]), briefly=briefly)
    if row is None:
        raise AssertionError(f"version {memory['uid']} was answered once and has no row")
    version = row._replace(
        aliases=tuple(memory["aliases"]),
        tags=tuple(memory["tags"]),
        state=VersionState.LIVE,
        deleted_at_ms=None,
        deletion=None,
    )
    return Outcome(version, memory["created"])


def collection_to_memory(row: CollectionRow) -> dict[str, Any]:
    """Return what is remembered of a collection: what becomes of it when it is changed or deleted later."""
    return {
        "id": row.id,
        "tags": list(row.tags),
        "versions": row.version_count,
        "aliases": [list(one) for one in row.aliases],
        "updated_at_ms": row.updated_at_ms,
    }


async def collection_from_memory(
    change: Change, collections: CollectionQueries, memory: dict[str, Any]
) -> CollectionRow:
    """Return a collection with what it had at that moment, though it may be deleted by now."""
    row = (await collections.by_ids(change.connection, [memory["id"]])).get(memory["id"])
    if row is None:
        raise AssertionError(f"collection {memory['id']} was answered once and has no row")
    return row._replace(
        tags=tuple(memory["tags"]),
        version_count=memory["versions"],
        aliases=tuple((alias, number) for alias, number in memory["aliases"]),
        updated_at_ms=memory["updated_at_ms"],
        state=CollectionState.LIVE,
        deleted_at_ms=None,
        deletion=None,
    )
