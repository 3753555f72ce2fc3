"""Between the protocol's messages and plain values."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from lading_format.digest import format_digest
from lading_proto.registry.v1 import collections_pb2, versions_pb2
from lading_server.registry.store.rows import CollectionRow, VersionRow
from lading_server.registry.store.schema import CollectionKind

_KINDS = {
    CollectionKind.SEQUENCE: collections_pb2.COLLECTION_KIND_SEQUENCE,
    CollectionKind.PORTFOLIO: collections_pb2.COLLECTION_KIND_PORTFOLIO,
}


def timestamp_to_proto(milliseconds: int) -> Timestamp:
    """Return a time that is kept in milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def version_to_proto(row: VersionRow) -> versions_pb2.Version:
    """Return a version as callers see it."""
    return versions_pb2.Version(
        uid=row.uid.hex(),
        project=row.project,
        collection=row.collection,
        is_link=row.kind is CollectionKind.PORTFOLIO,
        number=row.number,
        type=row.type,
        tree_digest=format_digest(row.tree_digest),
        file_count=row.file_count,
        reference_count=row.reference_count,
        size_bytes=row.size_bytes,
        description=row.description,
        metadata_json=row.metadata,
        tags=row.tags,
        aliases=row.aliases,
        created_at=timestamp_to_proto(row.created_at_ms),
        created_by=row.created_by,
        run_id=row.run,
        source=row.source,
        source_uid=row.source_uid.hex() if row.source_uid else "",
        expires_at=None if row.expires_at_ms is None else timestamp_to_proto(row.expires_at_ms),
    )


def collection_to_proto(row: CollectionRow) -> collections_pb2.Collection:
    """Return a collection as callers see it."""
    return collections_pb2.Collection(
        project=row.project,
        name=row.name,
        kind=_KINDS[row.kind],
        type=row.type,
        description=row.description,
        tags=row.tags,
        version_count=row.version_count,
        aliases=[collections_pb2.AliasTarget(alias=alias, number=number) for alias, number in row.aliases],
        created_at=timestamp_to_proto(row.created_at_ms),
        updated_at=timestamp_to_proto(row.updated_at_ms),
        created_by=row.created_by,
    )
