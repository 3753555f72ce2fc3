"""What a client may do, what it may be refused, and the line that it writes of each call. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The operations that are counted."""

    PUT = "put"
    GET = "get"
    READ = "read"
    ALIAS = "alias"
    LINK = "link"
    UNLINK = "unlink"
    DELETE = "delete"
    PURGE = "purge"
    UNDELETE = "undelete"
    LIST = "list"


# Somebody else may always have deleted it just before.
_GONE = frozenset({"VERSION_NOT_FOUND"})
# Nor is the content there any more, when it was purged while it was read.
_CONTENT_GONE = _GONE | {"TREE_NOT_FOUND", "BLOB_NOT_FOUND"}

REFUSALS: Mapping[Kind, frozenset[str]] = {
    Kind.PUT: frozenset(),
    Kind.GET: _CONTENT_GONE,
    Kind.READ: _CONTENT_GONE,
    # ALIAS_MOVED, ALIAS_NOT_FOUND: what the caller believed of the alias was wrong.
    Kind.ALIAS: _GONE | {"ALIAS_MOVED", "ALIAS_NOT_FOUND"},
    Kind.LINK: _GONE,
    Kind.UNLINK: _GONE,
    # VERSION_IN_USE: an alias or a link points at it.
    Kind.DELETE: _GONE | {"VERSION_IN_USE"},
    Kind.PURGE: _GONE | {"VERSION_IN_USE"},
    Kind.UNDELETE: _GONE,
    Kind.LIST: frozenset(),
}
"""The reasons that the documentation of each operation has for what others do at the same time. No others may come."""

MEANS_GONE = _CONTENT_GONE
"""Reasons that are right only of a version that somebody had asked to delete."""


@dataclass(frozen=True)
class Call:
    """One operation, as its client saw it. Times are seconds since 1970.

    Attributes:
        kind: What was done.
        reference: The version that it was about, `data-1:v7`; empty where it was about none.
        began_at: When it was asked.
        ended_at: When it was answered.
        refused: The error's type and reason; empty where it was done.
        message: The error's message.
    """

    kind: Kind
    reference: str
    began_at: float
    ended_at: float
    refused: str = ""
    message: str = ""

    @property
    def reason(self) -> str:
        return self.refused.rpartition(" ")[2]

    @property
    def is_documented(self) -> bool:
        """Whether it was done, or refused as the documentation says."""
        return not self.refused or self.reason in REFUSALS[self.kind]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Call:
        return cls(**(value | {"kind": Kind(value["kind"])}))
