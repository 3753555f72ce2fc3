"""Which versions match conditions, in an order: how search walks the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from lading_server.registry.store.conditions import Condition, Field, Order
from lading_server.registry.store.scan import Columns, Filters, Hits, Position, Scan, Stage, exists
from lading_server.registry.store.schema import VersionState, collections, is_there, version_fields, versions
from lading_server.registry.store.terms import VERSION_COLUMNS, compare, version_filters, version_sources

# A link has the metadata of its source.
_BEARER = sa.func.coalesce(versions.c.source_id, versions.c.id)

_value = version_fields.alias("its_value")


class VersionSearch:
    """Finds versions of an entity. Safe for many tasks at once; each call uses the connection that it is given."""

    async def page(
        self,
        connection: AsyncConnection,
        entity_id: int,
        conditions: Sequence[Condition],
        order: Order,
        after: Position | None,
        limit: int,
    ) -> Hits:
        """Return live versions for which all conditions hold, by the numbers of their rows.

        Sorted by the order and then by what is unique and never changes: the number of the row, or for names that
        of the collection and the version's own. By metadata: what has a number there, then what has a text, then the
        rest, in both directions. Raises InvalidPageToken.
        """
        search = _Search(entity_id, conditions, order)
        scan = Scan(search.stages(), version_sources(entity_id, conditions))
        return await scan.page(connection, after, limit)

    async def still(
        self, connection: AsyncConnection, entity_id: int, conditions: Sequence[Condition], ids: Sequence[int]
    ) -> list[int]:
        """Return which of these rows are live versions, in collections that are there, for which all conditions hold.

        Sorted. At most 1,000 at once.
        """
        rows = _rows(versions.join(collections, collections.c.id == versions.c.collection_id))
        rows = rows.where(versions.c.entity_id == entity_id, versions.c.id.in_(ids), is_there(collections))
        filters = version_filters(entity_id, conditions, rows.selected_columns)
        query = rows.with_only_columns(versions.c.id, maintain_column_froms=True).where(*filters)
        return sorted((await connection.scalars(query)).all())


@dataclass(frozen=True)
class _Search:
    """What one search asks for, and the stages that this makes."""

    entity_id: int
    conditions: Sequence[Condition]
    order: Order

    def stages(self) -> list[Stage]:
        match self.order.field:
            case Field.NAME:
                return [self._by_name()]
            case Field.SIZE:
                return [self._by(versions.c.size_bytes, self._filters)]
            case Field.METADATA:
                return self._by_metadata()
            case _:
                return [self._by(versions.c.created_at_ms, self._filters)]

    def _by(self, column: sa.ColumnElement[Any], filters: Filters) -> Stage:
        # Conditions on the column that is walked say where to begin and to end.
        about = [one for one in self.conditions if one.field is self.order.field in VERSION_COLUMNS]
        bounds = [versions.c.entity_id == self.entity_id, *(compare(column, one) for one in about)]
        apart = column is not versions.c.created_at_ms
        return Stage(_rows(versions), bounds, filters, (column, versions.c.id), 2, self.order.descending, apart)

    def _by_name(self) -> Stage:
        rows = _rows(versions.join(collections, collections.c.id == versions.c.collection_id))
        keys = (collections.c.name, collections.c.id, versions.c.number)
        return Stage(rows, [collections.c.entity_id == self.entity_id], self._filters, keys, 2, self.order.descending)

    def _by_metadata(self) -> list[Stage]:
        # Either way an index leads from one table to the other: from values to the versions that bear them, which a
        # walk needs, and from versions to their values.
        borne = sa.or_(
            versions.c.id == version_fields.c.version_id, versions.c.source_id == version_fields.c.version_id
        )
        bears = version_fields.c.version_id == _BEARER
        # Conditions on the value that is walked say where to begin, and what has the other kind of value, or none,
        # does not match them.
        about = [one for one in self.conditions if one.field is Field.METADATA and one.key == self.order.key]
        stages = []
        for value, kind in ((version_fields.c.number, float), (version_fields.c.text, str)):
            if all(isinstance(one.value, kind) for one in about):
                rows = _rows(version_fields, versions).where(version_fields.c.key == self.order.key, value.is_not(None))
                stages.append(
                    Stage(
                        rows=rows,
                        bounds=[
                            version_fields.c.entity_id == self.entity_id,
                            borne,
                            *(compare(value, one) for one in about),
                        ],
                        filters=self._filters,
                        keys=(value, version_fields.c.version_id, versions.c.id),
                        indexed=2,
                        descending=self.order.descending,
                        lies_apart=True,
                        ties=[bears],
                    )
                )
        return stages if about else [*stages, self._by(versions.c.created_at_ms, self._without_value)]

    def _filters(self, columns: Columns) -> list[sa.ColumnElement[bool]]:
        return version_filters(self.entity_id, self.conditions, columns)

    def _without_value(self, columns: Columns) -> list[sa.ColumnElement[bool]]:
        # As a filter, and not in the rows: a walk counts what it passes over.
        has_value = exists(_value, _value.c.version_id == columns["bearer_id"], _value.c.key == self.order.key)
        return [*self._filters(columns), ~has_value]


def _rows(*sources: sa.FromClause) -> sa.Select[Any]:
    return (
        sa.select(
            versions.c.id,
            _BEARER.label("bearer_id"),
            versions.c.collection_id,
            versions.c.run_id,
            *(versions.c[name] for name in VERSION_COLUMNS.values()),
        )
        .select_from(*sources)
        .where(versions.c.state == VersionState.LIVE.value)
    )
