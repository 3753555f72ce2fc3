"""The rows and events of what changes versions. Each function does both, so that neither is forgotten."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lading_format.digest import format_digest
from lading_server.common.direct import leave, row_of
from lading_server.common.registry_errors import RunNotFound
from lading_server.registry.store.change import Change
from lading_server.registry.store.rows import (
    CollectionKey,
    Expiry,
    Metadata,
    NewVersion,
    RunKey,
    VersionPoint,
    VersionRow,
)
from lading_server.registry.store.schema import (
    VersionState,
    collections,
    has_state,
    is_there,
    projects,
    run_outputs,
    runs,
    version_fields,
    version_tags,
    versions,
)

# Made once: to make a statement costs more than to run it.
_FIND_RUN = sa.select(runs.c.id).where(
    runs.c.entity_id == sa.bindparam("entity"), runs.c.name == sa.bindparam("run_name")
)
_ADD_VERSION = sa.insert(versions).returning(versions.c.id)
_ADD_FIELDS = sa.insert(version_fields)
_ADD_TAGS = sa.insert(version_tags)
_NEXT_NUMBER = (
    sa.update(collections)
    .where(collections.c.id == sa.bindparam("of_collection"))
    .values(
        next_number=collections.c.next_number + 1,
        version_count=collections.c.version_count + 1,
        updated_at_ms=sa.bindparam("now_ms"),
    )
    .returning(collections.c.next_number)
)


async def find_run(change: Change, name: str) -> RunKey:
    """Return a run. Raises RunNotFound."""
    row = await row_of(change.connection, _FIND_RUN, {"entity": change.entity_id, "run_name": name})
    if row is None:
        raise RunNotFound(f"there is no run {name!r}; create it first, or leave run_id empty", run_id=name)
    return RunKey(row.id, name)


async def find_links(change: Change, source_id: int, portfolio_id: int | None = None) -> list[int]:
    """Return the rows of the live links to a version, of one portfolio or of all, in the order they were made."""
    query = (
        sa.select(versions.c.id)
        .join(collections, collections.c.id == versions.c.collection_id)
        .where(versions.c.source_id == source_id, has_state(versions, VersionState.LIVE), is_there(collections))
    )
    if portfolio_id is not None:
        query = query.where(versions.c.collection_id == portfolio_id)
    return list((await change.connection.scalars(query.order_by(versions.c.id))).all())


async def add_version(change: Change, key: CollectionKey, new: NewVersion) -> VersionPoint:
    """Give a version, or a link, its collection's next number."""
    number = await _next_number(change, key)
    source = new.source
    row: dict[str, Any] = {
        "uid": new.uid,
        "entity_id": change.entity_id,
        "collection_id": key.id,
        "number": number,
        "state": VersionState.LIVE.value,
        "tree_digest": new.tree_digest,
        "file_count": new.file_count,
        "reference_count": new.reference_count,
        "size_bytes": new.size_bytes,
        "description": new.description,
        "metadata": new.metadata.text,
        "created_at_ms": change.now_ms,
        "created_by": change.caller.principal,
        "run_id": new.run.id if new.run is not None else None,
        "source_id": source.id if source is not None else None,
        "expires_at_ms": new.expires_at_ms,
    }
    added = await row_of(change.connection, _ADD_VERSION, row)
    point = VersionPoint(added.id, new.uid, number)
    await _add_fields(change, point.id, new.metadata.fields)
    await _add_tags(change, point.id, new.tags)
    after: dict[str, Any] = {
        "number": number,
        "tree_digest": format_digest(new.tree_digest),
        "file_count": new.file_count,
        "reference_count": new.reference_count,
        "size_bytes": new.size_bytes,
        "tags": list(new.tags),
    }
    if source is None:
        after |= {"description": new.description, "metadata": new.metadata.value}
    else:
        after |= {"source": source.name, "source_uid": source.uid.hex()}
    if new.expires_at_ms is not None:
        after["expires_at_ms"] = new.expires_at_ms
    change.add_event(
        "version.committed" if source is None else "version.linked",
        key.project,
        collection=key.name,
        version_uid=new.uid,
        run=new.run.name if new.run is not None else "",
        after=after,
    )
    return point


async def add_output(change: Change, key: CollectionKey, point: VersionPoint, run: RunKey, *, is_new: bool) -> None:
    """Keep that a run logged a version.

    Where the version was there already, that is an event of its own: committed again, with the version before and
    after. Makes none where the run logged it before.
    """
    new = change.database.insert(run_outputs).values(run_id=run.id, version_id=point.id, logged_at_ms=change.now_ms)
    added = await change.connection.execute(new.on_conflict_do_nothing().returning(run_outputs.c.version_id))
    if added.one_or_none() is not None and not is_new:
        same = {"number": point.number}
        change.add_event(
            "version.committed",
            key.project,
            collection=key.name,
            version_uid=point.uid,
            run=run.name,
            before=same,
            after=same,
        )
        change.touch(key.id)


async def update_version(
    change: Change,
    row: VersionRow,
    *,
    description: str | None = None,
    metadata: Metadata | None = None,
    tags: Sequence[str] | None = None,
    expiry: Expiry | None = None,
) -> None:
    """Give a version another card, other metadata, tags or end. Makes no event where nothing is different."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    values: dict[str, Any] = {}
    if expiry is not None and expiry.at_ms != row.expires_at_ms:
        before["expires_at_ms"], after["expires_at_ms"] = row.expires_at_ms, expiry.at_ms
        values["expires_at_ms"] = expiry.at_ms
    if description is not None and description != row.description:
        before["description"], after["description"] = row.description, description
        values["description"] = description
    if metadata is not None and metadata.text != row.metadata:
        before["metadata"], after["metadata"] = json.loads(row.metadata), metadata.value
        values["metadata"] = metadata.text
        await change.connection.execute(sa.delete(version_fields).where(version_fields.c.version_id == row.id))
        await _add_fields(change, row.id, metadata.fields)
    if values:
        await change.connection.execute(sa.update(versions).where(versions.c.id == row.id).values(values))
    if tags is not None and tuple(tags) != row.tags:
        before["tags"], after["tags"] = list(row.tags), list(tags)
        await change.connection.execute(sa.delete(version_tags).where(version_tags.c.version_id == row.id))
        await _add_tags(change, row.id, tags)
    if after:
        change.add_event(
            "version.updated",
            row.project,
            collection=row.collection,
            version_uid=row.uid,
            before=before,
            after=after,
        )
        change.touch(row.collection_id)


async def names_of(change: Change, ids: Sequence[int]) -> list[str]:
    """Return `project/collection:vN` of each of these rows."""
    query = (
        sa.select(projects.c.name, collections.c.name, versions.c.number)
        .select_from(versions)
        .join(collections, collections.c.id == versions.c.collection_id)
        .join(projects, projects.c.id == collections.c.project_id)
        .where(versions.c.id.in_(ids))
        .order_by(versions.c.id)
    )
    return [f"{project}/{name}:v{number}" for project, name, number in await change.connection.execute(query)]


async def _next_number(change: Change, key: CollectionKey) -> int:
    change.stamped(key.id)
    now = {"of_collection": key.id, "now_ms": change.now_ms}
    return int((await row_of(change.connection, _NEXT_NUMBER, now)).next_number) - 1


async def _add_fields(change: Change, version_id: int, fields: Mapping[str, float | str]) -> None:
    if fields:
        rows = [
            {
                "version_id": version_id,
                "key": key,
                "entity_id": change.entity_id,
                "number": None if isinstance(value, str) else value,
                "text": value if isinstance(value, str) else None,
            }
            for key, value in fields.items()
        ]
        await leave(change.connection, _ADD_FIELDS, rows)


async def _add_tags(change: Change, version_id: int, tags: Sequence[str]) -> None:
    if tags:
        rows = [{"version_id": version_id, "tag": tag, "entity_id": change.entity_id} for tag in tags]
        await leave(change.connection, _ADD_TAGS, rows)
