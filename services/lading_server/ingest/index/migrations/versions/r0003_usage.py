"""Usage: how many bytes each entity stores. What is there already is counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table and fill it."""
    op.create_table(
        "usage",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("usage_entities")),
        sa.PrimaryKeyConstraint("entity_id", name=op.f("usage_pk")),
        sqlite_with_rowid=False,
    )
    # A record has a header of 64 bytes, and is padded to a multiple of 8; a recipe counts as long as its references.
    op.execute(
        """
        INSERT INTO usage (entity_id, stored_bytes)
        SELECT entity_id, CAST(sum(bytes) AS BIGINT)
        FROM (
            SELECT chunks.entity_id AS entity_id, sum(64 + (chunks.stored_bytes + 7) / 8 * 8) AS bytes
            FROM chunks JOIN packs ON packs.id = chunks.pack_id
            WHERE packs.state IN ('open', 'sealed')
            GROUP BY chunks.entity_id
            UNION ALL
            SELECT entity_id, sum(length(refs)) AS bytes FROM recipe_parts GROUP BY entity_id
        ) AS stored
        GROUP BY entity_id
        """
    )
