"""What fits into an answer: an answer that does not fit is lost, with what the call did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from lading_proto.registry.v1 import versions_pb2
from lading_server.registry.service.convert import version_to_proto
from lading_server.registry.store.rows import VersionRow

# What a repeated field takes beside its message: a tag, and a length of at most three bytes.
FRAME_BYTES = 4

_M = TypeVar("_M", bound=Message)


class Room:
    """What is left of a message. Once something found no room nothing after it is taken."""

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes
        self.is_full = False

    def take(self, messages: Iterable[_M]) -> Sequence[_M]:
        """Return those of the messages that fit, from the first on."""
        taken: list[_M] = []
        for message in messages:
            size_bytes = message.ByteSize() + FRAME_BYTES
            if self.is_full or size_bytes > self._left_bytes:
                self.is_full = True
                break
            self._left_bytes -= size_bytes
            taken.append(message)
        return taken


def versions_to_proto(rows: Sequence[VersionRow], max_bytes: int) -> Sequence[versions_pb2.Version]:
    """Return all of the versions, with as much of each as `max_bytes` of a message hold.

    Where they do not fit none has card and metadata, and where that is not enough none has tags and aliases. What is
    left are some hundred bytes of each.
    """
    brief = [row._replace(description="", metadata="") for row in rows]
    for some in (rows, brief):
        versions = Room(max_bytes).take(map(version_to_proto, some))
        if len(versions) == len(rows):
            return versions
    return [version_to_proto(row._replace(tags=(), aliases=())) for row in brief]
