"""Between the protocol's messages and plain values: what goes and comes back."""

from __future__ import annotations

from lading_format.names import check_version_uid
from lading_format.references import VersionReference
from lading_proto.registry.v1 import collections_pb2, versions_pb2
from lading_server.common.callers import Caller
from lading_server.common.settings import Settings
from lading_server.registry.domain.delete_by_query import DeleteOutcome, DeletePage, DeleteQuery, DeleteResult
from lading_server.registry.domain.gone import purge_at_ms
from lading_server.registry.domain.references import reference_of
from lading_server.registry.domain.undeleting import Undeleted
from lading_server.registry.service.convert import collection_to_proto, timestamp_to_proto, version_to_proto
from lading_server.registry.service.room import versions_to_proto
from lading_server.registry.store.rows import CollectionRow, VersionRow

OUTCOMES = {
    DeleteOutcome.DELETED: versions_pb2.DELETE_OUTCOME_DELETED,
    DeleteOutcome.HAS_ALIAS: versions_pb2.DELETE_OUTCOME_HAS_ALIAS,
    DeleteOutcome.HAS_LINK: versions_pb2.DELETE_OUTCOME_HAS_LINK,
    DeleteOutcome.PROTECTED: versions_pb2.DELETE_OUTCOME_PROTECTED,
    DeleteOutcome.IS_LINK: versions_pb2.DELETE_OUTCOME_IS_LINK,
}


def deleted_version_to_proto(settings: Settings, row: VersionRow) -> versions_pb2.Version:
    """Return a version that was deleted, with until when it can be undeleted."""
    message = version_to_proto(row)
    if row.deleted_at_ms is not None:
        message.deleted_at.CopyFrom(timestamp_to_proto(row.deleted_at_ms))
        message.purge_at.CopyFrom(timestamp_to_proto(purge_at_ms(settings, row.deleted_at_ms)))
    return message


def deleted_collection_to_proto(settings: Settings, row: CollectionRow) -> collections_pb2.Collection:
    """Return a collection that was deleted, with until when it can be undeleted."""
    message = collection_to_proto(row)
    if row.deleted_at_ms is not None:
        message.deleted_at.CopyFrom(timestamp_to_proto(row.deleted_at_ms))
        message.purge_at.CopyFrom(timestamp_to_proto(purge_at_ms(settings, row.deleted_at_ms)))
    return message


def undelete_target_from_proto(
    caller: Caller, request: versions_pb2.UndeleteVersionRequest
) -> VersionReference | bytes:
    """Return what is to be undeleted. Raises InvalidName, InvalidDigest."""
    return check_version_uid(request.uid) if request.HasField("uid") else reference_of(caller, request.reference)


def undeleted_to_proto(undeleted: Undeleted, max_bytes: int) -> versions_pb2.UndeleteVersionResponse:
    """Return what came back, with as much of its links as a message of `max_bytes` holds."""
    response = versions_pb2.UndeleteVersionResponse(version=version_to_proto(undeleted.version))
    response.links.extend(versions_to_proto(undeleted.links, max_bytes - response.ByteSize()))
    return response


def delete_query_from_proto(request: versions_pb2.DeleteVersionsRequest) -> DeleteQuery:
    """Return which versions a request is about."""
    return DeleteQuery(
        query=request.query,
        project=request.project,
        collection=request.collection,
        force=request.force,
        purge=request.purge,
        dry_run=request.dry_run,
    )


def delete_page_to_proto(page: DeletePage) -> versions_pb2.DeleteVersionsResponse:
    """Return what became of the versions of a page."""
    return versions_pb2.DeleteVersionsResponse(
        results=map(_result_to_proto, page.results),
        size_bytes=sum(one.version.size_bytes for one in page.results if one.outcome is DeleteOutcome.DELETED),
        next_page_token=page.token,
    )


def _result_to_proto(result: DeleteResult) -> versions_pb2.DeleteResult:
    return versions_pb2.DeleteResult(
        version=version_to_proto(result.version), outcome=OUTCOMES[result.outcome], used_by=result.used_by
    )
