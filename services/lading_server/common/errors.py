"""What can go wrong in either service, in the domain's words. Knows no gRPC: grpc_status.py has the one table to it.

Each class has the reason that the .proto files list; metadata is for programs, the message for people and says what
to do next. The errors of the shared formats (digests, paths, trees) are in `lading_format.errors`.
"""

from __future__ import annotations

from lading_format.errors import ReasonedError


class DomainError(ReasonedError):
    """The base of everything that the services raise on purpose."""


class InvalidEntity(DomainError):
    """The request names no entity, or one that is malformed."""

    reason = "INVALID_ENTITY"


class Draining(DomainError):
    """The server is about to stop and takes no new work."""

    reason = "DRAINING"


class TooManyStreams(DomainError):
    """As many streams are open as the server, the entity or the key may have. Metadata: `limit`, `scope`."""

    reason = "TOO_MANY_STREAMS"


class StreamIdle(DomainError):
    """The other side of a stream made no progress. Metadata: `idle_seconds`."""

    reason = "STREAM_IDLE"


class OutOfSequence(DomainError):
    """A stream's messages are not in the order that the rpc asks for."""

    reason = "OUT_OF_SEQUENCE"


class WindowExceeded(DomainError):
    """A stream has more unacknowledged bytes than it was granted. Metadata: `window_bytes`."""

    reason = "WINDOW_EXCEEDED"


class TooManyItems(DomainError):
    """A request has more items than a limit allows. Metadata: `limit_name`, `limit`."""

    reason = "TOO_MANY_ITEMS"


class InvalidSession(DomainError):
    """A session id is malformed."""

    reason = "INVALID_SESSION"


class SessionExpired(DomainError):
    """The session lapsed, was closed, or never was; the caller opens another and asks again."""

    reason = "SESSION_EXPIRED"


class InvalidPageToken(DomainError):
    """A page token is not one that this listing gave."""

    reason = "INVALID_PAGE_TOKEN"


class InvalidPageSize(DomainError):
    """A page size is negative."""

    reason = "INVALID_PAGE_SIZE"


class InvalidRange(DomainError):
    """A range is not inside the blob. Metadata: `size_bytes`."""

    reason = "INVALID_RANGE"


class InvalidUpload(DomainError):
    """An upload id is empty, too long, or has characters that are not allowed."""

    reason = "INVALID_UPLOAD"


class DigestMismatch(DomainError):
    """Bytes do not have the digest that the caller gave. Metadata: `expected`, `actual`."""

    reason = "DIGEST_MISMATCH"


class SizeMismatch(DomainError):
    """Something is not as long as the caller said. Metadata: `expected`, `actual`."""

    reason = "SIZE_MISMATCH"


class ChecksumMismatch(DomainError):
    """Bytes were damaged on their way here."""

    reason = "CHECKSUM_MISMATCH"


class ChunkTooLarge(DomainError):
    """A chunk is larger than the limit. Metadata: `limit`."""

    reason = "CHUNK_TOO_LARGE"


class ChunkEmpty(DomainError):
    """A chunk has no bytes."""

    reason = "CHUNK_EMPTY"


class MissingChunks(DomainError):
    """A recipe names chunks that are not there. `digests` has them, at most 1,000."""

    reason = "MISSING_CHUNKS"

    def __init__(self, message: str, digests: list[bytes]) -> None:
        super().__init__(message)
        self.digests = digests


class ContentMoved(DomainError):
    """What the call refers to is being collected or replaced at this moment; repeating the call finds out."""

    reason = "CONTENT_MOVED"


class MissingBlobs(DomainError):
    """A tree names blobs that are not committed. Metadata: `digests`, the first few, comma-separated."""

    reason = "MISSING_BLOBS"


class BlobNotFound(DomainError):
    """The entity has no such blob. Metadata: `digest`."""

    reason = "BLOB_NOT_FOUND"


class TreeNotFound(DomainError):
    """The entity has no such tree. Metadata: `digest`."""

    reason = "TREE_NOT_FOUND"


class PathNotFound(DomainError):
    """The tree has no such path. Metadata: `path`."""

    reason = "PATH_NOT_FOUND"


class UploadNotFound(DomainError):
    """The entity has no such upload."""

    reason = "UPLOAD_NOT_FOUND"


class OffsetMismatch(DomainError):
    """An upload continues at another offset than the caller thinks. Metadata: `expected`, `actual`."""

    reason = "OFFSET_MISMATCH"


class UploadComplete(DomainError):
    """The upload was finished before. Metadata: `digest`."""

    reason = "UPLOAD_COMPLETE"


class UploadTakenOver(DomainError):
    """Another stream continues this upload."""

    reason = "UPLOAD_TAKEN_OVER"


class IsReference(DomainError):
    """The path is a reference: its bytes lie elsewhere. Metadata: `uri`."""

    reason = "IS_REFERENCE"


class DiskLow(DomainError):
    """There is too little free space to take more. Metadata, where it is known: `free_bytes`, `required_bytes`."""

    reason = "DISK_LOW"


class DatabaseAway(DomainError):
    """A database cannot be reached just now. What was acknowledged is there; repeating a call is harmless."""

    reason = "DATABASE_UNAVAILABLE"


class StorageFailed(DomainError):
    """The disk refused a write or a sync. What was not acknowledged is lost; what was is not."""

    reason = "STORAGE_FAILED"


class CollectionRunning(DomainError):
    """Garbage is being collected, and one run goes at a time."""

    reason = "COLLECTION_RUNNING"


class CorruptRecord(DomainError):
    """Bytes at rest are not what was stored. Metadata: `pack`, `offset`."""

    reason = "CORRUPT_RECORD"


class InvalidLevel(DomainError):
    """A check has no such level."""

    reason = "INVALID_LEVEL"


class CheckRunning(DomainError):
    """Another call runs the same check."""

    reason = "CHECK_RUNNING"
