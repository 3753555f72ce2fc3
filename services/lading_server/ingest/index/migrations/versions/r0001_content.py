"""The first schema: packs, chunks, blobs, trees, sessions and uploads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    _create_store()
    _create_packs_and_chunks()
    _create_sessions()
    _create_blobs()
    _create_trees()
    _create_uploads()


def _create_store() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("store_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("writer_epoch", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("store_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("store_pk")),
    )
    op.create_table(
        "entities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("entities_pk")),
        sa.UniqueConstraint("name", name=op.f("entities_name_unique")),
    )


def _create_packs_and_chunks() -> None:
    op.create_table(
        "packs",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("class", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("writer_epoch", sa.BigInteger(), nullable=False),
        sa.Column("durable_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("condemned_at_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('open', 'sealed', 'condemned', 'deleting', 'damaged')", name=op.f("packs_state")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("packs_entities")),
        sa.PrimaryKeyConstraint("id", name=op.f("packs_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("packs_state"), "packs", ["state"], unique=False)
    op.create_table(
        "chunks",
        sa.Column("entity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("pack_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("record_offset", sa.BigInteger(), nullable=False),
        sa.Column("stored_bytes", sa.Integer(), nullable=False),
        sa.Column("raw_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", "digest", name=op.f("chunks_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("chunks_pack_id"), "chunks", ["pack_id"], unique=False)


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("sessions_entities")),
        sa.PrimaryKeyConstraint("id", name=op.f("sessions_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("sessions_expires_at_ms"), "sessions", ["expires_at_ms"], unique=False)
    op.create_table(
        "session_packs",
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("pack_id", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name=op.f("session_packs_packs"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("session_packs_sessions"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "pack_id", name=op.f("session_packs_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("session_packs_pack_id"), "session_packs", ["pack_id"], unique=False)


def _create_blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("entity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("condemned_at_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('live', 'damaged', 'condemned')", name=op.f("blobs_state")),
        sa.PrimaryKeyConstraint("entity_id", "digest", name=op.f("blobs_pk")),
        sqlite_with_rowid=False,
    )
    _create_trash_index("blobs")
    _create_damaged_index("blobs")
    op.create_table(
        "recipe_parts",
        sa.Column("entity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("blob_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("start_bytes", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("refs", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", "blob_digest", "start_bytes", name=op.f("recipe_parts_pk")),
    )


def _create_trees() -> None:
    op.create_table(
        "trees",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("file_count", sa.BigInteger(), nullable=False),
        sa.Column("reference_count", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("page_count", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("condemned_at_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('live', 'damaged', 'condemned')", name=op.f("trees_state")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("trees_entities")),
        sa.PrimaryKeyConstraint("entity_id", "digest", name=op.f("trees_pk")),
        sqlite_with_rowid=False,
    )
    _create_trash_index("trees")
    _create_damaged_index("trees")
    op.create_table(
        "tree_pages",
        sa.Column("entity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tree_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_path", sa.LargeBinary(), nullable=False),
        sa.Column("page_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("entry_count", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entity_id", "tree_digest"],
            ["trees.entity_id", "trees.digest"],
            name=op.f("tree_pages_trees"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("entity_id", "tree_digest", "seq", name=op.f("tree_pages_pk")),
        sa.UniqueConstraint(
            "entity_id", "tree_digest", "first_path", name=op.f("tree_pages_entity_id_tree_digest_first_path_unique")
        ),
        sqlite_with_rowid=False,
    )


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("writer", sa.BigInteger(), nullable=False),
        sa.Column("durable_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("new_bytes", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('open', 'complete')", name=op.f("uploads_state")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("uploads_entities")),
        sa.PrimaryKeyConstraint("entity_id", "upload_id", name=op.f("uploads_pk")),
    )
    op.create_index(op.f("uploads_updated_at_ms"), "uploads", ["updated_at_ms"], unique=False)
    op.create_table(
        "upload_chunks",
        sa.Column("entity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("start_bytes", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("refs", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entity_id", "upload_id"],
            ["uploads.entity_id", "uploads.upload_id"],
            name=op.f("upload_chunks_uploads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("entity_id", "upload_id", "start_bytes", name=op.f("upload_chunks_pk")),
    )


def _create_trash_index(table: str) -> None:
    is_condemned = sa.text("condemned_at_ms IS NOT NULL")
    op.create_index(
        op.f(f"{table}_condemned_at_ms"),
        table,
        ["condemned_at_ms"],
        unique=False,
        sqlite_where=is_condemned,
        postgresql_where=is_condemned,
    )


def _create_damaged_index(table: str) -> None:
    is_damaged = sa.text("state = 'damaged'")
    op.create_index(
        f"{table}_damaged",
        table,
        ["entity_id", "digest"],
        unique=False,
        sqlite_where=is_damaged,
        postgresql_where=is_damaged,
    )
