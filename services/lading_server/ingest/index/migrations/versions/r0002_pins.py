"""Pins: the promises to the registry that trees stay whole."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "pins",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("version_uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("tree_digest", sa.LargeBinary(length=32), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("acquired_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("released_at_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('held', 'released')", name=op.f("pins_state")),
        sa.CheckConstraint("state = 'released' OR tree_digest IS NOT NULL", name=op.f("pins_held_has_tree")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("pins_entities")),
        sa.PrimaryKeyConstraint("entity_id", "version_uid", name=op.f("pins_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("pins_entity_id_tree_digest"), "pins", ["entity_id", "tree_digest"], unique=False)
