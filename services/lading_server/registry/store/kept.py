"""Which versions keep their trees: what ingest holds its pins against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.common.kept_versions import KeptVersion
from lading_server.registry.store.schema import VersionState, commits, entities, pin_releases, versions

# Values of one IN. SQLite has room for 32,766 parameters, and a statement is faster the fewer it has.
_BATCH = 500

# A link keeps nothing itself: what it points at does.
_IS_KEPT = sa.and_(
    versions.c.source_id.is_(None),
    versions.c.state.in_([VersionState.LIVE.value, VersionState.DELETED.value]),
)


async def entity_names(connection: AsyncConnection, after: str, limit: int) -> list[str]:
    """Return the names of up to `limit` entities, sorted, of those that come after a name."""
    query = sa.select(entities.c.name).where(entities.c.name > after).order_by(entities.c.name).limit(limit)
    return list((await connection.scalars(query)).all())


async def kept_page(connection: AsyncConnection, entity_id: int, after: bytes, limit: int) -> list[KeptVersion]:
    """Return up to `limit` kept versions of an entity by their uids, of those that come after one."""
    query = (
        sa.select(versions.c.uid, versions.c.tree_digest)
        .where(versions.c.entity_id == entity_id, versions.c.uid > after, _IS_KEPT)
        .order_by(versions.c.uid)
        .limit(limit)
    )
    return [KeptVersion(*row) for row in await connection.execute(query)]


async def expected_uids(connection: AsyncConnection, entity_id: int, uids: Collection[bytes]) -> set[bytes]:
    """Return which versions are kept, or are being committed, and are not to be released.

    Each version is looked for by one statement, which sees one moment: one that is committed, aborted or purged
    meanwhile is found in the one table or in the other.
    """
    wanted, found = sorted(uids), set[bytes]()
    for first in range(0, len(wanted), _BATCH):
        query = _expected(entity_id, wanted[first : first + _BATCH])
        found.update((await connection.scalars(query)).all())
    return found


def _expected(entity_id: int, uids: Sequence[bytes]) -> sa.Select[Any]:
    kept = sa.select(versions.c.uid).where(versions.c.entity_id == entity_id, versions.c.uid.in_(uids), _IS_KEPT)
    begun = sa.select(commits.c.uid).where(commits.c.entity_id == entity_id, commits.c.uid.in_(uids))
    either = kept.union_all(begun).subquery("either")
    to_release = sa.select(pin_releases.c.uid).where(pin_releases.c.uid == either.c.uid)
    return sa.select(either.c.uid).where(~to_release.exists())
