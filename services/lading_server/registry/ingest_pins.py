"""ContentPins at the end of a channel: ingest in a process of its own."""

from __future__ import annotations

import logging

import grpc

from lading_format.digest import format_digest
from lading_proto.ingest.v1 import pins_pb2, pins_pb2_grpc
from lading_server.common.errors import CorruptRecord, DomainError, MissingBlobs, TreeNotFound
from lading_server.common.peers import Peer, PeerFailed
from lading_server.common.pins import PinnedTree
from lading_server.common.registry_errors import IngestUnavailable, PinConflict, PinReleased

_log = logging.getLogger(__name__)

# A tree of a million files was seen to take 10 s.
_ACQUIRE_SECONDS = 120.0
_RELEASE_SECONDS = 10.0
# What ingest says of the tree, and not of the call.
_ERRORS: dict[str, type[DomainError]] = {
    kind.reason: kind for kind in (TreeNotFound, MissingBlobs, PinConflict, PinReleased, CorruptRecord)
}


class RemotePins:
    """See ContentPins. An attempt that is not answered is repeated for a few seconds."""

    def __init__(self, ingest: Peer) -> None:
        self._ingest = ingest
        self._stub = pins_pb2_grpc.PinServiceStub(ingest.channel)

    async def acquire(self, entity: str, version_uid: bytes, tree_digest: bytes) -> PinnedTree:
        """See ContentPins.acquire."""
        request = pins_pb2.AcquirePinRequest(
            entity=entity, version_uid=version_uid, tree_digest=format_digest(tree_digest)
        )
        try:
            response = await self._ingest.ask(self._stub.AcquirePin, request, _ACQUIRE_SECONDS)
        except PeerFailed as failure:
            raise _error(failure) from failure
        tree = response.tree
        return PinnedTree(tree.file_count, tree.reference_count, tree.size_bytes)

    async def release(self, entity: str, version_uid: bytes) -> None:
        """See ContentPins.release."""
        request = pins_pb2.ReleasePinRequest(entity=entity, version_uid=version_uid)
        try:
            await self._ingest.ask(self._stub.ReleasePin, request, _RELEASE_SECONDS)
        except PeerFailed as failure:
            raise _error(failure) from failure


def _error(failure: PeerFailed) -> Exception:
    """Return what the caller is told: of the tree, or that ingest does not answer, or the failure where it is ours."""
    refusal = failure.refusal
    kind = _ERRORS.get(refusal.reason)
    if kind is not None:
        return kind(refusal.message, **refusal.metadata)
    if refusal.code is grpc.StatusCode.INVALID_ARGUMENT:
        # Repeating a request that is wrong would hide it.
        return failure
    # A wrong service key among others: callers can do nothing about it, but the operator can.
    _log.error("ingest did not do what it was asked: %s (%s)", failure, refusal.reason or "no reason")
    return IngestUnavailable("ingest does not answer; retry with backoff")
