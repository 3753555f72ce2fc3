"""What the operator lets an entity, and each of its keys, use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from lading_server.common.allowances import Allowance, Allowances
from lading_server.registry.store.change import Change
from lading_server.registry.store.schema import entities


class StoredLimits(NamedTuple):
    """The columns of an entity's limits, by their names. 0 is no limit, None what the settings say."""

    stored_bytes_limit: int | None = None
    streams_limit: int | None = None
    calls_limit: int | None = None
    key_streams_limit: int | None = None
    key_calls_limit: int | None = None

    def over(self, defaults: Allowances) -> Allowances:
        """Return what counts: these, and the defaults where nothing was set."""
        entity, key = defaults
        return Allowances(
            Allowance(
                _or(self.stored_bytes_limit, entity.stored_bytes),
                _or(self.streams_limit, entity.streams),
                _or(self.calls_limit, entity.calls_per_second),
            ),
            Allowance(0, _or(self.key_streams_limit, key.streams), _or(self.key_calls_limit, key.calls_per_second)),
        )

    def with_(self, entity: Allowance | None, key: Allowance | None) -> StoredLimits:
        """Return the limits with those of the entity, or of its keys, replaced where they are given."""
        changed = self
        if entity is not None:
            stored_bytes, streams, calls = entity
            changed = changed._replace(stored_bytes_limit=stored_bytes, streams_limit=streams, calls_limit=calls)
        if key is not None:
            changed = changed._replace(key_streams_limit=key.streams, key_calls_limit=key.calls_per_second)
        return changed


LIMIT_COLUMNS: Sequence[sa.ColumnElement[Any]] = tuple(entities.c[name] for name in StoredLimits._fields)


async def set_limits(change: Change, before: StoredLimits, after: StoredLimits) -> None:
    """Replace the limits of the entity that is changed, with the event."""
    row = sa.update(entities).where(entities.c.id == change.entity_id)
    await change.connection.execute(row.values(after._asdict()))
    change.add_event("entity.limited", "", before=before._asdict(), after=after._asdict())


def _or(limit: int | None, default: int) -> int:
    return default if limit is None else limit
