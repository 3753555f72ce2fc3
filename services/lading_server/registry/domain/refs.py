"""Aliases and links, changed together or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lading_format.names import MODEL_REGISTRY, check_collection, check_request_id, check_run_id
from lading_format.references import VersionReference
from lading_server.common.callers import Caller
from lading_server.common.ids import uuid7
from lading_server.common.registry_errors import SourceDeleted, TypeMismatch, WrongKind
from lading_server.common.settings import Settings
from lading_server.registry.domain.aliases import AliasChange, change_aliases
from lading_server.registry.domain.fingerprints import fingerprint
from lading_server.registry.domain.limits import check_count
from lading_server.registry.domain.outcomes import Outcome, from_memory, to_memory
from lading_server.registry.domain.versions import check_unused, remove_version
from lading_server.registry.store.change import Change
from lading_server.registry.store.collection_changes import create_collection
from lading_server.registry.store.rows import CollectionHead, NewVersion, VersionRow
from lading_server.registry.store.schema import CollectionKind
from lading_server.registry.store.store import RegistryStore
from lading_server.registry.store.version_changes import add_version, find_links, find_run


@dataclass(frozen=True, slots=True)
class ChangeAliases:
    """Aliases to set to one version, or to remove from its collection."""

    reference: VersionReference
    aliases: tuple[AliasChange, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A version to number in a portfolio."""

    source: VersionReference
    portfolio: str
    aliases: tuple[AliasChange, ...] = ()
    run: str = ""


@dataclass(frozen=True, slots=True)
class Unlink:
    """A link to take away."""

    reference: VersionReference
    force: bool = False


RefChange: TypeAlias = ChangeAliases | Link | Unlink


@dataclass(frozen=True, slots=True)
class Refs:
    """The rules of aliases and links. Every method is inside the entity of its caller."""

    settings: Settings
    store: RegistryStore

    async def update(self, caller: Caller, changes: Sequence[RefChange], *, request_id: str = "") -> list[Outcome]:
        """Make changes, in this order, each seeing those before it; all of them or none.

        Returns the version whose aliases were changed, the link, or the link as it was before it was removed.

        Raises:
            InvalidName, TooManyItems, RequestIdReused: The request cannot be taken.
            CollectionNotFound, VersionNotFound, RunNotFound: What a change names is not there.
            AliasNotFound, AliasMoved: See `plan_moves`.
            TypeMismatch: A portfolio has another type than the source.
            WrongKind: What is to be unlinked is no link.
            VersionInUse: Aliases other than `latest` point at what is to be unlinked.
            AliasProtected, AliasRequires: See `hold_against`.
        """
        check_count(self.settings, sum(_weight(one) for one in changes), "max_ref_changes")
        for one in changes:
            _check(one)
        request_id = request_id and check_request_id(request_id)
        asked = fingerprint("UpdateRefs", changes=[_plain(one) for one in changes])
        async with self.store.change(caller) as change:
            memory = await change.recall(request_id, asked)
            if memory is not None:
                return [await from_memory(change, self.store.versions, one) for one in memory["results"]]
            outcomes = [await self._apply(change, one) for one in changes]
            await change.remember(request_id, asked, {"results": [to_memory(one) for one in outcomes]})
            return outcomes

    async def _apply(self, change: Change, one: RefChange) -> Outcome:
        match one:
            case ChangeAliases():
                row = await self._resolve(change, one.reference)
                await change_aliases(change, row.collection_key, row.point, one.aliases)
                return Outcome(await self.store.versions.by_id(change.connection, row.id))
            case Link():
                return await self._link(change, one)
            case Unlink():
                row = await self._resolve(change, one.reference)
                if row.source_uid is None:
                    raise WrongKind(f"{row.name} is no link; delete the version instead")
                if not one.force:
                    check_unused(row)
                await remove_version(change, row)
                return Outcome(row)

    async def _link(self, change: Change, link: Link) -> Outcome:
        source = await self._resolve(change, link.source)
        if source.source_id is not None:
            sources = await self.store.versions.by_ids(change.connection, [source.source_id])
            if not sources:
                # Its collection goes away as a whole, and the link with it in a moment.
                raise SourceDeleted(
                    f"{source.name} is a link, and {source.source}, which it points at, is deleted; undelete that",
                    source=source.source,
                )
            source = sources[source.source_id]
        run = await find_run(change, link.run) if link.run else None
        portfolio = await self._portfolio(change, link.portfolio, source.type)
        links = await find_links(change, source.id, portfolio.key.id)
        if links:
            point = (await self.store.versions.by_id(change.connection, links[0])).point
        else:
            new = NewVersion(
                uid=uuid7().bytes,
                tree_digest=source.tree_digest,
                file_count=source.file_count,
                reference_count=source.reference_count,
                size_bytes=source.size_bytes,
                run=run,
                source=source,
            )
            point = await add_version(change, portfolio.key, new)
        await change_aliases(change, portfolio.key, point, link.aliases, is_newest=not links)
        return Outcome(await self.store.versions.by_id(change.connection, point.id), created=not links)

    async def _portfolio(self, change: Change, name: str, type_: str) -> CollectionHead:
        portfolio = await self.store.collections.find(change, MODEL_REGISTRY, name)
        if portfolio is None:
            return await create_collection(change, MODEL_REGISTRY, name, CollectionKind.PORTFOLIO, type_)
        if portfolio.type != type_:
            raise TypeMismatch(
                f"{MODEL_REGISTRY}/{name} holds versions of type {portfolio.type!r} and the source is of type "
                f"{type_!r}; choose another portfolio",
                expected=portfolio.type,
                actual=type_,
            )
        return portfolio

    async def _resolve(self, change: Change, reference: VersionReference) -> VersionRow:
        return await self.store.versions.resolve(change.connection, change.entity_id, reference)


def _weight(one: RefChange) -> int:
    """Return how many aliases and links a change is about."""
    match one:
        case ChangeAliases():
            return max(1, len(one.aliases))
        case Link():
            return 1 + len(one.aliases)
        case Unlink():
            return 1


def _check(one: RefChange) -> None:
    if isinstance(one, Link):
        check_collection(MODEL_REGISTRY, one.portfolio)
        if one.run:
            check_run_id(one.run)
    if not isinstance(one, Unlink):
        for alias in one.aliases:
            alias.check()


def _plain(one: RefChange) -> list[Any]:
    """Return a change as values that JSON has."""
    match one:
        case ChangeAliases():
            return ["aliases", str(one.reference), [_alias(alias) for alias in one.aliases]]
        case Link():
            return ["link", str(one.source), one.portfolio, [_alias(alias) for alias in one.aliases], one.run]
        case Unlink():
            return ["unlink", str(one.reference), one.force]


def _alias(alias: AliasChange) -> list[Any]:
    return [alias.alias, alias.remove, alias.expected_number, alias.must_not_exist]
