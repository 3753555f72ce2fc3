"""The client for code without an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

import lading._client as native
import lading._registry.models as native_models
from lading._check import CheckEvent
from lading._maintenance.models import EntityCollection, Explanation, GarbageProgress, LastCollection
from lading._model import Reference, StrPath, Usage
from lading._progress import ProgressCallback
from lading._registry.access_models import AliasRule, EntityInfo, Key, Member, MemberKind, NewKey, Role
from lading._registry.models import (
    NO_BELIEFS,
    AuditReport,
    Beliefs,
    Collection,
    CollectionProgress,
    Event,
    Identity,
    MetricPoint,
    Project,
    ProjectProgress,
    RunInfo,
    SupportsEntries,
)
from lading._registry.retention_models import BestOrder, RetentionApplied, RetentionRule, RetentionVerdict
from lading._retry import RetryPolicy
from lading._version import Version as NativeVersion
from lading.sync._items import Items
from lading.sync._loop import run
from lading.sync._models import (
    Committed,
    DeleteResult,
    Lineage,
    RefChange,
    RefResult,
    RunDetails,
    Undeleted,
    native_change,
)
from lading.sync._version import Version, native_of


class Client:
    """Resolves, lists, searches, changes and fetches versions of a Lading server. See `lading.Client`.

    A context manager. Any number of threads may use it. Listings are iterators that read ahead a little.

    Attributes:
        native: The same for code with an event loop. It belongs to the background loop.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        entity: str | None = None,
        project: str | None = None,
        ca_file: StrPath | None = None,
        client_cert: StrPath | None = None,
        client_key: StrPath | None = None,
        retry: RetryPolicy | float = 120.0,
    ) -> None:
        """Make a client. See `lading.Client`."""
        self.native = native.Client(
            url,
            api_key=api_key,
            entity=entity,
            project=project,
            ca_file=ca_file,
            client_cert=client_cert,
            client_key=client_key,
            retry=retry,
        )

    @classmethod
    def of(cls, client: native.Client) -> Client:
        """Return the same client for code without an event loop."""
        self = cls.__new__(cls)
        self.native = client
        return self

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        run(self.native.close())

    def whoami(self) -> Identity:
        """Return whom the key belongs to. See `lading.Client.whoami`."""
        return run(self.native.whoami())

    def usage(self) -> Usage:
        """Return how much the client's entity stores, and how much it may. See `lading.Client.usage`."""
        return run(self.native.usage())

    def check(
        self, level: int = 1, *, restart: bool = False, entity: str | None = None, max_bytes: int = 0
    ) -> Items[CheckEvent]:
        """Look for damage in the store, and iterate over what is told. See `lading.Client.check`."""
        # One at a time: what is told is about this moment, and may be long in coming.
        checking = self.native.check(level, restart=restart, entity=entity, max_bytes=max_bytes)
        return Items(checking, at_once=1)

    def version(self, reference: str | Version) -> Version:
        """Return the version that a reference means now. See `lading.Client.version`."""
        return Version.of(run(self.native.version(native_of(reference))))

    def versions(self, collection: str, deleted: bool = False) -> Items[Version]:
        """Iterate over the versions of a collection, the newest first. See `lading.Client.versions`."""
        return Items(_versions(self.native.versions(collection, deleted)))

    def search(self, query: str = "", order_by: str = "") -> Items[Version]:
        """Iterate over versions of any collection that match. See `lading.Client.search`."""
        return Items(_versions(self.native.search(query, order_by)))

    def collection(self, name: str) -> Collection:
        """Return a collection. See `lading.Client.collection`."""
        return run(self.native.collection(name))

    def collections(self, project: str | None = None, query: str = "", deleted: bool = False) -> Items[Collection]:
        """Iterate over collections. See `lading.Client.collections`."""
        return Items(self.native.collections(project, query, deleted))

    def projects(self) -> Items[Project]:
        """Iterate over the entity's projects. See `lading.Client.projects`."""
        return Items(self.native.projects())

    def lineage(self, reference: str | Version, direction: str = "both", depth: int = 10) -> Lineage:
        """Return what a version came from and what came from it. See `lading.Client.lineage`."""
        return Lineage.of(run(self.native.lineage(native_of(reference), direction, depth)))

    def run(self, run_id: str) -> RunDetails:
        """Return a run, with what it measured, used and made. See `lading.Client.run`."""
        return RunDetails.of(run(self.native.run(run_id)))

    def runs(self, project: str | None = None) -> Items[RunInfo]:
        """Iterate over runs, the newest first. See `lading.Client.runs`."""
        return Items(self.native.runs(project))

    def metrics(
        self, run_id: str, key: str, max_points: int = 1000, min_step: int = 0, max_step: int | None = None
    ) -> list[MetricPoint]:
        """Return what a run measured under one key. See `lading.Client.metrics`."""
        return run(self.native.metrics(run_id, key, max_points, min_step, max_step))

    def events(
        self,
        project: str | None = None,
        collection: str | None = None,
        version: str | Version | None = None,
        after_revision: int = 0,
        newest_first: bool = False,
    ) -> Items[Event]:
        """Iterate over what changed, in order. See `lading.Client.events`."""
        about = None if version is None else native_of(version)
        return Items(self.native.events(project, collection, about, after_revision, newest_first))

    def verify_audit(self, from_sequence: int | None = None, from_hash: str | None = None) -> AuditReport:
        """Tell whether all events of the entity are those that were written. See `lading.Client.verify_audit`."""
        return run(self.native.verify_audit(from_sequence, from_hash))

    def put(
        self,
        source: StrPath | Mapping[str, StrPath | Reference] | SupportsEntries,
        name: str,
        *,
        type: str,  # noqa: A002 - the word of the whole trade
        aliases: Sequence[str] = (),
        remove_aliases: Sequence[str] = (),
        tags: Sequence[str] = (),
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        expected: Beliefs = NO_BELIEFS,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        on_progress: ProgressCallback | None = None,
        ttl: timedelta | None = None,
    ) -> Committed:
        """Store files and give them a number in a collection. See `lading.Client.put`."""
        putting = self.native.put(
            source,
            name,
            type=type,
            aliases=aliases,
            remove_aliases=remove_aliases,
            tags=tags,
            description=description,
            metadata=metadata,
            run_id=run_id,
            expected=expected,
            include=include,
            exclude=exclude,
            on_progress=on_progress,
            ttl=ttl,
        )
        return Committed.of(run(putting))

    def commit(
        self,
        tree_digest: str,
        name: str,
        *,
        type: str,  # noqa: A002 - the word of the whole trade
        aliases: Sequence[str] = (),
        remove_aliases: Sequence[str] = (),
        tags: Sequence[str] = (),
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        expected: Beliefs = NO_BELIEFS,
        ttl: timedelta | None = None,
    ) -> Committed:
        """Give a tree that is stored a number in a collection. See `lading.Client.commit`."""
        committing = self.native.commit(
            tree_digest,
            name,
            type=type,
            aliases=aliases,
            remove_aliases=remove_aliases,
            tags=tags,
            description=description,
            metadata=metadata,
            run_id=run_id,
            expected=expected,
            ttl=ttl,
        )
        return Committed.of(run(committing))

    def set_aliases(
        self,
        reference: str | Version,
        set: Sequence[str] = (),  # noqa: A002 - reads as what it does where it is called
        remove: Sequence[str] = (),
        expected: Beliefs = NO_BELIEFS,
    ) -> Version:
        """Point aliases at a version, or remove them. See `lading.Client.set_aliases`."""
        return Version.of(run(self.native.set_aliases(native_of(reference), set, remove, expected)))

    def link(
        self,
        reference: str | Version,
        target: str,
        aliases: Sequence[str] = (),
        run_id: str | None = None,
        expected: Beliefs = NO_BELIEFS,
    ) -> Version:
        """Give a version a number in a registered model, and return the link. See `lading.Client.link`."""
        return Version.of(run(self.native.link(native_of(reference), target, aliases, run_id, expected)))

    def unlink(self, reference: str | Version, force: bool = False) -> Version:
        """Remove a version of a registered model; return it as it was. See `lading.Client.unlink`."""
        return Version.of(run(self.native.unlink(native_of(reference), force)))

    def update_refs(self, changes: Sequence[RefChange]) -> list[RefResult]:
        """Change any number of aliases and links: all of them or none. See `lading.Client.update_refs`."""
        results = run(self.native.update_refs([native_change(change) for change in changes]))
        return [RefResult.of(result) for result in results]

    def update_version(
        self,
        reference: str | Version,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        ttl: timedelta | None = None,
    ) -> Version:
        """Change a version's card, metadata, tags and time to live. See `lading.Client.update_version`."""
        updating = self.native.update_version(native_of(reference), description, metadata, add_tags, remove_tags, ttl)
        return Version.of(run(updating))

    def tag_version(self, reference: str | Version, add: Sequence[str] = (), remove: Sequence[str] = ()) -> Version:
        """Change a version's tags. See `lading.Client.tag_version`."""
        return Version.of(run(self.native.tag_version(native_of(reference), add, remove)))

    def delete(self, reference: str | Version, force: bool = False, purge: bool = False) -> Version:
        """Delete a version; return it as it was. See `lading.Client.delete`."""
        return Version.of(run(self.native.delete(native_of(reference), force, purge)))

    def undelete(self, reference: str | Version, with_links: bool = False) -> Undeleted:
        """Bring a deleted version or link back. See `lading.Client.undelete`."""
        return Undeleted.of(run(self.native.undelete(native_of(reference), with_links)))

    def delete_versions(
        self,
        query: str = "",
        collection: str | None = None,
        force: bool = False,
        purge: bool = False,
        dry_run: bool = True,
    ) -> Items[DeleteResult]:
        """Iterate over what matches a query, and whether it was deleted. See `lading.Client.delete_versions`."""
        return Items(_results(self.native.delete_versions(query, collection, force, purge, dry_run)))

    def delete_collection(self, name: str, force: bool = False, purge: bool = False) -> CollectionProgress:
        """Delete a collection with all its versions. See `lading.Client.delete_collection`."""
        return run(self.native.delete_collection(name, force, purge))

    def undelete_collection(self, name: str) -> CollectionProgress:
        """Bring a collection back. See `lading.Client.undelete_collection`."""
        return run(self.native.undelete_collection(name))

    def delete_project(self, name: str, force: bool = False, purge: bool = False) -> ProjectProgress:
        """Delete a project with all its collections. See `lading.Client.delete_project`."""
        return run(self.native.delete_project(name, force, purge))

    def create_collection(
        self,
        name: str,
        *,
        type: str,  # noqa: A002 - the word of the whole trade
        description: str = "",
        tags: Sequence[str] = (),
    ) -> Collection:
        """Make a collection before it has a version. See `lading.Client.create_collection`."""
        return run(self.native.create_collection(name, type=type, description=description, tags=tags))

    def update_collection(
        self,
        name: str,
        description: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
    ) -> Collection:
        """Change a collection's card and tags. See `lading.Client.update_collection`."""
        return run(self.native.update_collection(name, description, add_tags, remove_tags))

    def members(self) -> Items[Member]:
        """Iterate over who has a role in the entity. See `lading.Client.members`."""
        return Items(self.native.members())

    def add_member(self, name: str, role: Role | str = Role.MEMBER, kind: MemberKind | str = MemberKind.USER) -> Member:
        """Give somebody a role in the entity, or another one. See `lading.Client.add_member`."""
        return run(self.native.add_member(name, role, kind))

    def remove_member(self, name: str) -> None:
        """Take a member's role away, and revoke all its keys. See `lading.Client.remove_member`."""
        run(self.native.remove_member(name))

    def keys(self, member: str | None = None) -> Items[Key]:
        """Iterate over keys, never their secrets. See `lading.Client.keys`."""
        return Items(self.native.keys(member))

    def create_key(
        self, member: str | None = None, role: Role | str | None = None, note: str = "", ttl_days: int = 0
    ) -> NewKey:
        """Make a key, whose secret is not shown again. See `lading.Client.create_key`."""
        return run(self.native.create_key(member, role, note, ttl_days))

    def revoke_key(self, key_id: str) -> Key:
        """End a key; return it as it is then. See `lading.Client.revoke_key`."""
        return run(self.native.revoke_key(key_id))

    def alias_rules(self, project: str = "") -> Items[AliasRule]:
        """Iterate over the entity's rules for aliases. See `lading.Client.alias_rules`."""
        return Items(self.native.alias_rules(project))

    def set_alias_rule(
        self,
        alias: str,
        *,
        project: str,
        collection: str = "",
        protected: bool = False,
        required_tags: Sequence[str] = (),
        required_metadata: Sequence[str] = (),
    ) -> AliasRule:
        """Say who may set an alias, and to what. See `lading.Client.set_alias_rule`."""
        setting = self.native.set_alias_rule(
            alias,
            project=project,
            collection=collection,
            protected=protected,
            required_tags=required_tags,
            required_metadata=required_metadata,
        )
        return run(setting)

    def delete_alias_rule(self, alias: str, *, project: str, collection: str = "") -> None:
        """Take a rule for an alias away. See `lading.Client.delete_alias_rule`."""
        run(self.native.delete_alias_rule(alias, project=project, collection=collection))

    def set_retention_rule(
        self,
        name: str,
        *,
        keep_last: int = 0,
        keep_best: int = 0,
        best_by: str = "",
        best_order: BestOrder | str = BestOrder.MAX,
        keep_days: int = 0,
        keep_tags: Sequence[str] = (),
        keep_all: bool = False,
        default_ttl: timedelta | None = None,
    ) -> RetentionRule:
        """Say which versions stay. For admins. See `lading.Client.set_retention_rule`."""
        setting = self.native.set_retention_rule(
            name,
            keep_last=keep_last,
            keep_best=keep_best,
            best_by=best_by,
            best_order=best_order,
            keep_days=keep_days,
            keep_tags=keep_tags,
            keep_all=keep_all,
            default_ttl=default_ttl,
        )
        return run(setting)

    def delete_retention_rule(self, name: str) -> None:
        """Take a rule of retention away. For admins. See `lading.Client.delete_retention_rule`."""
        run(self.native.delete_retention_rule(name))

    def retention_rule(self, name: str) -> RetentionRule | None:
        """Return the rule that counts for a collection. See `lading.Client.retention_rule`."""
        return run(self.native.retention_rule(name))

    def retention_rules(self, project: str = "") -> Items[RetentionRule]:
        """Iterate over the entity's rules of retention. See `lading.Client.retention_rules`."""
        return Items(self.native.retention_rules(project))

    def simulate_retention(
        self,
        name: str,
        *,
        keep_last: int = 0,
        keep_best: int = 0,
        best_by: str = "",
        best_order: BestOrder | str = BestOrder.MAX,
        keep_days: int = 0,
        keep_tags: Sequence[str] = (),
        keep_all: bool = False,
        default_ttl: timedelta | None = None,
    ) -> Items[RetentionVerdict]:
        """Iterate over what would become of each version of a collection. See `lading.Client.simulate_retention`."""
        simulating = self.native.simulate_retention(
            name,
            keep_last=keep_last,
            keep_best=keep_best,
            best_by=best_by,
            best_order=best_order,
            keep_days=keep_days,
            keep_tags=keep_tags,
            keep_all=keep_all,
            default_ttl=default_ttl,
        )
        return Items(simulating)

    def apply_retention(
        self, name: str | None = None, on_deleted: Callable[[RetentionVerdict], None] | None = None
    ) -> RetentionApplied:
        """Delete now what goes. For admins. See `lading.Client.apply_retention`."""
        return run(self.native.apply_retention(name, on_deleted))

    def entities(self) -> Items[EntityInfo]:
        """Iterate over the server's tenants. For the operator. See `lading.Client.entities`."""
        return Items(self.native.entities())

    def create_entity(self, name: str, admin: str) -> NewKey:
        """Make a tenant; return its first admin's key. For the operator. See `lading.Client.create_entity`."""
        return run(self.native.create_entity(name, admin))

    def collect_garbage(
        self, *, dry_run: bool = False, release_unknown_pins: bool = False, entity: str | None = None
    ) -> Items[GarbageProgress | EntityCollection]:
        """Collect garbage, one entity after the other. For the operator. See `lading.Client.collect_garbage`."""
        return Items(
            self.native.collect_garbage(dry_run=dry_run, release_unknown_pins=release_unknown_pins, entity=entity)
        )

    def last_collection(self) -> LastCollection:
        """Return when garbage was last collected. For the operator. See `lading.Client.last_collection`."""
        return run(self.native.last_collection())

    def explain(self, digest: str) -> Explanation:
        """Return what keeps some content from being collected. See `lading.Client.explain`."""
        return run(self.native.explain(digest))


async def _versions(found: AsyncGenerator[NativeVersion, None]) -> AsyncGenerator[Version, None]:
    try:
        async for version in found:
            yield Version.of(version)
    finally:
        await found.aclose()


async def _results(found: AsyncGenerator[native_models.DeleteResult, None]) -> AsyncGenerator[DeleteResult, None]:
    try:
        async for result in found:
            yield DeleteResult.of(result)
    finally:
        await found.aclose()
