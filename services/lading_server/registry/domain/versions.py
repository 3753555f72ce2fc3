"""Versions that are there: found, described and deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lading_format.names import LATEST, check_request_id, check_tag
from lading_format.references import VersionReference
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import VersionInUse, WrongKind
from lading_server.common.settings import Settings
from lading_server.registry.domain.alias_rules import check_still_there
from lading_server.registry.domain.aliases import give_latest, take_aliases
from lading_server.registry.domain.documents import check_description, parse_metadata
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.limits import changed_tags, check_tags
from lading_server.registry.domain.outcomes import Outcome, from_memory, to_memory
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.store import RegistryStore
from lading_server.registry.store.version_changes import find_links, hide_version, names_of, update_version

# How many aliases and links an error names.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Versions:
    """The rules of versions that are there. Every method is inside the entity of its caller."""

    settings: Settings
    store: RegistryStore

    async def get(self, caller: Caller, reference: VersionReference) -> VersionRow:
        """Resolve a reference. Raises CollectionNotFound, VersionNotFound."""
        entity_id = await self.store.entities.find(caller.entity)
        row = await self.store.versions.find(self.store.database, entity_id, reference)
        if row is not None:
            return row
        # It may be there by now; where it is not, this says what is missing.
        async with self.store.database.read() as connection:
            return await self.store.versions.resolve(connection, entity_id, reference)

    async def get_by_uid(self, caller: Caller, uid: bytes) -> VersionRow:
        """Find a version by its id. Raises VersionNotFound."""
        entity_id = await self.store.entities.find(caller.entity)
        async with self.store.database.read() as connection:
            return await self.store.versions.by_uid(connection, entity_id, uid)

    async def update(
        self,
        caller: Caller,
        reference: VersionReference,
        *,
        description: str | None = None,
        metadata: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        request_id: str = "",
    ) -> VersionRow:
        """Change a version's card, metadata and tags.

        Raises:
            InvalidName, InvalidMetadata, TextTooLong, TooManyItems, RequestIdReused: The request cannot be taken.
            CollectionNotFound, VersionNotFound: What the reference names is not there.
            WrongKind: It is a link, which has the card and the metadata of its source.
            AliasRequires: An alias requires what would go: see `check_still_there`.
        """
        if description is not None:
            description = check_description(description, self.settings.max_description_bytes)
        parsed = (
            None if metadata is None else parse_metadata(metadata, "metadata_json", self.settings.max_metadata_bytes)
        )
        add_tags = check_tags(self.settings, add_tags)
        remove_tags = sorted({check_tag(tag) for tag in remove_tags})
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint(
            "UpdateVersion",
            reference=str(reference),
            description=description,
            metadata=parsed and parsed.text,
            add=add_tags,
            remove=remove_tags,
        )
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return (await from_memory(change, self.store.versions, memory)).version
            row = await self.store.versions.resolve(change.connection, change.entity_id, reference)
            if row.source_uid is not None and (description is not None or parsed is not None):
                raise WrongKind(
                    f"{row.name} is a link and has the card and the metadata of {row.source}; change them there"
                )
            tags = changed_tags(self.settings, row.tags, add_tags, remove_tags)
            await update_version(change, row, description=description, metadata=parsed, tags=tags)
            is_other = parsed is not None and parsed.text != row.metadata
            before = json.loads(row.metadata) if is_other else None
            await check_still_there(change, row.id, set(row.tags) - set(tags), before)
            after = await self.store.versions.by_id(change.connection, row.id)
            await change.remember(request_id, asked, to_memory(Outcome(after)))
            return after

    async def delete(
        self, caller: Caller, reference: VersionReference, *, force: bool = False, request_id: str = ""
    ) -> VersionRow:
        """Hide a version; its pin is kept. Returns it as it was.

        Raises:
            InvalidName, RequestIdReused: The request cannot be taken.
            CollectionNotFound, VersionNotFound: What the reference names is not there.
            VersionInUse: Aliases other than `latest`, or links, point at it, and it is not forced.
            WrongKind: It is a link.
            AliasProtected: A protected alias points at it, or at a link to it, and the caller is no admin.
        """
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint("DeleteVersion", reference=str(reference), force=force)
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return (await from_memory(change, self.store.versions, memory)).version
            row = await self.store.versions.resolve(change.connection, change.entity_id, reference)
            if row.source_uid is not None:
                raise WrongKind(f"{row.name} is a link; unlink it instead")
            links = await find_links(change, row.id)
            if not force:
                check_unused(row, await names_of(change, links[:_NAMED]) if links else [])
            for link_id in links:
                await remove_version(change, await self.store.versions.by_id(change.connection, link_id))
            await remove_version(change, row)
            await change.remember(request_id, asked, to_memory(Outcome(row)))
            return row


def check_unused(row: VersionRow, links: Sequence[str] = ()) -> None:
    """Raise VersionInUse when links, or aliases other than `latest`, point at a version."""
    aliases = [alias for alias in row.aliases if alias != LATEST]
    if aliases or links:
        what = ", ".join([*aliases[:_NAMED], *links])
        raise VersionInUse(
            f"{row.name} is in use: {what} point at it; move them, or say force and they go with it",
            aliases=",".join(aliases[:_NAMED]),
            links=",".join(links),
        )


async def remove_version(change: Change, row: VersionRow) -> None:
    """Hide a version, or a link, with the aliases that point at it; `latest` moves to what is then the newest."""
    await take_aliases(change, row.collection_key, row.point, row.aliases)
    await hide_version(change, row)
    if LATEST in row.aliases:
        await give_latest(change, row.collection_key)
