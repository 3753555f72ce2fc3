"""Errors to statuses: the one table, and the `google.rpc.ErrorInfo` that every status carries."""

from __future__ import annotations

from typing import NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from lading_format import errors as formats
from lading_format.errors import ReasonedError
from lading_server.common import errors

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
    errors.StreamIdle: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.StorageFailed: _DATA_LOSS,
    errors.CorruptRecord: _DATA_LOSS,
}

# When trying again may help, in seconds: a stream ends, a server restarts.
_RETRY_SECONDS: dict[type[ReasonedError], int] = {errors.TooManyStreams: 1, errors.Draining: 2}


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
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    retry_seconds = _RETRY_SECONDS.get(type(error))
    packed = [_packed(info)]
    if retry_seconds is not None:
        packed.append(_packed(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_seconds))))
    status = status_pb2.Status(code=code.value[0], message=error.message, details=packed)
    return Status(code, error.message, ((DETAILS_KEY, status.SerializeToString()),))


def item_error(error: ReasonedError) -> ItemError:
    """Return the in-band form of an error that the domain raised."""
    return ItemError(code_of(error).value[0], error.reason, error.message)


def _packed(detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
