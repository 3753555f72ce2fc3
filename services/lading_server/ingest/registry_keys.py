"""KeyChecker at the end of a channel: the registry in a process of its own."""

from __future__ import annotations

import logging

from lading_proto.registry.v1 import access_pb2, keys_pb2, keys_pb2_grpc
from lading_server.common.access import KeyGrant
from lading_server.common.allowances import Allowance, Allowances
from lading_server.common.peers import Peer, PeerFailed
from lading_server.common.registry_errors import KeysUnavailable
from lading_server.common.roles import Role

_log = logging.getLogger(__name__)

# It is one look-up by key.
_CHECK_SECONDS = 5.0
_ROLES = frozenset(role.value for role in Role)


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
        if grant.role not in _ROLES:
            # Of another release: better no answer than a guess at what it means.
            raise KeysUnavailable(f"the registry speaks of a role {grant.role!r}; run both services at one release")
        limits = Allowances(_allowance(grant.entity_limits), _allowance(grant.key_limits))
        return KeyGrant(grant.principal, grant.entity, Role(grant.role), grant.expires_at_ms or None, limits)


def _allowance(limits: access_pb2.Limits) -> Allowance:
    return Allowance(limits.stored_bytes, limits.streams, limits.calls_per_second)
