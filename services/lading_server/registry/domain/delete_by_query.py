"""Versions that are deleted because a query finds them: a page, one change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from lading_format.names import LATEST, check_collection, check_project, check_request_id
from lading_server.common.callers import Caller
from lading_server.common.page_tokens import make_token, open_token, page_limit
from lading_server.common.registry_errors import InvalidQuery
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.pages import PageRequest
from lading_server.registry.domain.queries import parse_query
from lading_server.registry.domain.versions import remove_versions
from lading_server.registry.store.alias_rules import find_rules
from lading_server.registry.store.change import Change
from lading_server.registry.store.conditions import Condition, Field, Operator, Order
from lading_server.registry.store.deletions import link_counts, links_to, purge_versions
from lading_server.registry.store.rows import VersionRow
from lading_server.registry.store.scan import Hits, Position
from lading_server.registry.store.schema import VersionState
from lading_server.registry.store.store import RegistryStore

_PAGE_SIZE = 200
# Versions of one change: some ten milliseconds of SQLite's one writer.
_MOST_VERSIONS = 500
# Links to the versions of one page; a version whose links find no place is left as linked, for the next time.
_MOST_LINKS = 2_000
# How many aliases and links a result names.
_NAMED = 10
# So that `latest` moves once, and not with every page.
_OLDEST_FIRST = Order(Field.CREATED)


class DeleteOutcome(StrEnum):
    """What became of a version that matched: deleted, or why it was left."""

    DELETED = "deleted"
    HAS_ALIAS = "has_alias"
    HAS_LINK = "has_link"
    PROTECTED = "protected"
    IS_LINK = "is_link"


class DeleteQuery(NamedTuple):
    """What is to be deleted; an empty collection is any."""

    query: str
    project: str = ""
    collection: str = ""
    force: bool = False
    purge: bool = False
    dry_run: bool = False


class DeleteResult(NamedTuple):
    """A version as it was, what became of it, and what kept it: aliases or links, the first ten."""

    version: VersionRow
    outcome: DeleteOutcome
    used_by: tuple[str, ...] = ()


class DeletePage(NamedTuple):
    """What was looked at, and the token of the next page; empty when this is the last."""

    results: list[DeleteResult]
    token: str


@dataclass(frozen=True, slots=True)
class DeleteByQuery:
    """The rules of deleting by a query. Every method is inside the entity of its caller.

    What matches is looked up before the change, which takes long where little does, and looked at again inside it.
    """

    store: RegistryStore
    # Told that something was deleted, and whether it was purged too.
    on_delete: Callable[[bool], object]

    async def page(self, caller: Caller, wanted: DeleteQuery, page: PageRequest, request_id: str = "") -> DeletePage:
        """Delete, or say that it would be, what matches on one page; all of it or nothing.

        Raises:
            InvalidName, InvalidQuery, InvalidPageSize, InvalidPageToken, RequestIdReused: The request cannot be taken.
            CollectionNotFound: The entity has no such collection.
        """
        request_id = request_id and check_request_id(request_id)
        conditions = _conditions(wanted)
        scope = (caller.entity, "DeleteVersions", *wanted)
        limit = page_limit(page.size, _PAGE_SIZE, _MOST_VERSIONS)
        position = open_token(page.token, scope)
        hits = await self._search(caller, wanted, conditions, None if position is None else tuple(position), limit)
        asked = fingerprint("DeleteVersions", **wanted._asdict(), size=page.size, token=page.token)
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return await self._remembered(change, memory)
            ids = [hit.row_id for hit in hits.hits]
            ids = await self.store.search.still(change.connection, change.entity_id, conditions, ids) if ids else []
            results, gone = await self._plan(change, ids, force=wanted.force)
            token = "" if hits.next is None else make_token(scope, hits.next)
            if not wanted.dry_run:
                await self._delete(change, gone, purge=wanted.purge)
                await change.remember(request_id, asked, _to_memory(results, token))
        if gone and not wanted.dry_run:
            self.on_delete(wanted.purge)
        return DeletePage(results, token)

    async def _search(
        self, caller: Caller, wanted: DeleteQuery, conditions: Sequence[Condition], after: Position | None, limit: int
    ) -> Hits:
        entity_id = await self.store.entities.find(caller.entity)
        async with self.store.database.read() as connection:
            if wanted.collection:
                lists = self.store.lists
                await lists.collection_id(connection, entity_id, wanted.project, wanted.collection)
            if entity_id is None:
                return Hits([], None)
            return await self.store.search.page(connection, entity_id, conditions, _OLDEST_FIRST, after, limit)

    async def _plan(
        self, change: Change, ids: Sequence[int], *, force: bool
    ) -> tuple[list[DeleteResult], list[list[VersionRow]]]:
        """Return what becomes of each version, and those that go, each after the links that go with it."""
        rows = await self.store.versions.once_by_ids(change.connection, ids)
        counts = await link_counts(change, ids)
        links = await self._links(change, counts)
        guarded = await _protected(change, [*rows, *(link for found in links.values() for link in found)])
        results, gone = [], []
        for row in rows:
            pointing = links.get(row.id, [])
            is_whole = len(pointing) == counts.get(row.id, 0)
            result = (
                _judge(row, pointing, guarded, force=force) if is_whole else DeleteResult(row, DeleteOutcome.HAS_LINK)
            )
            results.append(result)
            if result.outcome is DeleteOutcome.DELETED:
                gone.append([*pointing, row])
        return results, gone

    async def _links(self, change: Change, counts: Mapping[int, int]) -> dict[int, list[VersionRow]]:
        """Return the links to versions, by the rows of these; of so many versions as find place with all theirs."""
        room, sources = _MOST_LINKS, []
        for source, count in counts.items():
            if count <= room:
                sources.append(source)
                room -= count
        found: dict[int, list[VersionRow]] = defaultdict(list)
        edges = await links_to(change, sources, _MOST_LINKS) if sources else []
        for at in range(0, len(edges), _MOST_VERSIONS):
            some = [edge.link_id for edge in edges[at : at + _MOST_VERSIONS]]
            for link in await self.store.versions.once_by_ids(change.connection, some):
                found[link.source_id or 0].append(link)
        return found

    async def _delete(self, change: Change, gone: Sequence[Sequence[VersionRow]], *, purge: bool) -> None:
        # Each makes an event at least, so the change has a revision for each.
        first = change.next_revision
        rows = [row for together in gone for row in together]
        deletions = [first + at for at, together in enumerate(gone) for _ in together]
        await remove_versions(change, rows, deletions)
        if purge:
            await purge_versions(change, rows)

    async def _remembered(self, change: Change, memory: dict[str, Any]) -> DeletePage:
        results = []
        for one in memory["results"]:
            row = await self.store.versions.once(change.connection, change.entity_id, bytes.fromhex(one["uid"]))
            if row is None:
                raise AssertionError(f"version {one['uid']} was answered once and has no row")
            was = row._replace(
                aliases=tuple(one["aliases"]),
                tags=tuple(one["tags"]),
                description="",
                metadata="",
                state=VersionState.LIVE,
                deleted_at_ms=None,
                deletion=None,
            )
            results.append(DeleteResult(was, DeleteOutcome(one["outcome"]), tuple(one["used_by"])))
        return DeletePage(results, memory["token"])


def _conditions(wanted: DeleteQuery) -> tuple[Condition, ...]:
    conditions = parse_query(wanted.query)
    if wanted.collection:
        check_collection(check_project(wanted.project), wanted.collection)
        inside = (
            Condition(Field.PROJECT, Operator.EQUAL, wanted.project),
            Condition(Field.NAME, Operator.EQUAL, wanted.collection),
        )
        return (*inside, *conditions)
    if not conditions:
        raise InvalidQuery("an empty query would delete everything; write a query, or name a collection", position="0")
    return conditions


def _judge(
    row: VersionRow, links: Sequence[VersionRow], guarded: Mapping[int, Sequence[str]], *, force: bool
) -> DeleteResult:
    """Return what becomes of a version that matched. Pure."""
    if row.source_id is not None:
        return DeleteResult(row, DeleteOutcome.IS_LINK)
    protected = [alias for one in (row, *links) for alias in guarded.get(one.id, ())]
    if protected:
        return DeleteResult(row, DeleteOutcome.PROTECTED, tuple(protected[:_NAMED]))
    aliases = [alias for alias in row.aliases if alias != LATEST]
    if aliases and not force:
        return DeleteResult(row, DeleteOutcome.HAS_ALIAS, tuple(aliases[:_NAMED]))
    if links and not force:
        return DeleteResult(row, DeleteOutcome.HAS_LINK, tuple(link.name for link in links[:_NAMED]))
    return DeleteResult(row, DeleteOutcome.DELETED)


async def _protected(change: Change, rows: Iterable[VersionRow]) -> dict[int, list[str]]:
    """Return the protected aliases that point at each version, by the numbers of their rows."""
    by_collection: dict[tuple[str, str], list[VersionRow]] = defaultdict(list)
    for row in rows:
        if any(alias != LATEST for alias in row.aliases):
            by_collection[row.project, row.collection].append(row)
    found: dict[int, list[str]] = {}
    for (project, collection), members in by_collection.items():
        names = {alias for row in members for alias in row.aliases}
        rules = await find_rules(change, project, collection, names)
        protected = {rule.alias for rule in rules if rule.is_protected}
        for row in members:
            if kept := sorted(protected & set(row.aliases)):
                found[row.id] = kept
    return found


def _to_memory(results: Sequence[DeleteResult], token: str) -> dict[str, Any]:
    told = [
        {
            "uid": one.version.uid.hex(),
            "outcome": one.outcome.value,
            "used_by": list(one.used_by),
            "aliases": list(one.version.aliases),
            "tags": list(one.version.tags),
        }
        for one in results
    ]
    return {"results": told, "token": token}
