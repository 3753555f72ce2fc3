"""Versions that are there: found, described and deleted. How they come back is in `undeleting`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lading_format.names import LATEST, check_request_id, check_tag
from lading_format.references import VersionReference
from lading_server.common.callers import Caller
from lading_server.common.registry_errors import CollectionNotFound, VersionInUse, VersionNotFound, WrongKind
from lading_server.common.settings import Settings
from lading_server.registry.domain.alias_rules import check_still_there
from lading_server.registry.domain.aliases import settle_latest, take_aliases
from lading_server.registry.domain.documents import check_description, parse_metadata
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.gone import explained, find_once, gone_by_uid
from lading_server.registry.domain.limits import changed_tags, check_tags
from lading_server.registry.domain.outcomes import Outcome, from_memory, to_memory
from lading_server.registry.domain.time_to_live import check_sooner, check_ttl, end_of
from lading_server.registry.store.change import Change
from lading_server.registry.store.deletions import hide_versions, purge_versions
from lading_server.registry.store.rows import AliasMove, CollectionKey, Expiry, VersionRow
from lading_server.registry.store.schema import VersionState
from lading_server.registry.store.store import RegistryStore
from lading_server.registry.store.version_changes import find_links, names_of, update_version

# How many aliases and links an error names.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Versions:
    """The rules of versions that are there. Every method is inside the entity of its caller."""

    settings: Settings
    store: RegistryStore
    # Told that something was deleted, and whether it was purged too.
    on_delete: Callable[[bool], object] = lambda _: None

    async def get(self, caller: Caller, reference: VersionReference) -> VersionRow:
        """Resolve a reference.

        Raises:
            CollectionNotFound, VersionNotFound: It is not there; they say until when what was deleted can be undeleted.
        """
        entity_id = await self.store.entities.find(caller.entity)
        row = await self.store.versions.find(self.store.database, entity_id, reference)
        if row is not None:
            return row
        # It may be there by now; where it is not, this says what is missing.
        async with self.store.database.read() as connection:
            try:
                return await self.store.versions.resolve(connection, entity_id, reference)
            except (CollectionNotFound, VersionNotFound) as error:
                raise await explained(self.settings, self.store, connection, entity_id, reference, error) from None

    async def get_by_uid(self, caller: Caller, uid: bytes) -> VersionRow:
        """Find a version by its id. Raises VersionNotFound, as `get` does."""
        entity_id = await self.store.entities.find(caller.entity)
        async with self.store.database.read() as connection:
            try:
                return await self.store.versions.by_uid(connection, entity_id, uid)
            except VersionNotFound as error:
                raise await gone_by_uid(self.settings, self.store, connection, entity_id, uid, error) from None

    async def update(
        self,
        caller: Caller,
        reference: VersionReference,
        *,
        description: str | None = None,
        metadata: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        ttl_seconds: int | None = None,
        request_id: str = "",
    ) -> VersionRow:
        """Change a version's card, metadata, tags and time to live.

        Raises:
            InvalidName, InvalidMetadata, TextTooLong, TooManyItems, InvalidRange, RequestIdReused: The request cannot
                be taken.
            CollectionNotFound, VersionNotFound: What the reference names is not there.
            WrongKind: It is a link, which has the card and the metadata of its source, and no time to live.
            RoleDenied: It would go sooner, and the caller is no admin: see `check_sooner`.
            AliasRequires: An alias requires what would go: see `check_still_there`.
        """
        if description is not None:
            description = check_description(description, self.settings.max_description_bytes)
        parsed = (
            None if metadata is None else parse_metadata(metadata, "metadata_json", self.settings.max_metadata_bytes)
        )
        add_tags = check_tags(self.settings, add_tags)
        remove_tags = sorted({check_tag(tag) for tag in remove_tags})
        check_ttl(ttl_seconds)
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint(
            "UpdateVersion",
            reference=str(reference),
            description=description,
            metadata=parsed and parsed.text,
            add=add_tags,
            remove=remove_tags,
            ttl=ttl_seconds,
        )
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return (await from_memory(change, self.store.versions, memory)).version
            row = await self.store.versions.resolve(change.connection, change.entity_id, reference)
            asks_of_source = (description, parsed, ttl_seconds) != (None, None, None)
            if row.source_uid is not None and asks_of_source:
                raise WrongKind(
                    f"{row.name} is a link and has card, metadata and time to live of {row.source}; change them there"
                )
            tags = changed_tags(self.settings, row.tags, add_tags, remove_tags)
            expiry = None if ttl_seconds is None else Expiry(end_of(ttl_seconds, change.now_ms))
            check_sooner(caller, row, expiry)
            await update_version(change, row, description=description, metadata=parsed, tags=tags, expiry=expiry)
            is_other = parsed is not None and parsed.text != row.metadata
            before = json.loads(row.metadata) if is_other else None
            await check_still_there(change, row.id, set(row.tags) - set(tags), before)
            after = await self.store.versions.by_id(change.connection, row.id)
            await change.remember(request_id, asked, to_memory(Outcome(after)))
            return after

    async def delete(
        self,
        caller: Caller,
        reference: VersionReference,
        *,
        force: bool = False,
        purge: bool = False,
        request_id: str = "",
    ) -> VersionRow:
        """Hide a version; its pin is kept until it is purged. Returns it as it was.

        Args:
            force: Although aliases or links point at it; they go with it.
            purge: Give it up for ever at once, and the links that go with it. Also one that was deleted before.

        Raises:
            InvalidName, RequestIdReused: The request cannot be taken.
            CollectionNotFound, VersionNotFound: What the reference names is not there.
            VersionInUse: Aliases other than `latest`, or links, point at it, and it is not forced.
            WrongKind: It is a link.
            AliasProtected: A protected alias points at it, or at a link to it, and the caller is no admin.
        """
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint("DeleteVersion", reference=str(reference), force=force, purge=purge)
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return (await from_memory(change, self.store.versions, memory)).version
            row = await self._to_delete(change, reference, purge=purge)
            if row.source_uid is not None and row.state is VersionState.LIVE:
                raise WrongKind(f"{row.name} is a link; unlink it instead")
            gone = [row]
            if row.state is VersionState.LIVE:
                links = await find_links(change, row.id)
                if not force:
                    check_unused(row, await names_of(change, links[:_NAMED]) if links else [])
                gone = [*await self.store.versions.once_by_ids(change.connection, links), row]
                await remove_versions(change, gone)
            if purge:
                await purge_versions(change, gone)
            await change.remember(request_id, asked, to_memory(Outcome(row)))
        self.on_delete(purge)
        return row

    async def _to_delete(self, change: Change, reference: VersionReference, *, purge: bool) -> VersionRow:
        """Return the version that is meant: for ever, a deleted one may be."""
        try:
            return await self.store.versions.resolve(change.connection, change.entity_id, reference)
        except (CollectionNotFound, VersionNotFound):
            row = await find_once(self.store, change.connection, change.entity_id, reference)
            if purge and row is not None and row.state is VersionState.DELETED:
                return row
            raise


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


async def remove_version(change: Change, row: VersionRow, why: str = "") -> None:
    """Hide a version, or a link, with the aliases that point at it; `latest` moves to what is then the newest.

    Args:
        why: See `hide_versions`.
    """
    await remove_versions(change, [row], why=why)


async def remove_versions(
    change: Change,
    rows: Sequence[VersionRow],
    deletions: Sequence[int] | None = None,
    *,
    at_ms: int | None = None,
    leaving: int | None = None,
    why: str = "",
) -> None:
    """Hide versions and links with the aliases that point at them; `latest` moves to what is then the newest.

    Args:
        rows: Live ones. The links to a version have to be among them.
        deletions: What each goes with, in the same order; None where all go together. See `Change.next_revision`.
        at_ms: From when they can be undeleted for a time; None for now.
        leaving: The row of a collection that goes away as a whole: its `latest` needs no other place.
        why: See `hide_versions`.

    Raises:
        AliasProtected: A protected alias points at one of them, and the caller is no admin.
    """
    if deletions is None:
        deletions = [change.next_revision] * len(rows)
    without_latest = []
    for key, members in _by_collection(rows).items():
        moves = [AliasMove(alias, row.point, None) for row in members for alias in row.aliases]
        await take_aliases(change, key, moves)
        if key.id != leaving and any(move.alias == LATEST for move in moves):
            without_latest.append(key)
    await hide_versions(change, rows, deletions, at_ms, why)
    for key in without_latest:
        await settle_latest(change, key)


def _by_collection(rows: Sequence[VersionRow]) -> dict[CollectionKey, list[VersionRow]]:
    found: dict[CollectionKey, list[VersionRow]] = {}
    for row in rows:
        found.setdefault(row.collection_key, []).append(row)
    return found
