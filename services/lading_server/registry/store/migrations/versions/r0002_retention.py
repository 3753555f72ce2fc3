"""Rules about which versions of a collection stay."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# By code points on both databases, whatever the locale of PostgreSQL.
_SORTED_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "retention_rules",
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("project", _SORTED_TEXT, nullable=False),
        sa.Column("collection", _SORTED_TEXT, nullable=False),
        sa.Column("keep_last", sa.BigInteger(), nullable=False),
        sa.Column("keep_best", sa.BigInteger(), nullable=False),
        sa.Column("best_key", sa.Text(), nullable=False),
        sa.Column("best_is_smallest", sa.Boolean(), nullable=False),
        sa.Column("keep_days", sa.BigInteger(), nullable=False),
        sa.Column("keep_tags", sa.Text(), nullable=False),
        sa.Column("keep_all", sa.Boolean(), nullable=False),
        sa.Column("default_ttl_seconds", sa.BigInteger(), nullable=False),
        sa.Column("set_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("retention_rules_entity_id")),
        sa.PrimaryKeyConstraint("entity_id", "project", "collection", name=op.f("retention_rules_pk")),
        sqlite_with_rowid=False,
    )
