"""What can be changed in the registry.

Every call makes one request id and repeats it with the same one, so that a call whose answer got lost changes nothing
twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from lading._errors import FailedPrecondition, InvalidArgument
from lading._registry import convert
from lading._registry.connection import fresh_request_id, whole_name
from lading._registry.convert_retention import ttl_seconds
from lading._registry.deletions import RegistryDeletions
from lading._registry.models import (
    NO_BELIEFS,
    Beliefs,
    ChangeAliases,
    Collection,
    Committed,
    Link,
    RefChange,
    RefResult,
    Unlink,
)
from lading._version import Version
from lading_format.names import MODEL_REGISTRY
from lading_proto.registry.v1 import collections_pb2, refs_pb2, versions_pb2


class RegistryWrites(RegistryDeletions):
    """The half of `Client` that changes names. It carries no content."""

    async def commit(
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
        """Give a tree that is stored a number in a collection.

        Where the collection has a version of the same tree no other is made: aliases and tags are set on that one, and
        description and metadata are ignored.

        Args:
            tree_digest: `b3:<64 hex>`, from an upload to this entity.
            name: The collection, `[entity/][project/]name`. It and its project are made if they are not there.
            type: The collection's type, `dataset`, `model`; empty to take that of the collection, which is there then.
            aliases: Aliases to point at the version, wherever they pointed. `latest` moves by itself.
            remove_aliases: Aliases that the collection shall not have any more.
            tags: Tags of the version.
            description: Its card, in Markdown.
            metadata: What else to say of it; anything that JSON can hold.
            run_id: The run that has it as an output.
            expected: What the caller believes about some of the aliases: the number of the version that each points
                at, or None for "there is none". Where one is wrong nothing is changed.
            ttl: How long the version stays: it is deleted then, unless an alias other than `latest` or a link points at
                it. None for what the rule of the collection says; timedelta(0) for ever. Where the version is there
                already the later end counts.

        Raises:
            NotFound: There is no such tree or run, or an alias of which something was expected.
            MissingContent: Content of the tree was collected. Upload it, then commit again.
            Conflict: What was expected of an alias is wrong; `metadata["actual"]` says what is.
            FailedPrecondition: The collection has another type, or is a registered model, which gets versions by links.
            InvalidArgument: A name breaks its rules, or metadata is no JSON or too large.

        Source: RegistryService.CommitVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        request = await self._commit_request(
            name, type, aliases, remove_aliases, tags, description, metadata, run_id, expected, ttl
        )
        return await self._commit(request, tree_digest)

    async def set_aliases(
        self,
        reference: str | Version,
        set: Sequence[str] = (),  # noqa: A002 - reads as what it does where it is called
        remove: Sequence[str] = (),
        expected: Beliefs = NO_BELIEFS,
    ) -> Version:
        """Point aliases at a version, or remove them from its collection; return it as it is then.

        Args:
            reference: The version. Where aliases are only removed, any version of the collection.
            set: Aliases to point at it, wherever they pointed. `latest` moves by itself.
            remove: Aliases that the collection shall not have any more.
            expected: What the caller believes about some of them, as in `commit`.

        Raises:
            NotFound: There is no such collection or version, or an alias of which something was expected.
            Conflict: What was expected is wrong; `metadata["actual"]` says what is. Nothing was changed.
            InvalidArgument: An alias breaks its rules.

        Source: RegistryService.UpdateRefs in protos/lading_proto/registry/v1/registry.proto.
        """
        results = await self.update_refs([ChangeAliases(reference, set, remove, expected)])
        return results[0].version

    async def link(
        self,
        reference: str | Version,
        target: str,
        aliases: Sequence[str] = (),
        run_id: str | None = None,
        expected: Beliefs = NO_BELIEFS,
    ) -> Version:
        """Give a version a number in a registered model, and return the link.

        Linking the same version again moves aliases and makes no new number.

        Args:
            reference: The version. Of a link, what it points at is linked.
            target: `[entity/]model-registry/Name`, or its name alone. Made if it is not there, with the version's type.
            aliases: Aliases of the registered model to point at the link: `staging`.
            run_id: The run that links it.
            expected: What the caller believes about some of the aliases, as in `commit`.

        Raises:
            NotFound: There is no such collection, version, alias or run.
            Conflict: What was expected is wrong. Nothing was changed.
            FailedPrecondition: The registered model has another type than the version.
            InvalidArgument: A name breaks its rules, or the target is of another entity.

        Source: RegistryService.UpdateRefs in protos/lading_proto/registry/v1/registry.proto.
        """
        results = await self.update_refs([Link(reference, target, aliases, run_id or "", expected)])
        return results[0].version

    async def unlink(self, reference: str | Version, force: bool = False) -> Version:
        """Remove a version of a registered model; return it as it was. What it points at stays.

        Args:
            reference: The link: `model-registry/Name:v3`.
            force: Remove it although aliases other than `latest` point at it; they go with it.

        Raises:
            NotFound: There is no such link.
            FailedPrecondition: Aliases point at it, or it is no link.

        Source: RegistryService.UpdateRefs in protos/lading_proto/registry/v1/registry.proto.
        """
        results = await self.update_refs([Unlink(reference, force)])
        return results[0].version

    async def update_refs(self, changes: Sequence[RefChange]) -> list[RefResult]:
        """Change any number of aliases and links: all of them or none.

        Args:
            changes: Made in this order; each sees what those before it did. All of one entity.

        Raises:
            As `set_aliases`, `link` and `unlink` do. Nothing was changed then.

        Source: RegistryService.UpdateRefs in protos/lading_proto/registry/v1/registry.proto.
        """
        request = refs_pb2.UpdateRefsRequest(request_id=fresh_request_id())
        for change in changes:
            entity = await self._add_change(request, change)
            if request.entity not in ("", entity):
                raise InvalidArgument(f"One call changes names of one entity, not of {request.entity} and {entity}.")
            request.entity = entity
        if not changes:
            return []
        response = await self.connection.call(lambda stub: stub.UpdateRefs, request)
        return [
            RefResult(convert.version(result.version, request.entity, self.connection), result.created)
            for result in response.results
        ]

    async def update_version(
        self,
        reference: str | Version,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
        ttl: timedelta | None = None,
    ) -> Version:
        """Change a version's card, metadata, tags and time to live; return it as it is then. Of a link only tags.

        Args:
            reference: The version.
            description: The new card, in Markdown; None to leave it.
            metadata: What takes the place of all metadata; None to leave it.
            add_tags: Tags to have from now on.
            remove_tags: Tags not to have any more. One that is not there is no error.
            ttl: How long it stays from now on; timedelta(0) for ever, None to leave it. Only admins have a version go
                sooner.

        Raises:
            NotFound: There is no such collection, version or alias.
            FailedPrecondition: It is a link, which has the card and the metadata of its source, and no time to live.
            PermissionDenied: It would go sooner, and the caller is no admin.
            InvalidArgument: A tag breaks its rules, or metadata is no JSON or too large.

        Source: RegistryService.UpdateVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        name = await self.connection.version_name(reference)
        request = versions_pb2.UpdateVersionRequest(
            entity=name.entity,
            reference=whole_name(name),
            description=description,
            metadata_json=None if metadata is None else convert.to_json(metadata),
            add_tags=convert.name_sequence(add_tags, "add_tags"),
            remove_tags=convert.name_sequence(remove_tags, "remove_tags"),
            request_id=fresh_request_id(),
            ttl_seconds=ttl_seconds(ttl),
        )
        response = await self.connection.call(lambda stub: stub.UpdateVersion, request)
        return convert.version(response.version, name.entity, self.connection)

    async def tag_version(
        self, reference: str | Version, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> Version:
        """Change a version's tags; return it as it is then. See `update_version`.

        Source: RegistryService.UpdateVersion in protos/lading_proto/registry/v1/registry.proto.
        """
        return await self.update_version(reference, add_tags=add, remove_tags=remove)

    async def create_collection(
        self,
        name: str,
        *,
        type: str,  # noqa: A002 - the word of the whole trade
        description: str = "",
        tags: Sequence[str] = (),
    ) -> Collection:
        """Make a collection before it has a version. `commit` and `link` make theirs by themselves.

        Args:
            name: `[entity/][project/]name`. In `model-registry` it is a registered model.
            type: The type of all its versions.
            description: Its card, in Markdown.
            tags: Its tags.

        Raises:
            AlreadyExists: There is one of this name.
            InvalidArgument: A name breaks its rules, or the card is too long.

        Source: RegistryService.CreateCollection in protos/lading_proto/registry/v1/registry.proto.
        """
        found = await self.connection.collection_name(name)
        request = collections_pb2.CreateCollectionRequest(
            entity=found.entity,
            project=found.project,
            collection=found.name,
            type=type,
            description=description,
            tags=convert.name_sequence(tags, "tags"),
            request_id=fresh_request_id(),
        )
        response = await self.connection.call(lambda stub: stub.CreateCollection, request)
        return convert.collection(response.collection, found.entity)

    async def update_collection(
        self,
        name: str,
        description: str | None = None,
        add_tags: Sequence[str] = (),
        remove_tags: Sequence[str] = (),
    ) -> Collection:
        """Change a collection's card and tags; return it as it is then.

        Args:
            name: `[entity/][project/]name`.
            description: The new card, in Markdown; None to leave it.
            add_tags: Tags to have from now on.
            remove_tags: Tags not to have any more. One that is not there is no error.

        Raises:
            NotFound: There is no such collection.
            InvalidArgument: A tag breaks its rules, or the card is too long.

        Source: RegistryService.UpdateCollection in protos/lading_proto/registry/v1/registry.proto.
        """
        found = await self.connection.collection_name(name)
        request = collections_pb2.UpdateCollectionRequest(
            entity=found.entity,
            project=found.project,
            collection=found.name,
            description=description,
            add_tags=convert.name_sequence(add_tags, "add_tags"),
            remove_tags=convert.name_sequence(remove_tags, "remove_tags"),
            request_id=fresh_request_id(),
        )
        response = await self.connection.call(lambda stub: stub.UpdateCollection, request)
        return convert.collection(response.collection, found.entity)

    async def _commit_request(
        self,
        name: str,
        type: str,  # noqa: A002 - as in `commit`
        aliases: Sequence[str],
        remove_aliases: Sequence[str],
        tags: Sequence[str],
        description: str,
        metadata: Mapping[str, Any] | None,
        run_id: str | None,
        expected: Beliefs,
        ttl: timedelta | None,
    ) -> versions_pb2.CommitVersionRequest:
        """Return a commit of a tree that is still to come; raise for what could not be committed, whatever the tree."""
        found = await self.connection.collection_name(name)
        if found.project == MODEL_REGISTRY:
            raise FailedPrecondition(
                f"Versions of a registered model are links: commit to another project, then link to {found.name!r}.",
                reason="WRONG_KIND",
            )
        return versions_pb2.CommitVersionRequest(
            entity=found.entity,
            project=found.project,
            collection=found.name,
            type=type,
            description=description,
            metadata_json=convert.to_json(metadata),
            tags=convert.name_sequence(tags, "tags"),
            aliases=convert.alias_changes(aliases, remove_aliases, expected),
            run_id=run_id or "",
            ttl_seconds=ttl_seconds(ttl),
        )

    async def _commit(self, request: versions_pb2.CommitVersionRequest, tree_digest: str) -> Committed:
        request.tree_digest = tree_digest
        request.request_id = fresh_request_id()
        response = await self.connection.call(lambda stub: stub.CommitVersion, request)
        return Committed(convert.version(response.version, request.entity, self.connection), response.created)

    async def _add_change(self, request: refs_pb2.UpdateRefsRequest, change: RefChange) -> str:
        """Add a change to a request, and return the entity that it is about."""
        name = await self.connection.version_name(change.reference)
        added = request.changes.add()
        if isinstance(change, Unlink):
            added.unlink.reference = whole_name(name)
            added.unlink.force = change.force
        elif isinstance(change, ChangeAliases):
            added.aliases.reference = whole_name(name)
            added.aliases.aliases.extend(convert.alias_changes(change.set, change.remove, change.expected))
        else:
            portfolio = await self.connection.portfolio_name(change.target)
            if portfolio.entity != name.entity:
                raise InvalidArgument(f"{name} cannot be linked to {change.target}: that is another entity's.")
            added.link.source = whole_name(name)
            added.link.portfolio = portfolio.name
            added.link.aliases.extend(convert.alias_changes(change.aliases, (), change.expected))
            added.link.run_id = change.run_id
        return name.entity
