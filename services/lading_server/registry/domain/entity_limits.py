"""What the operator lets entities and their keys use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lading_server.common.allowances import Allowance, Allowances, default_allowances
from lading_server.common.callers import Caller
from lading_server.common.entities import check_entity
from lading_server.common.errors import InvalidRange
from lading_server.common.registry_errors import EntityNotFound
from lading_server.common.settings import Settings
from lading_server.registry.store.entities import EntityRow, get_entity
from lading_server.registry.store.entity_limits import set_limits
from lading_server.registry.store.store import RegistryStore

_MOST_BYTES = (1 << 63) - 1


class Tenant(NamedTuple):
    """An entity as the operator sees it. `limits` are what counts, the server's defaults included."""

    name: str
    created_at_ms: int
    limits: Allowances


def tenant_of(row: EntityRow, defaults: Allowances) -> Tenant:
    """Return an entity, with the defaults where nothing was set for it."""
    return Tenant(row.name, row.created_at_ms, row.limits.over(defaults))


@dataclass(frozen=True, slots=True)
class EntityLimits:
    """The rules of limits. For the operator, who is inside no entity."""

    settings: Settings
    store: RegistryStore
    # Has the grants of an entity's keys, which carry its limits, looked up anew.
    forget_entity: Callable[[str], None]

    async def set(self, operator: Caller, name: str, entity: Allowance | None, key: Allowance | None) -> Tenant:
        """Set what an entity may use, and what each of its keys may; None leaves what was. May be repeated.

        Raises:
            InvalidEntity, InvalidRange: The request cannot be taken.
            EntityNotFound: There is no such entity.
        """
        check_entity(name)
        _check(entity, key)
        if await self.store.entities.find(name) is None:
            raise EntityNotFound(f"there is no entity {name!r}; see ListEntities")
        async with self.store.change(operator._replace(entity=name)) as change:
            row = await get_entity(change.connection, change.entity_id)
            limits = row.limits.with_(entity, key)
            if limits != row.limits:
                await set_limits(change, row.limits, limits)
        self.forget_entity(name)
        return tenant_of(row._replace(limits=limits), default_allowances(self.settings))


def _check(entity: Allowance | None, key: Allowance | None) -> None:
    if entity is not None and entity.stored_bytes > _MOST_BYTES:
        raise InvalidRange(f"stored_bytes is {entity.stored_bytes:,}; give at most {_MOST_BYTES:,}, or 0 for no limit")
    if key is not None and key.stored_bytes:
        raise InvalidRange("a key stores nothing of its own; give stored_bytes in `limits`, for the whole entity")
