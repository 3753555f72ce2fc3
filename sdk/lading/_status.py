"""Turns a gRPC status into the SDK's error. The only place that reads `grpc-status-details-bin`."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as AnyMessage
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from lading._address import Address
from lading._errors import Busy, Incompatible, LadingError, OutcomeUnknown, Unavailable, error_from
from lading._grpc import grpc
from lading._handshake import handshake_error

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "lading"

Message = TypeVar("Message", bound=AnyMessage)


def error_from_rpc(error: grpc.aio.AioRpcError, address: Address) -> LadingError:
    """Return the SDK's error for a status, with the server's own words where it gave a reason.

    Args:
        error: What gRPC raised.
        address: The server's, for the messages that gRPC itself makes up.
    """
    target = address.target
    info = _error_info(error)
    number: int = error.code().value[0]
    details = error.details() or ""
    if info is not None:
        known = error_from(number, info.reason, details, dict(info.metadata))
        known.retry_seconds = _retry_seconds(error)
        return known
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return handshake_error(details, address) or Unavailable(
            f"No answer from {target} ({details}). Is the server running, and is this its address?"
        )
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
    info = _detail(error, error_details_pb2.ErrorInfo())
    return info if info is not None and info.domain == _DOMAIN else None


def _retry_seconds(error: grpc.aio.AioRpcError) -> float | None:
    info = _detail(error, error_details_pb2.RetryInfo())
    # A wait that goes back in time is none.
    return max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9) if info is not None else None


def _detail(error: grpc.aio.AioRpcError, wanted: Message) -> Message | None:
    """Return the first detail of a kind that the status has, read into `wanted`."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                for detail in status_pb2.Status.FromString(value).details:
                    if detail.Unpack(wanted):
                        return wanted
            except DecodeError:
                return None
    return None
