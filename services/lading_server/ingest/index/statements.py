"""The inserts of a group commit, compiled once: each is run for thousands of rows."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lading_server.common.database import Database
from lading_server.ingest.index.packs import is_live
from lading_server.ingest.index.schema import (
    ContentState,
    blobs,
    chunks,
    packs,
    recipe_parts,
    tree_pages,
    trees,
    upload_chunks,
)
from lading_server.ingest.index.sql import BulkInsert, constant

_Insert = sqlite.Insert | postgresql.Insert


class GroupStatements:
    """What a group commit inserts. Rows are tuples in the order of the columns that are named here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.chunks = self._bulk(
            chunks,
            ("entity_id", "digest", "kind", "pack_id", "record_offset", "stored_bytes", "raw_bytes"),
            _move_from_dead_packs,
        )
        self.blobs = self._bulk(
            blobs,
            ("entity_id", "digest", "size_bytes", "chunk_count"),
            _revive,
            {"state": ContentState.LIVE.value, "generation": 0},
        )
        self.recipe_parts = self._bulk(recipe_parts, ("entity_id", "blob_digest", "start_bytes", "refs"))
        self.trees = self._bulk(
            trees,
            ("entity_id", "digest", "file_count", "reference_count", "size_bytes", "page_count", "created_at_ms"),
            _revive,
            {"state": ContentState.LIVE.value, "generation": 0},
        )
        self.tree_pages = self._bulk(
            tree_pages, ("entity_id", "tree_digest", "seq", "first_path", "page_digest", "entry_count")
        )
        self.upload_chunks = self._bulk(upload_chunks, ("entity_id", "upload_id", "start_bytes", "refs"))

    def _bulk(
        self,
        table: sa.Table,
        columns: tuple[str, ...],
        on_conflict: object = None,
        constants: Mapping[str, str | int] | None = None,
    ) -> BulkInsert:
        values: dict[str, object] = {name: sa.bindparam(name, type_=table.c[name].type) for name in columns}
        values |= {name: constant(value) for name, value in (constants or {}).items()}
        statement = self._database.insert(table).values(values)
        if callable(on_conflict):
            statement = on_conflict(statement)
        return BulkInsert(statement, columns, self._database.sql_dialect)


def _move_from_dead_packs(insert: _Insert) -> _Insert:
    """Keep where a chunk lies as long as that pack is live."""
    # By name: SQLAlchemy does not know that a subquery in ON CONFLICT sees the table of the INSERT.
    old_pack = sa.literal_column("chunks.pack_id", sa.LargeBinary)
    live = is_live()
    old_is_live = sa.select(constant(1)).select_from(packs).where(packs.c.id == old_pack, live).exists()
    moved = ("kind", "pack_id", "record_offset", "stored_bytes", "raw_bytes")
    return insert.on_conflict_do_update(
        index_elements=["entity_id", "digest"],
        set_={name: insert.excluded[name] for name in moved},
        where=~old_is_live,
    )


def _revive(insert: _Insert) -> _Insert:
    """Count a new reference, and take over what was verified just now; what was condemned or damaged is live again."""
    table = insert.table
    # A tree that is put again is as new to a collector as one that never was there.
    taken_over = [name for name in ("size_bytes", "chunk_count", "page_count", "created_at_ms") if name in table.c]
    changes: dict[str, object] = {name: insert.excluded[name] for name in taken_over}
    changes["state"] = insert.excluded["state"]
    changes["generation"] = table.c.generation + constant(1)
    changes["condemned_at_ms"] = sa.literal_column("NULL")
    return insert.on_conflict_do_update(index_elements=["entity_id", "digest"], set_=changes)
