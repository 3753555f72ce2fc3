"""Between the registry's messages and plain values. Total: tests/unit/lading/test_registry_convert.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from lading._errors import Incompatible, InvalidArgument
from lading._registry.models import (
    Beliefs,
    Collection,
    CollectionKind,
    DeleteOutcome,
    DeleteResult,
    Event,
    Lineage,
    LineageEdge,
    LineageEdgeKind,
    MetricPoint,
    Project,
    RunDetails,
    RunInfo,
    RunState,
)
from lading._version import Version
from lading_format.audit import ChainedEvent
from lading_proto.registry.v1 import collections_pb2, events_pb2, lineage_pb2, runs_pb2, versions_pb2

if TYPE_CHECKING:
    from lading._registry.connection import Connection

T = TypeVar("T")

COLLECTION_KINDS: Mapping[int, CollectionKind] = {
    collections_pb2.COLLECTION_KIND_SEQUENCE: CollectionKind.SEQUENCE,
    collections_pb2.COLLECTION_KIND_PORTFOLIO: CollectionKind.PORTFOLIO,
}
RUN_STATES: Mapping[int, RunState] = {
    runs_pb2.RUN_STATE_RUNNING: RunState.RUNNING,
    runs_pb2.RUN_STATE_FINISHED: RunState.FINISHED,
    runs_pb2.RUN_STATE_FAILED: RunState.FAILED,
    runs_pb2.RUN_STATE_CRASHED: RunState.CRASHED,
}
DELETE_OUTCOMES: Mapping[int, DeleteOutcome] = {
    versions_pb2.DELETE_OUTCOME_DELETED: DeleteOutcome.DELETED,
    versions_pb2.DELETE_OUTCOME_HAS_ALIAS: DeleteOutcome.HAS_ALIAS,
    versions_pb2.DELETE_OUTCOME_HAS_LINK: DeleteOutcome.HAS_LINK,
    versions_pb2.DELETE_OUTCOME_PROTECTED: DeleteOutcome.PROTECTED,
    versions_pb2.DELETE_OUTCOME_IS_LINK: DeleteOutcome.IS_LINK,
}
EDGE_KINDS: Mapping[int, LineageEdgeKind] = {
    lineage_pb2.LINEAGE_EDGE_KIND_USED: LineageEdgeKind.USED,
    lineage_pb2.LINEAGE_EDGE_KIND_LOGGED: LineageEdgeKind.LOGGED,
    lineage_pb2.LINEAGE_EDGE_KIND_LINKED: LineageEdgeKind.LINKED,
}
DIRECTIONS: Mapping[str, lineage_pb2.LineageDirection.ValueType] = {
    "both": lineage_pb2.LINEAGE_DIRECTION_UNSPECIFIED,
    "upstream": lineage_pb2.LINEAGE_DIRECTION_UPSTREAM,
    "downstream": lineage_pb2.LINEAGE_DIRECTION_DOWNSTREAM,
}


def version(message: versions_pb2.Version, entity: str, connection: Connection) -> Version:
    """Return a version, bound to the client that asked for it."""
    return Version(
        uid=message.uid,
        entity=entity,
        project=message.project,
        collection=message.collection,
        number=message.number,
        type=message.type,
        digest=message.tree_digest,
        size_bytes=message.size_bytes,
        file_count=message.file_count,
        reference_count=message.reference_count,
        description=message.description,
        metadata=_object(message.metadata_json) or {},
        tags=tuple(message.tags),
        aliases=tuple(message.aliases),
        created_at=moment(message.created_at),
        created_by=message.created_by,
        run_id=message.run_id,
        is_link=message.is_link,
        source=message.source,
        source_uid=message.source_uid,
        expires_at=moment(message.expires_at) if message.HasField("expires_at") else None,
        deleted_at=moment(message.deleted_at) if message.HasField("deleted_at") else None,
        purge_at=moment(message.purge_at) if message.HasField("purge_at") else None,
        connection=connection,
    )


def delete_result(message: versions_pb2.DeleteResult, entity: str, connection: Connection) -> DeleteResult:
    """Return what became of a version that matched a query."""
    found = version(message.version, entity, connection)
    return DeleteResult(found, known(DELETE_OUTCOMES, message.outcome, str(found)), tuple(message.used_by))


def project(message: collections_pb2.Project, entity: str) -> Project:
    """Return a project."""
    return Project(entity, message.name, moment(message.created_at))


def collection(message: collections_pb2.Collection, entity: str) -> Collection:
    """Return a collection."""
    return Collection(
        entity=entity,
        project=message.project,
        name=message.name,
        kind=known(COLLECTION_KINDS, message.kind, f"collection {message.name!r}"),
        type=message.type,
        description=message.description,
        tags=tuple(message.tags),
        version_count=message.version_count,
        aliases={target.alias: target.number for target in message.aliases},
        created_at=moment(message.created_at),
        updated_at=moment(message.updated_at),
        created_by=message.created_by,
        deleted_at=moment(message.deleted_at) if message.HasField("deleted_at") else None,
        purge_at=moment(message.purge_at) if message.HasField("purge_at") else None,
    )


def run(message: runs_pb2.Run, entity: str) -> RunInfo:
    """Return a run."""
    return RunInfo(**_run_fields(message, entity))


def run_details(message: runs_pb2.GetRunResponse, entity: str, connection: Connection) -> RunDetails:
    """Return a run with what it measured, used and made."""
    return RunDetails(
        **_run_fields(message.run, entity),
        metric_keys=tuple(message.metric_keys),
        inputs=tuple([version(item, entity, connection) for item in message.inputs]),
        outputs=tuple([version(item, entity, connection) for item in message.outputs]),
    )


def run_state(state: int) -> RunState:
    """Return how far a run is."""
    return known(RUN_STATES, state, "a run")


def metric_point(message: runs_pb2.MetricPoint) -> MetricPoint:
    """Return one measurement."""
    return MetricPoint(message.step, message.value, datetime.fromtimestamp(message.time_ms / 1000, UTC))


def event(message: events_pb2.Event) -> Event:
    """Return one change."""
    return Event(
        revision=message.revision,
        time=moment(message.time),
        actor=message.actor,
        kind=message.kind,
        project=message.project,
        collection=message.collection,
        version_uid=message.version_uid,
        run_id=message.run_id,
        before=_object(message.before_json),
        after=_object(message.after_json),
        sequence=message.sequence,
        origin=message.origin,
        chain_hash=message.chain_hash.hex(),
    )


def chained_event(message: events_pb2.Event) -> ChainedEvent:
    """Return what of a change is in its hash, as the server sent it."""
    return ChainedEvent(
        sequence=message.sequence,
        revision=message.revision,
        time_ms=message.time.seconds * 1000 + message.time.nanos // 1_000_000,
        actor=message.actor,
        kind=message.kind,
        project=message.project,
        collection=message.collection,
        version_uid=message.version_uid,
        run=message.run_id,
        before=message.before_json,
        after=message.after_json,
        origin=message.origin,
    )


def lineage(message: lineage_pb2.GetLineageResponse, entity: str, connection: Connection) -> Lineage:
    """Return a graph."""
    return Lineage(
        root_uid=message.root_uid,
        versions=tuple([version(item, entity, connection) for item in message.versions]),
        runs=tuple([run(item, entity) for item in message.runs]),
        edges=tuple(
            [
                LineageEdge(known(EDGE_KINDS, edge.kind, "an edge"), edge.version_uid, edge.run_id, edge.link_uid)
                for edge in message.edges
            ]
        ),
        truncated=message.truncated,
    )


def direction(name: str) -> lineage_pb2.LineageDirection.ValueType:
    """Return which way a graph is followed. Raises InvalidArgument."""
    if name not in DIRECTIONS:
        raise InvalidArgument(f"direction {name!r} is not usable: take one of {', '.join(DIRECTIONS)}.")
    return DIRECTIONS[name]


def alias_changes(to_set: Sequence[str], to_remove: Sequence[str], expected: Beliefs) -> list[versions_pb2.AliasChange]:
    """Return the changes of aliases that go with one version.

    Raises:
        InvalidArgument: An alias is set and removed, or there is a belief about one that is not changed.
    """
    for name, aliases in (("aliases", to_set), ("remove_aliases", to_remove)):
        if isinstance(aliases, str):
            raise InvalidArgument(f"{name} are a sequence: write [{aliases!r}].")
    both = set(to_set) & set(to_remove)
    if both:
        raise InvalidArgument(f"{', '.join(sorted(both))}: an alias is either set or removed.")
    strangers = expected.keys() - set(to_set) - set(to_remove)
    if strangers:
        raise InvalidArgument(f"expected names {', '.join(sorted(strangers))}, which the call does not change.")
    changes = [versions_pb2.AliasChange(alias=alias) for alias in dict.fromkeys(to_set)]
    changes += [versions_pb2.AliasChange(alias=alias, remove=True) for alias in dict.fromkeys(to_remove)]
    for change in changes:
        if change.alias in expected:
            number = expected[change.alias]
            if number is None:
                change.must_not_exist = True
            else:
                change.expected_number = number
    return changes


def name_sequence(names: Sequence[str], what: str) -> Sequence[str]:
    """Return names as a message takes them. Raises InvalidArgument for a lone string, whose letters would be names."""
    if isinstance(names, str):
        raise InvalidArgument(f"{what} is a sequence: write {what}=[{names!r}].")
    return names


def to_json(value: Mapping[str, Any] | None) -> str:
    """Return metadata, a config or a summary as requests have it; empty for None.

    Raises:
        InvalidArgument: It holds something that JSON has no form for: an array of numpy, a NaN, a key that is no text.
    """
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{type(value).__name__} is no mapping: metadata is a mapping of names to values.")
    try:
        return json.dumps(dict(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"Metadata has to be JSON: {error}. Turn it into numbers, text, lists and mappings.",
            reason="INVALID_METADATA",
        ) from error


def known(table: Mapping[int, T], value: int, what: str) -> T:
    """Return what a number of the protocol stands for. Raises Incompatible."""
    found = table.get(value)
    if found is None:
        raise Incompatible(f"The server says {value} of {what}, which this SDK does not know. Use a newer one.")
    return found


def moment(stamp: Timestamp) -> datetime:
    """Return a time, to the millisecond, as the server keeps it; in UTC."""
    return datetime.fromtimestamp(stamp.seconds, UTC).replace(microsecond=stamp.nanos // 1000)


def _run_fields(message: runs_pb2.Run, entity: str) -> dict[str, Any]:
    return {
        "entity": entity,
        "project": message.project,
        "run_id": message.run_id,
        "name": message.name,
        "job_type": message.job_type,
        "state": run_state(message.state),
        "config": _object(message.config_json) or {},
        "summary": _object(message.summary_json) or {},
        "created_at": moment(message.created_at),
        "heartbeat_at": moment(message.heartbeat_at),
        "ended_at": moment(message.ended_at) if message.HasField("ended_at") else None,
        "created_by": message.created_by,
    }


def _object(text: str) -> dict[str, Any] | None:
    """Return a JSON object; None for the empty text that stands for none."""
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Incompatible(f"The server sent JSON that cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise Incompatible(f"The server sent a {type(value).__name__} for a JSON object.")
    return value
