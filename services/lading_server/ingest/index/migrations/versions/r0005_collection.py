"""What a collection needs: a way from pages to their trees, and a place for what its rehearsal comes to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the index and the table."""
    op.create_index(op.f("tree_pages_entity_id_page_digest"), "tree_pages", ["entity_id", "page_digest"], unique=False)
    op.create_table(
        "doomed",
        sa.Column("entity_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", "digest", "kind", name=op.f("doomed_pk")),
        sqlite_with_rowid=False,
    )
