"""KeyChecker at the end of a channel: the registry in a process of its own."""

from __future__ import annotations

import logging

from lading_proto.registry.v1 import keys_pb2, keys_pb2_grpc
from lading_server.common.access import KeyGrant
from lading_server.common.peers import Peer, PeerFailed
from lading_server.common.registry_errors import KeysUnavailable

_log = logging.getLogger(__name__)

# It is one look-up by key.
_CHECK_SECONDS = 5.0


class RemoteKeys:
    """See KeyChecker. Sends the hash of a secret and never the secret."""

    def __init__(self, registry: Peer) -> None:
        self._registry = registry
        self._stub = keys_pb2_grpc.KeyServiceStub(registry.channel)

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """See KeyChecker.check."""
        request = keys_pb2.CheckKeyRequest(key_id=key_id, secret_hash=secret_hash)
        try:
            response = await self._registry.ask(self._stub.CheckKey, request, _CHECK_SECONDS)
        except PeerFailed as failure:
            _log.exception("the registry did not answer for key %s", key_id)
            raise KeysUnavailable("the registry, which knows the keys, does not answer; retry later") from failure
        if not response.HasField("grant"):
            return None
        grant = response.grant
        return KeyGrant(grant.principal, grant.entity, grant.expires_at_ms or None)
