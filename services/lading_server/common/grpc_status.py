"""Errors to statuses: the one table, and the `google.rpc.ErrorInfo` that every status carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lading_format import errors as formats
from lading_format.errors import ReasonedError
from lading_server.common import errors
from lading_server.common import registry_errors as names

DOMAIN = "lading"
DETAILS_KEY = "grpc-status-details-bin"

_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_DATA_LOSS = grpc.StatusCode.DATA_LOSS

STATUSES: dict[type[ReasonedError], grpc.StatusCode] = {
    formats.InvalidDigest: _INVALID,
    formats.InvalidPath: _INVALID,
    formats.PathConflict: _INVALID,
    formats.NotSorted: _INVALID,
    formats.InvalidReference: _INVALID,
    formats.InvalidName: _INVALID,
    errors.InvalidEntity: _INVALID,
    errors.InvalidSession: _INVALID,
    errors.InvalidUpload: _INVALID,
    errors.InvalidPageToken: _INVALID,
    errors.InvalidPageSize: _INVALID,
    errors.InvalidRange: _INVALID,
    errors.OutOfSequence: _INVALID,
    errors.TooManyItems: _INVALID,
    errors.DigestMismatch: _INVALID,
    errors.SizeMismatch: _INVALID,
    errors.ChunkTooLarge: _INVALID,
    errors.ChunkEmpty: _INVALID,
    errors.ChecksumMismatch: _DATA_LOSS,
    errors.BlobNotFound: _NOT_FOUND,
    errors.TreeNotFound: _NOT_FOUND,
    errors.PathNotFound: _NOT_FOUND,
    errors.UploadNotFound: _NOT_FOUND,
    errors.SessionExpired: _PRECONDITION,
    errors.MissingChunks: _PRECONDITION,
    errors.MissingBlobs: _PRECONDITION,
    errors.OffsetMismatch: _PRECONDITION,
    errors.UploadComplete: _PRECONDITION,
    errors.IsReference: _PRECONDITION,
    errors.UploadTakenOver: grpc.StatusCode.ABORTED,
    errors.ContentMoved: grpc.StatusCode.ABORTED,
    errors.TooManyStreams: _EXHAUSTED,
    errors.WindowExceeded: _EXHAUSTED,
    errors.DiskLow: _EXHAUSTED,
    errors.Draining: grpc.StatusCode.UNAVAILABLE,
    errors.DatabaseAway: grpc.StatusCode.UNAVAILABLE,
    errors.StreamIdle: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.StorageFailed: _DATA_LOSS,
    errors.CorruptRecord: _DATA_LOSS,
    errors.InvalidLevel: _INVALID,
    errors.CheckRunning: grpc.StatusCode.ABORTED,
    errors.CollectionRunning: _PRECONDITION,
    names.InvalidPin: _INVALID,
    names.RequestIdReused: _INVALID,
    names.InvalidMetadata: _INVALID,
    names.TextTooLong: _INVALID,
    names.InvalidQuery: _INVALID,
    names.InvalidMetric: _INVALID,
    names.InvalidState: _INVALID,
    names.CollectionNotFound: _NOT_FOUND,
    names.VersionNotFound: _NOT_FOUND,
    names.AliasNotFound: _NOT_FOUND,
    names.RunNotFound: _NOT_FOUND,
    names.CollectionExists: grpc.StatusCode.ALREADY_EXISTS,
    names.RunExists: grpc.StatusCode.ALREADY_EXISTS,
    names.PinConflict: _PRECONDITION,
    names.PinReleased: _PRECONDITION,
    names.TypeMismatch: _PRECONDITION,
    names.WrongKind: _PRECONDITION,
    names.VersionInUse: _PRECONDITION,
    names.RunEnded: _PRECONDITION,
    names.AliasMoved: grpc.StatusCode.ABORTED,
    names.IngestUnavailable: grpc.StatusCode.UNAVAILABLE,
    names.KeysUnavailable: grpc.StatusCode.UNAVAILABLE,
    names.RegistryUnavailable: grpc.StatusCode.UNAVAILABLE,
    names.KeyMissing: grpc.StatusCode.UNAUTHENTICATED,
    names.KeyInvalid: grpc.StatusCode.UNAUTHENTICATED,
    names.EntityDenied: grpc.StatusCode.PERMISSION_DENIED,
    names.RoleDenied: grpc.StatusCode.PERMISSION_DENIED,
    names.AliasProtected: grpc.StatusCode.PERMISSION_DENIED,
    names.EntityExists: grpc.StatusCode.ALREADY_EXISTS,
    names.EntityNotFound: _NOT_FOUND,
    names.MemberNotFound: _NOT_FOUND,
    names.KeyNotFound: _NOT_FOUND,
    names.LastAdmin: _PRECONDITION,
    names.AliasRequires: _PRECONDITION,
    names.InvalidRetentionRule: _INVALID,
    names.CollectionInUse: _PRECONDITION,
    names.CollectionDeleting: _PRECONDITION,
    names.SourceDeleted: _PRECONDITION,
    names.ProjectNotFound: _NOT_FOUND,
    names.ProjectNotEmpty: _PRECONDITION,
    names.QuotaExceeded: _EXHAUSTED,
    names.RateLimited: _EXHAUSTED,
    names.NoRegistry: _PRECONDITION,
}

# When trying again may help, in seconds: a stream ends, a server restarts. RateLimited knows it exactly.
_RETRY_SECONDS: dict[type[ReasonedError], float] = {
    errors.TooManyStreams: 1,
    errors.Draining: 2,
    errors.DatabaseAway: 2,
    names.IngestUnavailable: 2,
    names.KeysUnavailable: 2,
    names.RegistryUnavailable: 2,
}

# gRPC clients take 8 KiB of trailers by default and drop a status that is larger; some of it is gRPC's own.
_TRAILER_BYTES = 7_800
# Enough for what is longest, the URI of a reference (4,096 bytes), beside its keys.
_METADATA_BYTES = 4_200
# Many items can fail in one message, and each says why.
_ITEM_MESSAGE_BYTES = 1_000
# What an ErrorInfo, a RetryInfo and their type URLs take beside the texts.
_FRAME_BYTES = 250


class Status(NamedTuple):
    """What a call ends with."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, bytes], ...]


class ItemError(NamedTuple):
    """What an item of a batch ends with: the number of a `google.rpc.Code`, the reason, and the message."""

    code: int
    reason: str
    message: str


def code_of(error: ReasonedError) -> grpc.StatusCode:
    """Return the code of an error, or of the class that it is a kind of."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def status_of(error: ReasonedError) -> Status:
    """Return the status of an error that the domain raised."""
    code = code_of(error)
    metadata, metadata_bytes = _bounded_metadata(error.metadata)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    # The message is sent twice: in the details, which may be base64, and as grpc-message, where a byte may take three.
    left_bytes = _TRAILER_BYTES - (_FRAME_BYTES + metadata_bytes) * 4 // 3
    message = _bounded(error.message, left_bytes * 3 // 13)
    packed = [_packed(info)]
    retry_seconds = error.retry_seconds if isinstance(error, names.RateLimited) else _RETRY_SECONDS.get(type(error))
    if retry_seconds is not None:
        packed.append(_packed(error_details_pb2.RetryInfo(retry_delay=_duration(retry_seconds))))
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    return Status(code, message, ((DETAILS_KEY, status.SerializeToString()),))


def item_error(error: ReasonedError) -> ItemError:
    """Return the in-band form of an error that the domain raised."""
    return ItemError(code_of(error).value[0], error.reason, _bounded(error.message, _ITEM_MESSAGE_BYTES))


def _bounded_metadata(metadata: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """Return the metadata, cut to what fits into trailers, and what it takes in bytes."""
    bounded: dict[str, str] = {}
    total_bytes = 0
    for key, value in metadata.items():
        bounded[key] = _bounded(value, _METADATA_BYTES - total_bytes)
        # Four bytes frame an entry, and two lengths of two bytes are inside it.
        total_bytes += len(key) + len(bounded[key].encode()) + 8
    return bounded, total_bytes


def _bounded(text: str, size_bytes: int) -> str:
    """Return the text as UTF-8 can carry it, cut with an ellipsis to at most that many bytes."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= size_bytes:
        return encoded.decode()
    return encoded[: max(size_bytes - 3, 0)].decode(errors="ignore") + "…"


def _duration(seconds: float) -> duration_pb2.Duration:
    """Return a duration, rounded up to microseconds: whoever waits so long waits long enough."""
    whole, micros = divmod(math.ceil(seconds * 1_000_000), 1_000_000)
    return duration_pb2.Duration(seconds=whole, nanos=micros * 1000)


def _packed(detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
