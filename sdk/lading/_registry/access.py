"""Who may do what: members and their keys, rules for aliases, and tenants for the operator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing

from lading._registry import convert, convert_access, pages
from lading._registry.access_models import AliasRule, EntityInfo, Key, Member, MemberKind, NewKey, Role
from lading._registry.connection import Connection
from lading._retry import RetryPolicy
from lading_proto.registry.v1 import access_pb2

# A secret is shown once: a repetition would make another key, or find that the entity is there.
_ONCE = RetryPolicy(retry_seconds=0)


class RegistryAccess:
    """The part of `Client` that says who may do what.

    Everything but `create_entity` and `entities` is about the client's entity, and for its admins; a member may make,
    list and revoke keys of its own, and whoever has a role may list rules. Every method raises PermissionDenied where
    the key's role does not allow it; `metadata["required"]` says which one does.

    Attributes:
        connection: What calls go through. For the SDK's own parts.
    """

    connection: Connection

    async def members(self) -> AsyncGenerator[Member, None]:
        """Yield who has a role in the entity, sorted by name.

        Source: AccessService.ListMembers in protos/lading_proto/registry/v1/access.proto.
        """
        entity = await self.connection.entity()
        request = access_pb2.ListMembersRequest(entity=entity)

        def ask(asked: object) -> Awaitable[access_pb2.ListMembersResponse]:
            return self.connection.call_access(lambda stub: stub.ListMembers, asked)

        async with aclosing(pages.asked_items(ask, request, lambda page: page.members)) as listing:
            async for item in listing:
                yield convert_access.member(item, entity)

    async def add_member(
        self, name: str, role: Role | str = Role.MEMBER, kind: MemberKind | str = MemberKind.USER
    ) -> Member:
        """Give somebody a role in the entity, or another one; return the member as it is then.

        Args:
            name: 1 to 64 of `A-Za-z0-9._@-`: what events and versions shall call the member.
            role: `viewer`, `member` or `admin`.
            kind: `user` for a person, `service` for a program.

        Raises:
            FailedPrecondition: It would leave the entity without an admin.
            InvalidArgument: The name, the role or the kind is none.

        Source: AccessService.AddMember in protos/lading_proto/registry/v1/access.proto.
        """
        entity = await self.connection.entity()
        request = access_pb2.AddMemberRequest(
            entity=entity,
            name=name,
            role=convert_access.role_to_proto(role),
            kind=convert_access.member_kind_to_proto(kind),
        )
        response = await self.connection.call_access(lambda stub: stub.AddMember, request)
        return convert_access.member(response.member, entity)

    async def remove_member(self, name: str) -> None:
        """Take a member's role away, and revoke all its keys.

        Raises:
            NotFound: The entity has no such member.
            FailedPrecondition: It would leave the entity without an admin.

        Source: AccessService.RemoveMember in protos/lading_proto/registry/v1/access.proto.
        """
        request = access_pb2.RemoveMemberRequest(entity=await self.connection.entity(), name=name)
        await self.connection.call_access(lambda stub: stub.RemoveMember, request)

    async def keys(self, member: str | None = None) -> AsyncGenerator[Key, None]:
        """Yield keys, sorted by their ids; those that ended too, and never a secret.

        Args:
            member: Only those of this member; None for all that the caller may see.

        Source: AccessService.ListKeys in protos/lading_proto/registry/v1/access.proto.
        """
        entity = await self.connection.entity()
        request = access_pb2.ListKeysRequest(entity=entity, member=member or "")

        def ask(asked: object) -> Awaitable[access_pb2.ListKeysResponse]:
            return self.connection.call_access(lambda stub: stub.ListKeys, asked)

        async with aclosing(pages.asked_items(ask, request, lambda page: page.keys)) as listing:
            async for item in listing:
                yield convert_access.key(item, entity)

    async def create_key(
        self, member: str | None = None, role: Role | str | None = None, note: str = "", ttl_days: int = 0
    ) -> NewKey:
        """Make a key. Its secret is in what this returns, and is not shown again.

        Tried once: when the answer was lost, there may be a key that nobody has. `keys` shows it.

        Args:
            member: Whose it is; None for the caller.
            role: What it may do at most; None for what its member may now.
            note: What it is for, at most 256 characters.
            ttl_days: Days until it stops working, at most 3,650; 0 for never.

        Raises:
            NotFound: The entity has no such member.
            InvalidArgument: The role is none, or the note or the time too long.

        Source: AccessService.CreateKey in protos/lading_proto/registry/v1/access.proto.
        """
        entity = await self.connection.entity()
        request = access_pb2.CreateKeyRequest(
            entity=entity,
            member=member or "",
            role=access_pb2.ROLE_UNSPECIFIED if role is None else convert_access.role_to_proto(role),
            note=note,
            ttl_days=convert_access.days_to_proto(ttl_days),
        )
        response = await self.connection.call_access(lambda stub: stub.CreateKey, request, policy=_ONCE)
        return convert_access.new_key(response, entity)

    async def revoke_key(self, key_id: str) -> Key:
        """End a key; return it as it is then. Where ingest is another process, that takes it for a minute more.

        Args:
            key_id: Its id, and not its secret.

        Raises:
            NotFound: The entity has no such key.

        Source: AccessService.RevokeKey in protos/lading_proto/registry/v1/access.proto.
        """
        entity = await self.connection.entity()
        request = access_pb2.RevokeKeyRequest(entity=entity, key_id=key_id)
        response = await self.connection.call_access(lambda stub: stub.RevokeKey, request)
        return convert_access.key(response.key, entity)

    async def alias_rules(self, project: str = "") -> AsyncGenerator[AliasRule, None]:
        """Yield the entity's rules for aliases, sorted by project, collection and alias; at most 1,000.

        Args:
            project: Only those that count in this project; empty for all.

        Raises:
            InvalidArgument: The project breaks the rules of names.

        Source: AccessService.ListAliasRules in protos/lading_proto/registry/v1/access.proto.
        """
        request = access_pb2.ListAliasRulesRequest(entity=await self.connection.entity(), project=project)
        response = await self.connection.call_access(lambda stub: stub.ListAliasRules, request)
        for rule in response.rules:
            yield convert_access.alias_rule(rule)

    async def set_alias_rule(
        self,
        alias: str,
        *,
        project: str,
        collection: str = "",
        protected: bool = False,
        required_tags: Sequence[str] = (),
        required_metadata: Sequence[str] = (),
    ) -> AliasRule:
        """Say who may set an alias, and to what; return the rule as it is kept.

        Takes the place of a rule for the same project, collection and alias. It counts for every move that comes after
        it, and says nothing of where the alias points already. While the alias points at a version, what the rule
        requires cannot be taken from that.

        Args:
            alias: The alias: `production`. Not `latest`, which moves by itself.
            project: The project that it counts in.
            collection: The collection that it counts in; empty for all of the project.
            protected: Only admins may set, move or remove it.
            required_tags: Tags that a version has before the alias may point at it.
            required_metadata: Metadata keys that it has, with dots for what is nested: `eval.accuracy`.

        Raises:
            InvalidArgument: A name, tag or key breaks its rules, or there are too many of them or of rules.

        Source: AccessService.SetAliasRule in protos/lading_proto/registry/v1/access.proto.
        """
        rule = access_pb2.AliasRule(
            project=project,
            collection=collection,
            alias=alias,
            protected=protected,
            required_tags=convert.name_sequence(required_tags, "required_tags"),
            required_metadata=convert.name_sequence(required_metadata, "required_metadata"),
        )
        request = access_pb2.SetAliasRuleRequest(entity=await self.connection.entity(), rule=rule)
        response = await self.connection.call_access(lambda stub: stub.SetAliasRule, request)
        return convert_access.alias_rule(response.rule)

    async def delete_alias_rule(self, alias: str, *, project: str, collection: str = "") -> None:
        """Take a rule for an alias away. One that is not there is no error.

        Args:
            alias: The rule's alias.
            project: The rule's project.
            collection: The rule's collection; empty for the rule that counts in all of the project.

        Raises:
            InvalidArgument: A name breaks its rules.

        Source: AccessService.DeleteAliasRule in protos/lading_proto/registry/v1/access.proto.
        """
        request = access_pb2.DeleteAliasRuleRequest(
            entity=await self.connection.entity(), project=project, collection=collection, alias=alias
        )
        await self.connection.call_access(lambda stub: stub.DeleteAliasRule, request)

    async def entities(self) -> AsyncGenerator[EntityInfo, None]:
        """Yield the server's tenants, sorted by name. For the operator.

        Source: AccessService.ListEntities in protos/lading_proto/registry/v1/access.proto.
        """

        def ask(asked: object) -> Awaitable[access_pb2.ListEntitiesResponse]:
            return self.connection.call_access(lambda stub: stub.ListEntities, asked)

        request = access_pb2.ListEntitiesRequest()
        async with aclosing(pages.asked_items(ask, request, lambda page: page.entities)) as listing:
            async for item in listing:
                yield convert_access.entity_info(item)

    async def create_entity(self, name: str, admin: str) -> NewKey:
        """Make a tenant with a first admin; return that admin's key, which is not shown again. For the operator.

        Tried once: see `create_key`.

        Args:
            name: 1 to 64 of `a-z0-9._-`, beginning with a letter or digit.
            admin: The first admin, as `add_member` takes a name.

        Raises:
            AlreadyExists: There is an entity of this name.
            InvalidArgument: A name breaks its rules.

        Source: AccessService.CreateEntity in protos/lading_proto/registry/v1/access.proto.
        """
        request = access_pb2.CreateEntityRequest(name=name, admin=admin)
        response = await self.connection.call_access(lambda stub: stub.CreateEntity, request, policy=_ONCE)
        return convert_access.first_key(response.secret_key, name, admin)
