"""What is said of versions and collections that are not there any more: until when they can be had back."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from lading_format.references import VersionReference
from lading_server.common.registry_errors import CollectionNotFound, VersionNotFound
from lading_server.common.settings import Settings
from lading_server.registry.store.rows import CollectionRow, VersionRow
from lading_server.registry.store.schema import CollectionState, VersionState
from lading_server.registry.store.store import RegistryStore


def purge_at_ms(settings: Settings, deleted_at_ms: int) -> int:
    """Return until when what was deleted can be undeleted."""
    return deleted_at_ms + int(settings.undelete_seconds * 1000)


async def find_once(
    store: RegistryStore, connection: AsyncConnection, entity_id: int | None, ref: VersionReference
) -> VersionRow | None:
    """Return the version of a number or a tree, deleted or not; None where there is none, or an alias is meant."""
    if ref.number is None and ref.digest is None:
        return None
    collection = await store.collections.once_named(connection, entity_id, ref.project, ref.collection)
    if collection is None:
        return None
    return await store.versions.once_named(connection, collection.id, number=ref.number, digest=ref.digest)


async def explained(
    settings: Settings,
    store: RegistryStore,
    connection: AsyncConnection,
    entity_id: int | None,
    ref: VersionReference,
    error: CollectionNotFound | VersionNotFound,
) -> CollectionNotFound | VersionNotFound:
    """Return the error for a reference that means nothing, with what became of it where something did."""
    row = await find_once(store, connection, entity_id, ref)
    if row is not None and row.state is not VersionState.LIVE:
        return version_gone(settings, row)
    collection = await store.collections.once_named(connection, entity_id, ref.project, ref.collection)
    if isinstance(error, CollectionNotFound) and collection is not None:
        return collection_gone(settings, collection)
    return error


async def gone_by_uid(
    settings: Settings,
    store: RegistryStore,
    connection: AsyncConnection,
    entity_id: int | None,
    uid: bytes,
    error: VersionNotFound,
) -> VersionNotFound:
    """Return the error for an id of no version, with what became of it where something did."""
    row = None if entity_id is None else await store.versions.once(connection, entity_id, uid)
    return error if row is None or row.state is VersionState.LIVE else version_gone(settings, row)


def version_gone(settings: Settings, row: VersionRow) -> VersionNotFound:
    """Return the error for a version that was deleted or purged."""
    if row.state is VersionState.PURGED or row.deleted_at_ms is None:
        return VersionNotFound(
            f"{row.name} was purged: it was deleted, and cannot be undeleted any more; commit its content again",
            reference=row.name,
            state=VersionState.PURGED.value,
        )
    until = _moment(purge_at_ms(settings, row.deleted_at_ms))
    return VersionNotFound(
        f"{row.name} was deleted at {_moment(row.deleted_at_ms)}; it can be undeleted until {until}",
        reference=row.name,
        state=VersionState.DELETED.value,
        purge_at=until,
    )


def collection_gone(settings: Settings, row: CollectionRow) -> CollectionNotFound:
    """Return the error for a collection that was deleted or purged."""
    name = f"{row.project}/{row.name}"
    if row.deletion is None or row.deleted_at_ms is None or row.state is CollectionState.PURGING:
        return CollectionNotFound(
            f"{name} was deleted and purged, and cannot be undeleted any more; it can be made anew",
            project=row.project,
            collection=row.name,
            state=VersionState.PURGED.value,
        )
    until = _moment(purge_at_ms(settings, row.deleted_at_ms))
    return CollectionNotFound(
        f"{name} was deleted at {_moment(row.deleted_at_ms)}; it can be undeleted until {until}",
        project=row.project,
        collection=row.name,
        state=VersionState.DELETED.value,
        purge_at=until,
    )


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
