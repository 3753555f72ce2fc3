"""Turns a gRPC status into the SDK's error. The only place that reads `grpc-status-details-bin`."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lading._errors import Busy, Incompatible, LadingError, OutcomeUnknown, Unavailable, error_from
from lading._grpc import grpc

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "lading"


def error_from_rpc(error: grpc.aio.AioRpcError, target: str) -> LadingError:
    """Return the SDK's error for a status, with the server's own words where it gave a reason.

    Args:
        error: What gRPC raised.
        target: The server's address, for the messages that gRPC itself makes up.
    """
    info = _error_info(error)
    number: int = error.code().value[0]
    details = error.details() or ""
    if info is not None:
        return error_from(number, info.reason, details, dict(info.metadata))
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return Unavailable(f"No answer from {target} ({details}). Is the server running, and is this its address?")
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "oncurrent RPC limit" in details:
        # What grpc answers by itself when a server has `maximum_concurrent_rpcs` calls: TOO_MANY_STREAMS in effect.
        return Busy(f"{target} has as many calls as it allows. Try again later.")
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return Incompatible(f"{target} does not know this call ({details}). Is it a Lading server of this release?")
    return error_from(number, "", f"{target} answered {error.code().name}: {details or 'no details'}.")


def broken_stream(target: str) -> OutcomeUnknown:
    """Return the error for a stream that ended before everything was answered, and without a status that says why."""
    return OutcomeUnknown(f"The stream to {target} ended before everything was answered. Repeat the call.")


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return _parse_info(value)
    return None


def _parse_info(raw: bytes) -> error_details_pb2.ErrorInfo | None:
    info = error_details_pb2.ErrorInfo()
    try:
        for detail in status_pb2.Status.FromString(raw).details:
            if detail.Unpack(info) and info.domain == _DOMAIN:
                return info
    except DecodeError:
        return None
    return None
