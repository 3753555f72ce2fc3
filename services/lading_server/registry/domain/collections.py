"""Collections: made, told about and changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lading_format.names import MODEL_REGISTRY, check_collection, check_project, check_request_id, check_tag, check_type
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import CollectionExists
from lading_server.common.settings import Settings
from lading_server.registry.domain.documents import check_description
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.limits import changed_tags, check_tags
from lading_server.registry.domain.outcomes import collection_from_memory, collection_to_memory
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_changes import create_collection, update_collection
from lading_server.registry.store.rows import CollectionRow
from lading_server.registry.store.schema import CollectionKind
from lading_server.registry.store.store import RegistryStore


def kind_of(project: str) -> CollectionKind:
    """Return how collections of a project get their versions."""
    return CollectionKind.PORTFOLIO if project == MODEL_REGISTRY else CollectionKind.SEQUENCE


@dataclass(frozen=True, slots=True)
class Collections:
    """The rules of collections. Every method is inside the entity of its caller."""

    settings: Settings
    store: RegistryStore

    async def create(
        self,
        caller: Caller,
        project: str,
        name: str,
        type_: str,
        *,
        description: str = "",
        tags: Sequence[str] = (),
        request_id: str = "",
    ) -> CollectionRow:
        """Make a collection before it has a version.

        Raises:
            InvalidName, TextTooLong, TooManyItems, RequestIdReused: The request cannot be taken.
            CollectionExists: There is one of this name.
        """
        check_collection(check_project(project), name)
        check_type(type_)
        description = check_description(description, self.settings.max_description_bytes)
        tags = check_tags(self.settings, tags)
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint(
            "CreateCollection", project=project, name=name, type=type_, description=description, tags=tags
        )
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return await collection_from_memory(change, self.store.collections, memory)
            if await self.store.collections.find(change, project, name) is not None:
                raise CollectionExists(
                    f"there is a collection {project}/{name}; use it, or choose another name",
                    project=project,
                    collection=name,
                )
            await create_collection(change, project, name, kind_of(project), type_, description, tags)
            row = await self._row(change, project, name)
            await change.remember(request_id, asked, collection_to_memory(row))
            return row

    async def get(self, caller: Caller, project: str, name: str) -> CollectionRow:
        """Tell about a collection. Raises InvalidName, CollectionNotFound."""
        check_collection(check_project(project), name)
        entity_id = await self.store.entities.find(caller.entity)
        async with self.store.database.read() as connection:
            return await self.store.collections.get(connection, entity_id, project, name)

    async def update(
        self,
        caller: Caller,
        project: str,
        name: str,
        *,
        description: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        request_id: str = "",
    ) -> CollectionRow:
        """Change a collection's card and tags.

        Raises:
            InvalidName, TextTooLong, TooManyItems, RequestIdReused: The request cannot be taken.
            CollectionNotFound: The entity has no such collection.
        """
        check_collection(check_project(project), name)
        if description is not None:
            description = check_description(description, self.settings.max_description_bytes)
        add_tags = check_tags(self.settings, add_tags)
        remove_tags = sorted({check_tag(tag) for tag in remove_tags})
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint(
            "UpdateCollection", project=project, name=name, description=description, add=add_tags, remove=remove_tags
        )
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return await collection_from_memory(change, self.store.collections, memory)
            row = await self._row(change, project, name)
            tags = changed_tags(self.settings, row.tags, add_tags, remove_tags)
            await update_collection(change, row, row.description if description is None else description, tags)
            row = await self._row(change, project, name)
            await change.remember(request_id, asked, collection_to_memory(row))
            return row

    async def _row(self, change: Change, project: str, name: str) -> CollectionRow:
        return await self.store.collections.get(change.connection, change.entity_id, project, name)
