"""The first schema: names, versions, runs, events and the outboxes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# What is sorted by: by code points on both databases, whatever the locale of PostgreSQL.
_SORTED_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create every table, and the counter of revisions."""
    _create_entities()
    _create_revisions()
    _create_alias_rules()
    _create_api_keys()
    _create_commits()
    _create_events()
    _create_members()
    _create_pin_releases()
    _create_projects()
    _create_requests()
    _create_collections()
    _create_runs()
    _create_collection_tags()
    _create_metric_points()
    _create_versions()
    _create_aliases()
    _create_run_inputs()
    _create_run_outputs()
    _create_version_fields()
    _create_version_tags()
    op.execute("INSERT INTO revisions (id, revision) VALUES (1, 0)")


def _create_entities() -> None:
    op.create_table(
        "entities",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", _SORTED_TEXT, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("event_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(length=32), nullable=True),
        sa.Column("alias_rule_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("retention_rule_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stored_bytes_limit", sa.BigInteger(), nullable=True),
        sa.Column("streams_limit", sa.BigInteger(), nullable=True),
        sa.Column("calls_limit", sa.BigInteger(), nullable=True),
        sa.Column("key_streams_limit", sa.BigInteger(), nullable=True),
        sa.Column("key_calls_limit", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("entities_pk")),
        sa.UniqueConstraint("name", name=op.f("entities_name_unique")),
    )


def _create_revisions() -> None:
    op.create_table(
        "revisions",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("revisions_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("revisions_pk")),
    )


def _create_alias_rules() -> None:
    op.create_table(
        "alias_rules",
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("project", _SORTED_TEXT, nullable=False),
        sa.Column("collection", _SORTED_TEXT, nullable=False),
        sa.Column("alias", _SORTED_TEXT, nullable=False),
        sa.Column("is_protected", sa.Boolean(), nullable=False),
        sa.Column("required_tags", sa.Text(), nullable=False),
        sa.Column("required_metadata", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("alias_rules_entity_id")),
        sa.PrimaryKeyConstraint("entity_id", "project", "collection", "alias", name=op.f("alias_rules_pk")),
        sqlite_with_rowid=False,
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", _SORTED_TEXT, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("entity_id", _ID, nullable=True),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("api_keys_entity_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("api_keys_pk")),
    )
    op.create_index(op.f("api_keys_entity_id"), "api_keys", ["entity_id"], unique=False)


def _create_commits() -> None:
    op.create_table(
        "commits",
        sa.Column("uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("commits_entity_id")),
        sa.PrimaryKeyConstraint("uid", name=op.f("commits_pk")),
        sqlite_with_rowid=False,
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("revision", _ID, autoincrement=False, nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("version_uid", sa.LargeBinary(length=16), nullable=True),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("events_entity_id")),
        sa.PrimaryKeyConstraint("revision", name=op.f("events_pk")),
        sa.UniqueConstraint("entity_id", "sequence", name=op.f("events_entity_id_sequence_unique")),
    )
    op.create_index(
        op.f("events_entity_id_project_collection_revision"),
        "events",
        ["entity_id", "project", "collection", "revision"],
        unique=False,
    )
    op.create_index(
        op.f("events_entity_id_project_revision"), "events", ["entity_id", "project", "revision"], unique=False
    )
    op.create_index(op.f("events_entity_id_revision"), "events", ["entity_id", "revision"], unique=False)
    op.create_index(
        op.f("events_entity_id_version_uid_revision"), "events", ["entity_id", "version_uid", "revision"], unique=False
    )


def _create_members() -> None:
    op.create_table(
        "members",
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("name", _SORTED_TEXT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('user', 'service')", name=op.f("members_kind")),
        sa.CheckConstraint("role IN ('viewer', 'member', 'admin')", name=op.f("members_role")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("members_entity_id")),
        sa.PrimaryKeyConstraint("entity_id", "name", name=op.f("members_pk")),
        sqlite_with_rowid=False,
    )


def _create_pin_releases() -> None:
    op.create_table(
        "pin_releases",
        sa.Column("uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("pin_releases_entity_id")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pin_releases_pk")),
        sqlite_with_rowid=False,
    )


def _create_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", _ID, nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("name", _SORTED_TEXT, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="live", nullable=False),
        sa.Column("deleted_by", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('live', 'deleting', 'purging', 'deleted')", name=op.f("projects_state")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("projects_entity_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("projects_pk")),
        sa.UniqueConstraint("entity_id", "name", name=op.f("projects_entity_id_name_unique")),
    )
    _create_partial_index("projects", ["state"], "state = 'deleting' OR state = 'purging'")


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=32), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("requests_entity_id")),
        sa.PrimaryKeyConstraint("entity_id", "request_id", name=op.f("requests_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("requests_created_at_ms"), "requests", ["created_at_ms"], unique=False)


def _create_collections() -> None:
    op.create_table(
        "collections",
        sa.Column("id", _ID, nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("name", _SORTED_TEXT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.Column("version_count", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="live", nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("deleted_by", sa.Text(), nullable=True),
        sa.Column("deletion", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('sequence', 'portfolio')", name=op.f("collections_kind")),
        sa.CheckConstraint(
            "state IN ('live', 'deleting', 'purging', 'deleted', 'undeleting')", name=op.f("collections_state")
        ),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("collections_entity_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("collections_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("collections_pk")),
        sa.UniqueConstraint("project_id", "name", name=op.f("collections_project_id_name_unique")),
    )
    op.create_index(op.f("collections_entity_id_name_id"), "collections", ["entity_id", "name", "id"], unique=False)
    op.create_index(op.f("collections_entity_id_type"), "collections", ["entity_id", "type"], unique=False)
    working = "state = 'deleting' OR state = 'purging' OR state = 'undeleting'"
    _create_partial_index("collections", ["state"], working)
    _create_partial_index("collections", ["deleted_at_ms"], "deletion IS NOT NULL")


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("project_id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('running', 'finished', 'failed', 'crashed')", name=op.f("runs_state")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("runs_entity_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("runs_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("runs_pk")),
        sa.UniqueConstraint("entity_id", "name", name=op.f("runs_entity_id_name_unique")),
    )
    op.create_index(op.f("runs_entity_id_id"), "runs", ["entity_id", "id"], unique=False)
    op.create_index(op.f("runs_project_id_id"), "runs", ["project_id", "id"], unique=False)
    op.create_index(op.f("runs_state_heartbeat_at_ms"), "runs", ["state", "heartbeat_at_ms"], unique=False)


def _create_collection_tags() -> None:
    op.create_table(
        "collection_tags",
        sa.Column("collection_id", _ID, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name=op.f("collection_tags_collection_id")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("collection_tags_entity_id")),
        sa.PrimaryKeyConstraint("collection_id", "tag", name=op.f("collection_tags_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("collection_tags_entity_id_tag"), "collection_tags", ["entity_id", "tag"], unique=False)


def _create_metric_points() -> None:
    op.create_table(
        "metric_points",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("metric_points_run_id")),
        sa.PrimaryKeyConstraint("run_id", "key", "step", name=op.f("metric_points_pk")),
        sqlite_with_rowid=False,
    )


def _create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("collection_id", _ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tree_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("file_count", sa.BigInteger(), nullable=False),
        sa.Column("reference_count", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("run_id", _ID, nullable=True),
        sa.Column("source_id", _ID, nullable=True),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("deletion", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('live', 'deleted', 'purged')", name=op.f("versions_state")),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name=op.f("versions_collection_id")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("versions_entity_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("versions_run_id")),
        sa.ForeignKeyConstraint(["source_id"], ["versions.id"], name=op.f("versions_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("versions_pk")),
        sa.UniqueConstraint("collection_id", "number", name=op.f("versions_collection_id_number_unique")),
        sa.UniqueConstraint("uid", name=op.f("versions_uid_unique")),
    )
    op.create_index(
        op.f("versions_collection_id_tree_digest"), "versions", ["collection_id", "tree_digest"], unique=False
    )
    op.create_index(
        op.f("versions_entity_id_created_at_ms_id"), "versions", ["entity_id", "created_at_ms", "id"], unique=False
    )
    op.create_index(op.f("versions_entity_id_created_by"), "versions", ["entity_id", "created_by"], unique=False)
    op.create_index(
        op.f("versions_entity_id_size_bytes_id"), "versions", ["entity_id", "size_bytes", "id"], unique=False
    )
    op.create_index(op.f("versions_entity_id_uid"), "versions", ["entity_id", "uid"], unique=False)
    _create_partial_index("versions", ["deleted_at_ms"], "state = 'deleted'")
    _create_partial_index("versions", ["expires_at_ms"], "expires_at_ms IS NOT NULL AND state = 'live'")
    _create_partial_index("versions", ["collection_id", "number"], "state = 'deleted'")
    op.create_index(op.f("versions_run_id"), "versions", ["run_id"], unique=False)
    op.create_index(op.f("versions_source_id"), "versions", ["source_id"], unique=False)


def _create_aliases() -> None:
    op.create_table(
        "aliases",
        sa.Column("collection_id", _ID, nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("version_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], name=op.f("aliases_collection_id")),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("aliases_entity_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("aliases_version_id")),
        sa.PrimaryKeyConstraint("collection_id", "alias", name=op.f("aliases_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("aliases_entity_id_alias"), "aliases", ["entity_id", "alias"], unique=False)
    op.create_index(op.f("aliases_version_id"), "aliases", ["version_id"], unique=False)


def _create_run_inputs() -> None:
    op.create_table(
        "run_inputs",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("used_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("run_inputs_run_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("run_inputs_version_id")),
        sa.PrimaryKeyConstraint("run_id", "version_id", name=op.f("run_inputs_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("run_inputs_version_id"), "run_inputs", ["version_id"], unique=False)


def _create_run_outputs() -> None:
    op.create_table(
        "run_outputs",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("logged_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("run_outputs_run_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("run_outputs_version_id")),
        sa.PrimaryKeyConstraint("run_id", "version_id", name=op.f("run_outputs_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("run_outputs_version_id"), "run_outputs", ["version_id"], unique=False)


def _create_version_fields() -> None:
    op.create_table(
        "version_fields",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("text", _SORTED_TEXT, nullable=True),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("version_fields_entity_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("version_fields_version_id")),
        sa.PrimaryKeyConstraint("version_id", "key", name=op.f("version_fields_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("version_fields_entity_id_key_number_version_id"),
        "version_fields",
        ["entity_id", "key", "number", "version_id"],
        unique=False,
    )
    op.create_index(
        op.f("version_fields_entity_id_key_text_version_id"),
        "version_fields",
        ["entity_id", "key", "text", "version_id"],
        unique=False,
    )


def _create_version_tags() -> None:
    op.create_table(
        "version_tags",
        sa.Column("version_id", _ID, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("entity_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(["entity_id"], ["entities.id"], name=op.f("version_tags_entity_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("version_tags_version_id")),
        sa.PrimaryKeyConstraint("version_id", "tag", name=op.f("version_tags_pk")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("version_tags_entity_id_tag_version_id"), "version_tags", ["entity_id", "tag", "version_id"], unique=False
    )


def _create_partial_index(table: str, columns: list[str], condition: str) -> None:
    op.create_index(
        op.f("_".join([table, *columns])),
        table,
        columns,
        unique=False,
        sqlite_where=sa.text(condition),
        postgresql_where=sa.text(condition),
    )
