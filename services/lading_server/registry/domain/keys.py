"""Keys: whom each belongs to and what it may do, and when it was last used."""

from __future__ import annotations

import hmac

from lading_server.common.access import KeyGrant
from lading_server.common.allowances import UNLIMITED, Allowances
from lading_server.registry.store.store import RegistryStore


class KeyUses:
    """When keys were used. Noted in memory, and written together now and then: no call waits for it.

    What a crash loses is a time, and the next use has a later one.
    """

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        # By the ids of keys that were found good, so there are no more of them than keys.
        self._times_ms: dict[str, int] = {}

    def note(self, key_id: str) -> None:
        """Remember that a key is used now."""
        self._times_ms[key_id] = self._store.now_ms()

    async def write(self) -> None:
        """Write what was noted."""
        times_ms, self._times_ms = self._times_ms, {}
        if times_ms:
            await self._store.keys.used(times_ms)


class Keys:
    """A KeyChecker over the registry's own database."""

    def __init__(self, store: RegistryStore, uses: KeyUses, defaults: Allowances = UNLIMITED) -> None:
        """`defaults`: what an entity, and its keys, may use where the operator did not say."""
        self._defaults = defaults
        self._store = store
        self.uses = uses

    async def check(self, key_id: str, secret_hash: bytes) -> KeyGrant | None:
        """See KeyChecker.check. Never raises KeysUnavailable: here they are."""
        held = await self._store.keys.held(key_id)
        if held is None or not hmac.compare_digest(held.secret_hash, secret_hash):
            return None
        if held.expires_at_ms is not None and held.expires_at_ms <= self._store.now_ms():
            return None
        self.uses.note(key_id)
        # The operator is in no entity, and is not limited.
        limits = held.limits.over(self._defaults) if held.entity else UNLIMITED
        return KeyGrant(held.principal, held.entity, held.role, held.expires_at_ms, limits)
