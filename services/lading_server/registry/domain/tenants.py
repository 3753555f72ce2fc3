"""Tenants, as the operator sees them: made and listed. Nothing that is inside one is looked at here."""

from __future__ import annotations

from dataclasses import dataclass

from lading_format.names import check_member
from lading_server.common.allowances import default_allowances
from lading_server.common.callers import Caller
from lading_server.common.entities import check_entity
from lading_server.common.keys import ApiKey, new_key
from lading_server.common.registry_errors import EntityExists
from lading_server.common.roles import Role
from lading_server.common.settings import Settings
from lading_server.registry.domain.entity_limits import Tenant, tenant_of
from lading_server.registry.domain.named_pages import open_page
from lading_server.registry.domain.pages import Page, PageRequest
from lading_server.registry.store.entities import list_entities
from lading_server.registry.store.schema import MemberKind
from lading_server.registry.store.store import RegistryStore

# An entity takes up to 150 bytes of an answer.
_MOST_ENTITIES = 16_000
_NOTE = "made with the entity"


@dataclass(frozen=True, slots=True)
class Tenants:
    """The rules of entities themselves. For the operator, who is inside none."""

    settings: Settings
    store: RegistryStore

    async def create(self, operator: Caller, name: str, admin: str) -> ApiKey:
        """Make an entity with a first admin; return that admin's key, whose secret is not kept.

        An entity is one that has a member. What was stored under a name while the server asked for no keys belongs to
        nobody, and becomes the new entity's.

        Args:
            operator: Who makes it; its entity is empty.

        Raises:
            InvalidEntity, InvalidName: The request cannot be taken.
            EntityExists: There is one of this name.
        """
        check_entity(name)
        check_member(admin)
        key = new_key()
        async with self.store.change(operator._replace(entity=name)) as change:
            if await self.store.members.any(change):
                raise EntityExists(f"there is an entity {name!r}; choose another name")
            change.add_event("entity.created", "", after={"name": name})
            await self.store.members.add(change, admin, MemberKind.USER, Role.ADMIN)
            await self.store.keys.add(change, key, admin, Role.ADMIN, note=_NOTE)
        return key

    async def list(self, page: PageRequest) -> Page[Tenant]:
        """Return the server's entities, sorted by name. Raises InvalidPageSize, InvalidPageToken."""
        opened = open_page(page, ("", "ListEntities"), min(self.settings.max_page_size, _MOST_ENTITIES))
        async with self.store.database.read() as connection:
            rows = await list_entities(connection, opened.after, opened.limit + 1)
        defaults = default_allowances(self.settings)
        return opened.of([tenant_of(row, defaults) for row in rows], lambda row: row.name)
