"""What can be wrong with a digest, a path or a tree, told with a reason that both sides know."""

from __future__ import annotations

from typing import ClassVar


class ReasonedError(Exception):
    """An error with a stable reason, a message for people, and metadata for programs.

    The reason is the `reason` of the `google.rpc.ErrorInfo` that the error becomes on the wire.
    """

    reason: ClassVar[str]

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = {key: str(value) for key, value in metadata.items()}


class FormatError(ReasonedError, ValueError):
    """Something does not have the form that both sides agreed on."""


class InvalidDigest(FormatError):
    """A digest is not `b3:<64 hex>`, or not 32 raw bytes."""

    reason = "INVALID_DIGEST"


class InvalidPath(FormatError):
    """A path breaks the rules of a tree. Metadata: `path`, `rule`."""

    reason = "INVALID_PATH"


class PathConflict(FormatError):
    """Two paths are one file on some systems, or one is the other's directory. Metadata: `path`, `other`."""

    reason = "PATH_CONFLICT"


class NotSorted(FormatError):
    """A tree's entries are not sorted by the UTF-8 bytes of their paths. Metadata: `path`."""

    reason = "NOT_SORTED"


class InvalidReference(FormatError):
    """A reference has no usable URI or checksum. Metadata: `path`."""

    reason = "INVALID_REFERENCE"


class InvalidName(FormatError):
    """A name, reference, id, alias, tag or type breaks its rules. Metadata: `field`."""

    reason = "INVALID_NAME"
