"""Between the protocol's messages about versions, aliases and collections, and the domain's values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lading_format.digest import parse_digest
from lading_format.errors import InvalidName
from lading_proto.registry.v1 import collections_pb2, refs_pb2, versions_pb2
from lading_server.common.callers import Caller
from lading_server.registry.domain.aliases import AliasChange
from lading_server.registry.domain.commit_request import CommitRequest
from lading_server.registry.domain.outcomes import Outcome
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.refs import ChangeAliases, Link, RefChange, Unlink
from lading_server.registry.service.convert import timestamp_to_proto
from lading_server.registry.service.room import FRAME_BYTES, versions_to_proto
from lading_server.registry.store.rows import CollectionRow
from lading_server.registry.store.schema import CollectionKind

KINDS_TO_PROTO = {
    CollectionKind.SEQUENCE: collections_pb2.COLLECTION_KIND_SEQUENCE,
    CollectionKind.PORTFOLIO: collections_pb2.COLLECTION_KIND_PORTFOLIO,
}

# What a RefResult takes beside its version: a frame of its own, and `created` with its tag.
_RESULT_BYTES = FRAME_BYTES + 2


def commit_from_proto(request: versions_pb2.CommitVersionRequest) -> CommitRequest:
    """Raises InvalidDigest."""
    return CommitRequest(
        project=request.project,
        collection=request.collection,
        type=request.type,
        tree_digest=parse_digest(request.tree_digest),
        description=request.description,
        metadata=request.metadata_json,
        tags=tuple(request.tags),
        aliases=aliases_from_proto(request.aliases),
        run=request.run_id,
        request_id=request.request_id,
        ttl_seconds=request.ttl_seconds if request.HasField("ttl_seconds") else None,
    )


def aliases_from_proto(changes: Iterable[versions_pb2.AliasChange]) -> tuple[AliasChange, ...]:
    return tuple(
        AliasChange(
            alias=change.alias,
            remove=change.remove,
            expected_number=change.expected_number if change.HasField("expected_number") else None,
            must_not_exist=change.must_not_exist,
        )
        for change in changes
    )


def ref_changes_from_proto(caller: Caller, request: refs_pb2.UpdateRefsRequest) -> list[RefChange]:
    """Raises InvalidName, InvalidDigest."""
    return [_ref_change_from_proto(caller, change) for change in request.changes]


def _ref_change_from_proto(caller: Caller, change: refs_pb2.RefChange) -> RefChange:
    match change.WhichOneof("change"):
        case "aliases":
            reference = reference_of(caller, change.aliases.reference)
            return ChangeAliases(reference, aliases_from_proto(change.aliases.aliases))
        case "link":
            link = change.link
            source = reference_of(caller, link.source)
            return Link(source, link.portfolio, aliases_from_proto(link.aliases), link.run_id)
        case "unlink":
            return Unlink(reference_of(caller, change.unlink.reference), change.unlink.force)
        case _:
            raise InvalidName("a change says nothing; give it aliases, link or unlink", field="changes")


def outcomes_to_proto(outcomes: Sequence[Outcome], max_bytes: int) -> refs_pb2.UpdateRefsResponse:
    """Return all outcomes, with as much of their versions as a message of `max_bytes` holds."""
    versions = versions_to_proto([outcome.version for outcome in outcomes], max_bytes - _RESULT_BYTES * len(outcomes))
    results = [
        refs_pb2.RefResult(version=version, created=outcome.created)
        for version, outcome in zip(versions, outcomes, strict=True)
    ]
    return refs_pb2.UpdateRefsResponse(results=results)


def collection_to_proto(row: CollectionRow) -> collections_pb2.Collection:
    """Return a collection as callers see it."""
    return collections_pb2.Collection(
        project=row.project,
        name=row.name,
        kind=KINDS_TO_PROTO[row.kind],
        type=row.type,
        description=row.description,
        tags=row.tags,
        version_count=row.version_count,
        aliases=[collections_pb2.AliasTarget(alias=alias, number=number) for alias, number in row.aliases],
        created_at=timestamp_to_proto(row.created_at_ms),
        updated_at=timestamp_to_proto(row.updated_at_ms),
        created_by=row.created_by,
    )
