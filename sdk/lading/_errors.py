"""Everything that the SDK raises on purpose, and the one table from the protocol's reasons to it. Knows no gRPC.

LadingError
├── InvalidArgument         what was asked for is malformed; the message says what and where
├── NotFound                no such tree, blob, path or upload in this entity
├── AlreadyExists           something of that name is there
├── Conflict                a lost race; read again, then decide
│   └── ContentMoved        content was collected as garbage under a call                (retried)
├── FailedPrecondition      something has to happen first; the message says what
│   ├── SessionExpired      the lease on an upload's chunks lapsed                   (retried)
│   └── MissingContent      chunks or blobs that the server does not have
├── ResourceExhausted       a limit, a quota or the disk
│   └── Busy                too many streams or calls just now                      (retried)
├── Unavailable             the server cannot be reached or is stopping             (retried)
│   ├── OutcomeUnknown      the call broke; what it did is not known                (retried)
│   └── Untrusted           TLS, a certificate or a name is not what it should be
├── IntegrityError          bytes do not have the digest that they should
├── UnsafePath              writing there, or reading through there, could leave the directory
├── FileChanged             a file changed while it was uploaded
├── NotLogged               what a run logged in the background did not arrive
├── Unauthenticated         no usable key
├── PermissionDenied        the key does not allow it
└── Incompatible            the server does not speak this protocol
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import ClassVar

from lading_format.errors import FormatError


class LadingError(Exception):
    """The base of everything that the SDK raises on purpose.

    Attributes:
        message: What is wrong and what to do next, for people.
        reason: The protocol's name for it, `DIGEST_MISMATCH`; empty when it did not come from a server.
        metadata: Details for programs; the .proto files say which.
        retry_seconds: After how long the server said that trying again may help; None when it did not.
    """

    retryable: ClassVar[bool] = False
    retry_seconds: float | None = None

    def __init__(self, message: str, *, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidArgument(LadingError):
    """What was asked for is malformed; the message says what and where."""


class NotFound(LadingError):
    """The entity has no such tree, blob, path or upload."""


class AlreadyExists(LadingError):
    """Something of that name is there."""


class Conflict(LadingError):
    """A race was lost. Read again, then decide."""


class ContentMoved(Conflict):
    """What a call refers to was collected as garbage meanwhile. Repeated before it is raised."""

    retryable = True


class FailedPrecondition(LadingError):
    """Something has to happen first; the message says what."""


class SessionExpired(FailedPrecondition):
    """The lease on an upload's chunks lapsed. Uploads open another by themselves before it is raised."""

    retryable = True


class MissingContent(FailedPrecondition):
    """The server does not have chunks or blobs that something is to be made of. Upload again."""


class ResourceExhausted(LadingError):
    """A limit, a quota or the disk: the same call will not pass until somebody makes room."""


class Busy(ResourceExhausted):
    """There are too many streams, or too many calls a second, just now. Retried with backoff before it is raised."""

    retryable = True


class Unavailable(LadingError):
    """The server cannot be reached or is stopping. Retried with backoff before it is raised."""

    retryable = True


class OutcomeUnknown(Unavailable):
    """A call broke, and what it did is not known. Every call may be repeated; repeated before it is raised."""


class Untrusted(Unavailable):
    """No connection was made, for it would not be a safe one: a certificate, a name, no TLS at all. Never retried."""

    retryable = False


class IntegrityError(LadingError):
    """Bytes do not have the digest that they should, or are damaged where they are kept. Never retried blindly."""


class UnsafePath(LadingError):
    """A path could lead out of its directory: a link, a device, or a name that a server made up."""


class FileChanged(LadingError):
    """A file changed while it was uploaded. Upload again when nobody writes to it."""


class NotLogged(LadingError):
    """A run ended, and something that it logged in the background did not arrive; nobody has seen yet why.

    Attributes:
        failures: What, and why, in the order in which it was logged. The first reason is also `__cause__`.
    """

    def __init__(self, message: str, failures: Sequence[tuple[str, BaseException]] = ()) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


class Unauthenticated(LadingError):
    """The call had no usable key."""


class PermissionDenied(LadingError):
    """The key does not allow it."""


class Incompatible(LadingError):
    """The server does not speak this protocol. Use a server and an SDK of the same release."""


REASONS: Mapping[str, type[LadingError]] = MappingProxyType(
    {
        "ALIAS_MOVED": Conflict,
        "ALIAS_NOT_FOUND": NotFound,
        "ALIAS_PROTECTED": PermissionDenied,
        "ALIAS_REQUIRES": FailedPrecondition,
        "BLOB_NOT_FOUND": NotFound,
        "CHECK_RUNNING": Busy,
        "CHECKSUM_MISMATCH": IntegrityError,
        "CHUNK_EMPTY": InvalidArgument,
        "CHUNK_TOO_LARGE": InvalidArgument,
        "COLLECTION_DELETING": FailedPrecondition,
        "COLLECTION_EXISTS": AlreadyExists,
        "COLLECTION_IN_USE": FailedPrecondition,
        "COLLECTION_NOT_FOUND": NotFound,
        "COLLECTION_RUNNING": FailedPrecondition,
        "CONTENT_MOVED": ContentMoved,
        "CORRUPT_RECORD": IntegrityError,
        "DATABASE_UNAVAILABLE": Unavailable,
        "DIGEST_MISMATCH": IntegrityError,
        "DISK_LOW": ResourceExhausted,
        "DRAINING": Unavailable,
        "ENTITY_DENIED": PermissionDenied,
        "ENTITY_EXISTS": AlreadyExists,
        "ENTITY_NOT_FOUND": NotFound,
        "INGEST_UNAVAILABLE": Unavailable,
        "INVALID_DIGEST": InvalidArgument,
        "INVALID_ENTITY": InvalidArgument,
        "INVALID_LEVEL": InvalidArgument,
        "INVALID_METADATA": InvalidArgument,
        "INVALID_METRIC": InvalidArgument,
        "INVALID_NAME": InvalidArgument,
        "INVALID_PAGE_SIZE": InvalidArgument,
        "INVALID_PAGE_TOKEN": InvalidArgument,
        "INVALID_PATH": InvalidArgument,
        "INVALID_PIN": InvalidArgument,
        "INVALID_QUERY": InvalidArgument,
        "INVALID_RANGE": InvalidArgument,
        "INVALID_REFERENCE": InvalidArgument,
        "INVALID_SESSION": InvalidArgument,
        "INVALID_RETENTION_RULE": InvalidArgument,
        "INVALID_STATE": InvalidArgument,
        "INVALID_UPLOAD": InvalidArgument,
        "IS_REFERENCE": FailedPrecondition,
        "KEYS_UNAVAILABLE": Unavailable,
        "KEY_INVALID": Unauthenticated,
        "KEY_MISSING": Unauthenticated,
        "KEY_NOT_FOUND": NotFound,
        "LAST_ADMIN": FailedPrecondition,
        "MEMBER_NOT_FOUND": NotFound,
        "MISSING_BLOBS": MissingContent,
        "MISSING_CHUNKS": MissingContent,
        "NOT_SORTED": InvalidArgument,
        "NO_REGISTRY": FailedPrecondition,
        "OFFSET_MISMATCH": FailedPrecondition,
        "OUT_OF_SEQUENCE": InvalidArgument,
        "PATH_CONFLICT": InvalidArgument,
        "PATH_NOT_FOUND": NotFound,
        "PIN_CONFLICT": FailedPrecondition,
        "PIN_RELEASED": FailedPrecondition,
        "PROJECT_NOT_EMPTY": FailedPrecondition,
        "PROJECT_NOT_FOUND": NotFound,
        "QUOTA_EXCEEDED": ResourceExhausted,
        "RATE_LIMITED": Busy,
        "REGISTRY_UNAVAILABLE": Unavailable,
        "REQUEST_ID_REUSED": InvalidArgument,
        "ROLE_DENIED": PermissionDenied,
        "RUN_ENDED": FailedPrecondition,
        "RUN_EXISTS": AlreadyExists,
        "RUN_NOT_FOUND": NotFound,
        "SESSION_EXPIRED": SessionExpired,
        "SIZE_MISMATCH": IntegrityError,
        "SOURCE_DELETED": FailedPrecondition,
        "STORAGE_FAILED": IntegrityError,
        "STREAM_IDLE": OutcomeUnknown,
        "TEXT_TOO_LONG": InvalidArgument,
        "TOO_MANY_ITEMS": InvalidArgument,
        "TOO_MANY_STREAMS": Busy,
        "TREE_NOT_FOUND": NotFound,
        "TYPE_MISMATCH": FailedPrecondition,
        "UPLOAD_COMPLETE": FailedPrecondition,
        "UPLOAD_NOT_FOUND": NotFound,
        "UPLOAD_TAKEN_OVER": Conflict,
        "VERSION_IN_USE": FailedPrecondition,
        "VERSION_NOT_FOUND": NotFound,
        "WINDOW_EXCEEDED": ResourceExhausted,
        "WRONG_KIND": FailedPrecondition,
    }
)
"""What each `google.rpc.ErrorInfo` reason of the .proto files becomes. Total: tests/unit/lading/test_errors.py."""

CODES: Mapping[int, type[LadingError]] = MappingProxyType(
    {
        1: OutcomeUnknown,  # CANCELLED
        2: OutcomeUnknown,  # UNKNOWN
        3: InvalidArgument,
        4: OutcomeUnknown,  # DEADLINE_EXCEEDED
        5: NotFound,
        6: AlreadyExists,
        7: PermissionDenied,
        8: ResourceExhausted,
        9: FailedPrecondition,
        10: Conflict,  # ABORTED
        11: InvalidArgument,  # OUT_OF_RANGE
        12: Incompatible,  # UNIMPLEMENTED
        13: OutcomeUnknown,  # INTERNAL
        14: Unavailable,
        15: IntegrityError,  # DATA_LOSS
        16: Unauthenticated,
    }
)
"""What a `google.rpc.Code` becomes when it comes without a reason that this SDK knows."""


def error_from(code: int, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> LadingError:
    """Return the error for a status or an in-band `ItemError`, whose `code` is a `google.rpc.Code`."""
    kind = REASONS.get(reason) or CODES.get(code, LadingError)
    return kind(message or f"The server gave no message (code {code}).", reason=reason, metadata=metadata)


@contextmanager
def format_errors() -> Iterator[None]:
    """Around code of lading_format: raise its errors as the SDK's."""
    try:
        yield
    except FormatError as error:
        raise InvalidArgument(error.message, reason=error.reason, metadata=error.metadata) from error


@contextmanager
def one_error() -> Iterator[None]:
    """Around a task group: raise the error that ended it, instead of a group of it and what it caused."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
