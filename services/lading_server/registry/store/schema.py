"""The tables of the registry's database. The migrations make them; a test holds the two against each other.

Ids of rows are numbers and never leave the database; what leaves it are names, numbers of versions and uids. Times
are integer milliseconds since 1970. JSON is text: it is given back as it came; what is searched has rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from lading_server.common.roles import ENTITY_ROLES


class CollectionKind(StrEnum):
    """How a collection gets its versions."""

    SEQUENCE = "sequence"
    PORTFOLIO = "portfolio"


class CollectionState(StrEnum):
    """What may be done with a collection. What is neither live nor undeleting is not found, nor are its versions."""

    LIVE = "live"
    # Its versions are being deleted, a batch at a time; it takes no new ones.
    DELETING = "deleting"
    # As before, and what was deleted of it is purged.
    PURGING = "purging"
    # Its name is free: whoever takes it gets this row, and goes on with its numbers.
    DELETED = "deleted"
    # There again; the versions that went with it are on their way.
    UNDELETING = "undeleting"


class ProjectState(StrEnum):
    """What may be done with a project. What is not live is not listed."""

    LIVE = "live"
    # Its collections are told to go, a batch at a time; it takes no new ones.
    DELETING = "deleting"
    PURGING = "purging"
    DELETED = "deleted"


class VersionState(StrEnum):
    """What may be done with a version. One that is being committed is in `commits` and not here yet."""

    LIVE = "live"
    # Invisible; its pin is kept, and it can be had back.
    DELETED = "deleted"
    # Its pin is to be released, in `pin_releases`, or was. For ever.
    PURGED = "purged"


class RunState(StrEnum):
    """How far a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CRASHED = "crashed"


class MemberKind(StrEnum):
    """What a member is."""

    USER = "user"
    SERVICE = "service"


DIGEST_BYTES = 32
UID_BYTES = 16

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pk",
        "uq": "%(table_name)s_%(column_0_N_name)s_unique",
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _one_of(column: str, states: Iterable[StrEnum]) -> sa.CheckConstraint:
    return sa.CheckConstraint(sa.column(column).in_([state.value for state in states]), name=column)


def has_state(table: sa.FromClause, *states: StrEnum) -> sa.ColumnElement[bool]:
    """Return whether rows of a table are in one of these states.

    In the text of the statement and not as parameters, so that both databases see which partial index it goes with.
    """
    terms = [table.c.state == sa.literal_column(f"'{state.value}'") for state in states]
    return sa.or_(*terms)


def is_there(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Return whether a collection is one that callers can see."""
    return has_state(table, CollectionState.LIVE, CollectionState.UNDELETING)


def _id() -> sa.Column[int]:
    return sa.Column("id", _Id, primary_key=True)


def _of(table: str, *, primary_key: bool = False, index: bool = False, nullable: bool = False) -> sa.Column[int]:
    column = {"entities": "entity", "runs": "run"}.get(table, table.removesuffix("s"))
    return sa.Column(
        f"{column}_id", _Id, sa.ForeignKey(f"{table}.id"), primary_key=primary_key, index=index, nullable=nullable
    )


def _milliseconds(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _where(condition: str) -> dict[str, Any]:
    """Have an index cover those rows alone, on both databases."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


# What is sorted by: by code points on both databases, whatever the locale of PostgreSQL.
_SortedText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


# One row: the revision of the last event. Whoever makes an event locks it first, so revisions are commit-ordered.
revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)

entities = sa.Table(
    "entities",
    metadata,
    _id(),
    sa.Column("name", _SortedText, nullable=False, unique=True),
    _milliseconds("created_at_ms"),
    # The last event of its chain.
    sa.Column("event_count", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("chain_hash", sa.LargeBinary(DIGEST_BYTES), nullable=True),
    # So that who moves an alias need not look for rules where there are none.
    sa.Column("alias_rule_count", sa.BigInteger, nullable=False, server_default="0"),
    # The same for who commits, and the time to live that a rule gives.
    sa.Column("retention_rule_count", sa.BigInteger, nullable=False, server_default="0"),
    # What the entity, and what each of its keys, may use; 0 is no limit, and nothing is what the settings say.
    *(
        sa.Column(name, sa.BigInteger, nullable=True)
        for name in ("stored_bytes_limit", "streams_limit", "calls_limit", "key_streams_limit", "key_calls_limit")
    ),
)

members = sa.Table(
    "members",
    metadata,
    _of("entities", primary_key=True),
    sa.Column("name", _SortedText, primary_key=True),
    _text("kind"),
    _text("role"),
    _milliseconds("created_at_ms"),
    _one_of("kind", MemberKind),
    _one_of("role", ENTITY_ROLES),
    sqlite_with_rowid=False,
)

# Who may set an alias, and to what. An empty collection is every collection of the project.
alias_rules = sa.Table(
    "alias_rules",
    metadata,
    _of("entities", primary_key=True),
    sa.Column("project", _SortedText, primary_key=True),
    sa.Column("collection", _SortedText, primary_key=True),
    sa.Column("alias", _SortedText, primary_key=True),
    sa.Column("is_protected", sa.Boolean(create_constraint=False), nullable=False),
    # JSON lists.
    _text("required_tags"),
    _text("required_metadata"),
    sqlite_with_rowid=False,
)

# Which versions of a collection stay. An empty collection is each of the project that has no rule of its own.
retention_rules = sa.Table(
    "retention_rules",
    metadata,
    _of("entities", primary_key=True),
    sa.Column("project", _SortedText, primary_key=True),
    sa.Column("collection", _SortedText, primary_key=True),
    # What is 0 or empty is no part of the rule.
    sa.Column("keep_last", sa.BigInteger, nullable=False),
    sa.Column("keep_best", sa.BigInteger, nullable=False),
    # A dotted key of metadata.
    _text("best_key"),
    sa.Column("best_is_smallest", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("keep_days", sa.BigInteger, nullable=False),
    # A JSON list.
    _text("keep_tags"),
    sa.Column("keep_all", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("default_ttl_seconds", sa.BigInteger, nullable=False),
    _milliseconds("set_at_ms"),
    _text("set_by"),
    sqlite_with_rowid=False,
)

# The secret's hash and never the secret.
api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", _SortedText, primary_key=True),
    sa.Column("secret_hash", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    # None for the operator's.
    _of("entities", index=True, nullable=True),
    _text("principal"),
    _text("role"),
    _text("note"),
    _milliseconds("created_at_ms"),
    _milliseconds("expires_at_ms", nullable=True),
    _milliseconds("revoked_at_ms", nullable=True),
    _milliseconds("last_used_at_ms", nullable=True),
)

projects = sa.Table(
    "projects",
    metadata,
    _id(),
    _of("entities"),
    sa.Column("name", _SortedText, nullable=False),
    _milliseconds("created_at_ms"),
    sa.Column("state", sa.Text, nullable=False, server_default="live"),
    # Who has it deleted: in their name it is done in the background.
    sa.Column("deleted_by", sa.Text, nullable=True),
    sa.UniqueConstraint("entity_id", "name"),
    sa.Index(None, "state", **_where("state = 'deleting' OR state = 'purging'")),
    _one_of("state", ProjectState),
)

collections = sa.Table(
    "collections",
    metadata,
    _id(),
    _of("entities"),
    _of("projects"),
    sa.Column("name", _SortedText, nullable=False),
    _text("kind"),
    _text("type"),
    _text("description"),
    # The number of the next version: dense, and never given twice.
    sa.Column("next_number", sa.BigInteger, nullable=False),
    sa.Column("version_count", sa.BigInteger, nullable=False),
    _milliseconds("created_at_ms"),
    _milliseconds("updated_at_ms"),
    _text("created_by"),
    sa.Column("state", sa.Text, nullable=False, server_default="live"),
    # Of its last deletion, until that is purged: when, who, and the number that is in `versions.deletion` of all that
    # went with it.
    _milliseconds("deleted_at_ms", nullable=True),
    sa.Column("deleted_by", sa.Text, nullable=True),
    sa.Column("deletion", sa.BigInteger, nullable=True),
    sa.UniqueConstraint("project_id", "name"),
    sa.Index(None, "entity_id", "name", "id"),
    sa.Index(None, "entity_id", "type"),
    sa.Index(None, "state", **_where("state = 'deleting' OR state = 'purging' OR state = 'undeleting'")),
    sa.Index(None, "deleted_at_ms", **_where("deletion IS NOT NULL")),
    _one_of("kind", CollectionKind),
    _one_of("state", CollectionState),
)

runs = sa.Table(
    "runs",
    metadata,
    _id(),
    _of("entities"),
    _of("projects"),
    # What people call `run_id`.
    _text("name"),
    _text("display_name"),
    _text("job_type"),
    _text("state"),
    _text("config"),
    _text("summary"),
    _milliseconds("created_at_ms"),
    _milliseconds("heartbeat_at_ms"),
    _milliseconds("ended_at_ms", nullable=True),
    _text("created_by"),
    sa.UniqueConstraint("entity_id", "name"),
    sa.Index(None, "entity_id", "id"),
    sa.Index(None, "project_id", "id"),
    sa.Index(None, "state", "heartbeat_at_ms"),
    _one_of("state", RunState),
)

versions = sa.Table(
    "versions",
    metadata,
    _id(),
    sa.Column("uid", sa.LargeBinary(UID_BYTES), nullable=False, unique=True),
    _of("entities"),
    _of("collections"),
    sa.Column("number", sa.BigInteger, nullable=False),
    _text("state"),
    sa.Column("tree_digest", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    sa.Column("file_count", sa.BigInteger, nullable=False),
    sa.Column("reference_count", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    _text("description"),
    _text("metadata"),
    _milliseconds("created_at_ms"),
    _text("created_by"),
    _of("runs", nullable=True, index=True),
    # What a link points at: never a link itself.
    sa.Column("source_id", _Id, sa.ForeignKey("versions.id"), nullable=True, index=True),
    _milliseconds("deleted_at_ms", nullable=True),
    # When it deletes itself; nothing for never.
    _milliseconds("expires_at_ms", nullable=True),
    # What went together has the same number: a revision of the change that it was deleted in.
    sa.Column("deletion", sa.BigInteger, nullable=True),
    sa.UniqueConstraint("collection_id", "number"),
    sa.Index(None, "collection_id", "number", **_where("state = 'deleted'")),
    # What ingest reconciles by.
    sa.Index(None, "entity_id", "uid"),
    sa.Index(None, "deleted_at_ms", **_where("state = 'deleted'")),
    sa.Index(None, "expires_at_ms", **_where("expires_at_ms IS NOT NULL AND state = 'live'")),
    sa.Index(None, "collection_id", "tree_digest"),
    sa.Index(None, "entity_id", "created_at_ms", "id"),
    sa.Index(None, "entity_id", "size_bytes", "id"),
    sa.Index(None, "entity_id", "created_by"),
    _one_of("state", VersionState),
)

aliases = sa.Table(
    "aliases",
    metadata,
    _of("collections", primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    _of("entities"),
    _of("versions", index=True),
    sa.Index(None, "entity_id", "alias"),
    sqlite_with_rowid=False,
)

version_tags = sa.Table(
    "version_tags",
    metadata,
    _of("versions", primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
    _of("entities"),
    sa.Index(None, "entity_id", "tag", "version_id"),
    sqlite_with_rowid=False,
)

collection_tags = sa.Table(
    "collection_tags",
    metadata,
    _of("collections", primary_key=True),
    sa.Column("tag", sa.Text, primary_key=True),
    _of("entities"),
    sa.Index(None, "entity_id", "tag"),
    sqlite_with_rowid=False,
)

# What `metadata.KEY` is searched in: one row for each number, truth value and short text of a version's metadata.
version_fields = sa.Table(
    "version_fields",
    metadata,
    _of("versions", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    _of("entities"),
    sa.Column("number", sa.Double, nullable=True),
    sa.Column("text", _SortedText, nullable=True),
    sa.Index(None, "entity_id", "key", "number", "version_id"),
    sa.Index(None, "entity_id", "key", "text", "version_id"),
    sqlite_with_rowid=False,
)

run_inputs = sa.Table(
    "run_inputs",
    metadata,
    _of("runs", primary_key=True),
    _of("versions", primary_key=True, index=True),
    _milliseconds("used_at_ms"),
    sqlite_with_rowid=False,
)

run_outputs = sa.Table(
    "run_outputs",
    metadata,
    _of("runs", primary_key=True),
    _of("versions", primary_key=True, index=True),
    _milliseconds("logged_at_ms"),
    sqlite_with_rowid=False,
)

# A value that is not a number is NULL: SQLite keeps it so whatever it is told.
metric_points = sa.Table(
    "metric_points",
    metadata,
    _of("runs", primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Double, nullable=True),
    _milliseconds("time_ms"),
    sqlite_with_rowid=False,
)

# Versions that are being committed: written before their pin is asked for, gone when the version is there. A row that a
# crash left is resumed at the next start.
commits = sa.Table(
    "commits",
    metadata,
    sa.Column("uid", sa.LargeBinary(UID_BYTES), primary_key=True),
    _of("entities"),
    # The whole request, as JSON.
    _text("request"),
    _milliseconds("created_at_ms"),
    sqlite_with_rowid=False,
)

# Pins to release: told to ingest until it acknowledges.
pin_releases = sa.Table(
    "pin_releases",
    metadata,
    sa.Column("uid", sa.LargeBinary(UID_BYTES), primary_key=True),
    _of("entities"),
    _milliseconds("created_at_ms"),
    sqlite_with_rowid=False,
)

# What calls with a request id came to, so that the same call does nothing when it comes again.
requests = sa.Table(
    "requests",
    metadata,
    _of("entities", primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    # Of everything that the call asked for.
    sa.Column("fingerprint", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    # What the answer is made of, as JSON.
    _text("result"),
    sa.Column("created_at_ms", sa.BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("revision", _Id, primary_key=True, autoincrement=False),
    _of("entities"),
    _milliseconds("time_ms"),
    _text("actor"),
    _text("kind"),
    _text("project"),
    _text("collection"),
    sa.Column("version_uid", sa.LargeBinary(UID_BYTES), nullable=True),
    _text("run"),
    # JSON, or empty.
    _text("before"),
    _text("after"),
    _text("origin"),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("chain_hash", sa.LargeBinary(DIGEST_BYTES), nullable=False),
    sa.UniqueConstraint("entity_id", "sequence"),
    sa.Index(None, "entity_id", "revision"),
    sa.Index(None, "entity_id", "project", "revision"),
    sa.Index(None, "entity_id", "project", "collection", "revision"),
    sa.Index(None, "entity_id", "version_uid", "revision"),
)
