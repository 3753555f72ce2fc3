"""Messages to domain objects and back. Every border crossing of ingest is in this file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lading_format.digest import check_raw_digest, format_digest, split_digests
from lading_format.errors import ReasonedError
from lading_format.tree import FileEntry, ReferenceEntry, TreeEntry
from lading_proto.ingest.v1 import capabilities_pb2, chunks_pb2, files_pb2, pins_pb2, trees_pb2
from lading_server.common.errors import InvalidPageSize, InvalidRange, MissingChunks, SizeMismatch
from lading_server.common.grpc_status import item_error
from lading_server.common.settings import Limit
from lading_server.ingest.domain.blobs import BlobOutcome, BlobResult, RecipePiece
from lading_server.ingest.domain.chunks import Acknowledgement, IncomingChunk
from lading_server.ingest.domain.content import BlobRange
from lading_server.ingest.domain.recipes import ChunkSpan
from lading_server.ingest.domain.tree_pages import TreeTotals
from lading_server.ingest.domain.tree_reader import Change, ChangeKind, Directory
from lading_server.ingest.domain.uploads import UploadedFile, UploadState, UploadStatus
from lading_server.ingest.index.rows import BlobRow, PinRow

DEFAULT_PAGE_SIZE = 1000

_OUTCOMES = {
    BlobOutcome.COMMITTED: chunks_pb2.BLOB_OUTCOME_COMMITTED,
    BlobOutcome.ALREADY_PRESENT: chunks_pb2.BLOB_OUTCOME_ALREADY_PRESENT,
    BlobOutcome.FAILED: chunks_pb2.BLOB_OUTCOME_FAILED,
}
_CHANGES = {
    ChangeKind.ADDED: trees_pb2.CHANGE_KIND_ADDED,
    ChangeKind.REMOVED: trees_pb2.CHANGE_KIND_REMOVED,
    ChangeKind.CHANGED: trees_pb2.CHANGE_KIND_CHANGED,
}
_UPLOAD_STATES = {
    UploadState.OPEN: files_pb2.UPLOAD_STATE_OPEN,
    UploadState.COMPLETE: files_pb2.UPLOAD_STATE_COMPLETE,
}


def capabilities_to_proto(version: str, limits: Iterable[Limit]) -> capabilities_pb2.GetCapabilitiesResponse:
    return capabilities_pb2.GetCapabilitiesResponse(
        server_version=version,
        digest_function=capabilities_pb2.DIGEST_FUNCTION_BLAKE3_256,
        limits=[
            capabilities_pb2.Limit(name=limit.name, value=limit.value, description=limit.description)
            for limit in limits
        ],
    )


def page_size_from_proto(page_size: int, max_page_size: int) -> int:
    """Return the page size to use. Raises InvalidPageSize."""
    if page_size < 0:
        raise InvalidPageSize(f"page_size is {page_size}; give 0 for the default or a positive number")
    return min(page_size or DEFAULT_PAGE_SIZE, max_page_size)


def chunks_from_proto(batch: chunks_pb2.ChunkBatch) -> list[IncomingChunk]:
    return [IncomingChunk(chunk.digest, chunk.xxh3, chunk.size_bytes, chunk.data) for chunk in batch.chunks]


def acknowledgement_to_proto(ack: Acknowledgement, window_bytes: int) -> chunks_pb2.PutChunksResponse:
    response = chunks_pb2.PutChunksResponse(
        window_bytes=window_bytes, acknowledged_chunks=ack.chunk_count, acknowledged_bytes=ack.size_bytes
    )
    for failure in ack.failures:
        response.failures.add(index=failure.position, digest=failure.digest, error=error_to_proto(failure.error))
    return response


def error_to_proto(error: ReasonedError) -> chunks_pb2.ItemError:
    code, reason, message = item_error(error)
    return chunks_pb2.ItemError(code=code, reason=reason, message=message)


def recipe_from_proto(part: chunks_pb2.RecipePart) -> RecipePiece:
    """Raises InvalidDigest, SizeMismatch when the lists do not fit together."""
    spans: list[ChunkSpan] = []
    if part.chunk_digests or part.chunk_sizes:
        digests, sizes = split_digests(part.chunk_digests), part.chunk_sizes
        if len(digests) != len(sizes):
            raise SizeMismatch(
                f"a recipe has {len(digests)} chunk digests and {len(sizes)} chunk sizes; give one size a digest",
                expected=len(digests),
                actual=len(sizes),
            )
        spans = [ChunkSpan(digest, size) for digest, size in zip(digests, sizes, strict=True)]
    return RecipePiece(part.blob_digest, part.size_bytes, spans, part.more)


def results_to_proto(results: Iterable[BlobResult]) -> chunks_pb2.CommitBlobsResponse:
    response = chunks_pb2.CommitBlobsResponse()
    for result in results:
        message = response.results.add(blob_digest=result.blob_digest, outcome=_OUTCOMES[result.outcome])
        if result.error is not None:
            message.error.CopyFrom(error_to_proto(result.error))
        if isinstance(result.error, MissingChunks):
            message.missing_chunk_digests.extend(result.error.digests)
    return response


def blob_to_proto(row: BlobRow) -> chunks_pb2.BlobInfo:
    return chunks_pb2.BlobInfo(digest=format_digest(row.digest), size_bytes=row.size_bytes, chunk_count=row.chunk_count)


def ranges_from_proto(request: chunks_pb2.ReadBlobsRequest) -> list[BlobRange]:
    """Raises InvalidDigest."""
    return [
        BlobRange(check_raw_digest(wanted.blob_digest), wanted.offset_bytes, wanted.length_bytes)
        for wanted in request.ranges
    ]


def entries_from_proto(batch: trees_pb2.TreeEntryBatch) -> list[TreeEntry]:
    return [_entry_from_proto(entry) for entry in batch.entries]


def _entry_from_proto(entry: trees_pb2.TreeEntry) -> TreeEntry:
    if entry.HasField("reference"):
        reference = entry.reference
        size_bytes = reference.size_bytes if reference.HasField("size_bytes") else None
        return ReferenceEntry(entry.path, reference.uri, reference.checksum, size_bytes)
    file = entry.file
    return FileEntry(entry.path, check_raw_digest(file.blob_digest), file.size_bytes, file.executable)


def totals_to_proto(totals: TreeTotals) -> trees_pb2.TreeInfo:
    return trees_pb2.TreeInfo(
        digest=format_digest(totals.digest),
        file_count=totals.file_count,
        reference_count=totals.reference_count,
        size_bytes=totals.size_bytes,
    )


def listed_to_proto(item: TreeEntry | Directory) -> trees_pb2.ListedEntry:
    if isinstance(item, Directory):
        return trees_pb2.ListedEntry(path=item.path, kind=trees_pb2.ENTRY_KIND_DIRECTORY)
    if isinstance(item, FileEntry):
        return trees_pb2.ListedEntry(
            path=item.path,
            kind=trees_pb2.ENTRY_KIND_FILE,
            blob_digest=format_digest(item.digest),
            size_bytes=item.size_bytes,
            executable=item.executable,
        )
    return trees_pb2.ListedEntry(
        path=item.path,
        kind=trees_pb2.ENTRY_KIND_REFERENCE,
        size_bytes=item.size_bytes,
        uri=item.uri,
        checksum=item.checksum,
    )


def listing_to_proto(items: Sequence[TreeEntry | Directory], token: str) -> trees_pb2.ListTreeResponse:
    return trees_pb2.ListTreeResponse(entries=[listed_to_proto(item) for item in items], next_page_token=token)


def changes_to_proto(changes: Sequence[Change], token: str) -> trees_pb2.DiffTreesResponse:
    response = trees_pb2.DiffTreesResponse(next_page_token=token)
    for change in changes:
        response.changes.add(
            path=change.path,
            kind=_CHANGES[change.kind],
            before=listed_to_proto(change.before) if change.before is not None else None,
            after=listed_to_proto(change.after) if change.after is not None else None,
        )
    return response


def pins_to_proto(pins: Iterable[PinRow], token: str) -> pins_pb2.ListPinsResponse:
    """The pins are ones that hold."""
    response = pins_pb2.ListPinsResponse(next_page_token=token)
    for pin in pins:
        response.pins.add(version_uid=pin.version_uid, tree_digest=format_digest(pin.tree_digest or b""))
    return response


def uploaded_to_proto(file: UploadedFile) -> files_pb2.UploadFileResponse:
    return files_pb2.UploadFileResponse(
        digest=format_digest(file.digest), size_bytes=file.size_bytes, new_bytes=file.new_bytes
    )


def status_to_proto(status: UploadStatus) -> files_pb2.GetUploadResponse:
    return files_pb2.GetUploadResponse(
        state=_UPLOAD_STATES[status.state],
        durable_bytes=status.durable_bytes,
        digest=format_digest(status.digest) if status.digest is not None else "",
    )


def file_range(digest: bytes, offset_bytes: int, length_bytes: int, size_bytes: int) -> BlobRange:
    """Return the range of a ReadFile request: a length past the end means to the end. Raises InvalidRange."""
    if offset_bytes > size_bytes:
        raise InvalidRange(f"offset_bytes is {offset_bytes} and the file has {size_bytes} bytes", size_bytes=size_bytes)
    length = min(length_bytes, size_bytes - offset_bytes) if length_bytes else 0
    return BlobRange(digest, offset_bytes, length)
