"""Who may do what in the registry, put together: members, keys, tenants, and rules of aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from lading_server.common.access import RememberedKeys
from lading_server.common.allowances import default_allowances
from lading_server.common.settings import Settings
from lading_server.registry.domain.alias_rules import AliasRules
from lading_server.registry.domain.background import Repeated
from lading_server.registry.domain.closing import Closing
from lading_server.registry.domain.entity_limits import EntityLimits
from lading_server.registry.domain.issued_keys import IssuedKeys
from lading_server.registry.domain.keys import Keys, KeyUses
from lading_server.registry.domain.members import Members
from lading_server.registry.domain.tenants import Tenants
from lading_server.registry.store.store import RegistryStore

# `last_used_at` is true to about a minute.
_USES_PERIOD_SECONDS = 60.0


@dataclass(frozen=True)
class AccessRules:
    """What says who may do what.

    Attributes:
        keys: Every answer is from the database: for ingest, which remembers it itself.
        remembered: For the callers of this process. A key that is revoked here ends at once.
    """

    settings: Settings
    store: RegistryStore
    keys: Keys
    remembered: RememberedKeys
    members: Members
    issued_keys: IssuedKeys
    tenants: Tenants
    alias_rules: AliasRules
    entity_limits: EntityLimits


@asynccontextmanager
async def run_access(settings: Settings, store: RegistryStore) -> AsyncIterator[AccessRules]:
    """Give the rules over a store that stays the caller's; when keys were used is written in the background."""
    async with AsyncExitStack() as stack:
        closing, uses = Closing(), KeyUses(store)
        stack.push_async_callback(uses.write)
        stack.push_async_callback(Repeated("key uses", uses.write, closing, period_seconds=_USES_PERIOD_SECONDS).close)
        # Called first of all: the work at hand ends, and then what was noted since is written.
        stack.callback(closing.begin)
        keys = Keys(store, uses, default_allowances(settings))
        remembered = RememberedKeys(keys, settings.key_cache_seconds, store.clock)
        yield AccessRules(
            settings=settings,
            store=store,
            keys=keys,
            remembered=remembered,
            members=Members(settings, store, remembered.forget),
            issued_keys=IssuedKeys(settings, store, remembered.forget),
            tenants=Tenants(settings, store),
            alias_rules=AliasRules(settings, store),
            entity_limits=EntityLimits(settings, store, remembered.forget_entity),
        )
