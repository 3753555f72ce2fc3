"""The tables of ingest's database. The migrations make them; a test holds the two against each other.

Identities are raw bytes, times are integer milliseconds since 1970, and everything is inside an entity.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa


class PackState(StrEnum):
    """What may be done with a pack. See docs/design.md, section 4."""

    OPEN = "open"
    SEALED = "sealed"
    # Nobody finds what is in it any more.
    CONDEMNED = "condemned"
    # Its file is being deleted; there is no way back.
    DELETING = "deleting"
    # Its file is not what it should be; its chunks count as missing.
    DAMAGED = "damaged"


class ContentState(StrEnum):
    """What may be done with a blob or a tree."""

    LIVE = "live"
    # A part of it was lost. What is left can be read; to whoever commits it counts as missing, and a new commit of the
    # same content makes it live.
    DAMAGED = "damaged"
    # Invisible; a new commit of the same content revives it.
    CONDEMNED = "condemned"


READABLE_STATES = (ContentState.LIVE, ContentState.DAMAGED)
"""The states in which a blob or a tree can be read, as far as it is there."""


class UploadState(StrEnum):
    """Whether an upload can be continued."""

    OPEN = "open"
    COMPLETE = "complete"


class PinState(StrEnum):
    """Whether a promise holds."""

    HELD = "held"
    # A tombstone: for ever.
    RELEASED = "released"


DIGEST_BYTES = 32
ID_BYTES = 16

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_unique",
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(referred_table_name)s",
    }
)


def _one_of(column: str, states: type[StrEnum]) -> sa.CheckConstraint:
    return sa.CheckConstraint(sa.column(column).in_([state.value for state in states]), name=column)


def _entity(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column("entity_id", sa.ForeignKey("entities.id"), primary_key=primary_key, nullable=False)


def _condemned_at() -> sa.Column[int]:
    """When a collector condemned the row; nothing while it is not condemned."""
    return sa.Column("condemned_at_ms", sa.BigInteger, nullable=True)


def _trash() -> sa.Index:
    """The rows that wait for their deletion, the oldest first."""
    is_condemned = sa.text("condemned_at_ms IS NOT NULL")
    return sa.Index(None, "condemned_at_ms", sqlite_where=is_condemned, postgresql_where=is_condemned)


def _damaged(name: str) -> sa.Index:
    """The few rows of which a part was lost."""
    is_damaged = sa.text("state = 'damaged'")
    return sa.Index(name, "entity_id", "digest", sqlite_where=is_damaged, postgresql_where=is_damaged)


def _key(name: str, width: int = DIGEST_BYTES) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(width), primary_key=True, nullable=False)


# One row: which store this is, and how often it was opened for writing.
store = sa.Table(
    "store",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("store_id", sa.LargeBinary(ID_BYTES), nullable=False),
    sa.Column("writer_epoch", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)

entities = sa.Table(
    "entities",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
)

# What each entity stores: index/usage.py says what counts.
usage = sa.Table(
    "usage",
    metadata,
    _entity(primary_key=True),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

packs = sa.Table(
    "packs",
    metadata,
    _key("id", ID_BYTES),
    _entity(),
    sa.Column("class", sa.SmallInteger, nullable=False, key="pack_class"),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("writer_epoch", sa.BigInteger, nullable=False),
    sa.Column("durable_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    _condemned_at(),
    _one_of("state", PackState),
    sqlite_with_rowid=False,
)

# Where each chunk and each tree page lies. No foreign keys: at ten thousand rows a transaction they cost more than
# the rows, and a row whose pack is not there counts as missing anyway.
chunks = sa.Table(
    "chunks",
    metadata,
    sa.Column("entity_id", sa.Integer, primary_key=True, autoincrement=False),
    _key("digest"),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("pack_id", sa.LargeBinary(ID_BYTES), nullable=False, index=True),
    sa.Column("record_offset", sa.BigInteger, nullable=False),
    sa.Column("stored_bytes", sa.Integer, nullable=False),
    sa.Column("raw_bytes", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("entity_id", sa.Integer, primary_key=True, autoincrement=False),
    _key("digest"),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("chunk_count", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    _condemned_at(),
    _trash(),
    _damaged("blobs_damaged"),
    _one_of("state", ContentState),
    sqlite_with_rowid=False,
)

# The recipes of blobs of two chunks and more. One chunk has the blob's own digest, and none is the empty blob.
recipe_parts = sa.Table(
    "recipe_parts",
    metadata,
    sa.Column("entity_id", sa.Integer, primary_key=True, autoincrement=False),
    _key("blob_digest"),
    sa.Column("start_bytes", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("refs", sa.LargeBinary, nullable=False),
)

trees = sa.Table(
    "trees",
    metadata,
    _entity(primary_key=True),
    _key("digest"),
    sa.Column("file_count", sa.BigInteger, nullable=False),
    sa.Column("reference_count", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("page_count", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False),
    _condemned_at(),
    _trash(),
    _damaged("trees_damaged"),
    _one_of("state", ContentState),
    sqlite_with_rowid=False,
)

tree_pages = sa.Table(
    "tree_pages",
    metadata,
    sa.Column("entity_id", sa.Integer, primary_key=True, autoincrement=False),
    _key("tree_digest"),
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    # Bytes and no text, so that both databases sort them as trees are sorted.
    sa.Column("first_path", sa.LargeBinary, nullable=False),
    sa.Column("page_digest", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    sa.Column("entry_count", sa.Integer, nullable=False),
    sa.UniqueConstraint("entity_id", "tree_digest", "first_path"),
    # A collector walks the pages of all trees, each once.
    sa.Index(None, "entity_id", "page_digest"),
    sa.ForeignKeyConstraint(["entity_id", "tree_digest"], ["trees.entity_id", "trees.digest"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

sessions = sa.Table(
    "sessions",
    metadata,
    _key("id", ID_BYTES),
    _entity(),
    sa.Column("expires_at_ms", sa.BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# What a session keeps from being collected.
session_packs = sa.Table(
    "session_packs",
    metadata,
    sa.Column("session_id", sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("pack_id", sa.ForeignKey("packs.id", ondelete="CASCADE"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

uploads = sa.Table(
    "uploads",
    metadata,
    _entity(primary_key=True),
    sa.Column("upload_id", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    # The stream that continues the upload now; another one replaces it.
    sa.Column("writer", sa.BigInteger, nullable=False),
    sa.Column("durable_bytes", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary(DIGEST_BYTES)),
    sa.Column("new_bytes", sa.BigInteger, nullable=False),
    sa.Column("updated_at_ms", sa.BigInteger, nullable=False, index=True),
    _one_of("state", UploadState),
)

upload_chunks = sa.Table(
    "upload_chunks",
    metadata,
    sa.Column("entity_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("upload_id", sa.Text, primary_key=True),
    sa.Column("start_bytes", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("refs", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["entity_id", "upload_id"], ["uploads.entity_id", "uploads.upload_id"], ondelete="CASCADE"),
)

# Promises to the registry. A version that was given up before its pin came has a tombstone without a tree.
pins = sa.Table(
    "pins",
    metadata,
    _entity(primary_key=True),
    _key("version_uid", ID_BYTES),
    sa.Column("tree_digest", sa.LargeBinary(DIGEST_BYTES)),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("acquired_at_ms", sa.BigInteger),
    sa.Column("released_at_ms", sa.BigInteger),
    # A collector asks which pins hold a tree.
    sa.Index(None, "entity_id", "tree_digest"),
    _one_of("state", PinState),
    sa.CheckConstraint("state = 'released' OR tree_digest IS NOT NULL", name="held_has_tree"),
    sqlite_with_rowid=False,
)

# What the rehearsal of a collection would condemn; empty when none runs.
doomed = sa.Table(
    "doomed",
    metadata,
    sa.Column("entity_id", sa.Integer, primary_key=True, autoincrement=False),
    _key("digest"),
    sa.Column("kind", sa.Text, primary_key=True),
    sqlite_with_rowid=False,
)

# What the store's keepers remember from one run to the next, each in JSON of its own form.
maintenance = sa.Table(
    "maintenance",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("updated_at_ms", sa.BigInteger, nullable=False),
)
