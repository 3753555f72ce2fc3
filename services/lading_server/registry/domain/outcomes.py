"""What a change of a version came to: answered, and remembered for when the same request comes again."""

from __future__ import annotations

from typing import Any, NamedTuple

from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.schema import VersionState
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


async def from_memory(change: Change, versions: VersionQueries, memory: dict[str, Any]) -> Outcome:
    """Return an outcome with the aliases and tags of that moment, though the version may be deleted by now."""
    row = await versions.once(change.connection, change.entity_id, bytes.fromhex(memory["uid"]))
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
