"""Which versions stay: rules of retention, what they would delete, and deleting it now."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta

from lading._listing import EndlessPages
from lading._registry import convert_retention, pages
from lading._registry.connection import Connection
from lading._registry.retention_models import BestOrder, RetentionApplied, RetentionRule, RetentionVerdict
from lading_proto.registry.v1 import retention_pb2


class RegistryRetention:
    """The part of `Client` that says which versions of a collection stay.

    Where a method takes a name, `[entity/][project/]name` means a collection, and `[entity/][project/]*` all
    collections of a project: the rule of a project counts for those that have none of their own.

    What an alias other than `latest` or a link points at never goes.

    Attributes:
        connection: What calls go through. For the SDK's own parts.
    """

    connection: Connection

    async def set_retention_rule(
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
        """Say which versions stay, in place of the rule that was there; return the rule as it is kept. For admins.

        A version stays when one of these keeps it. Deletes nothing itself: the server does, from time to time. Ask
        `simulate_retention` with the same arguments first.

        Args:
            name: For which collection, or `project/*`.
            keep_last: So many versions with the highest numbers.
            keep_best: So many of the best by `best_by`.
            best_by: `metadata.KEY`, with dots for what is nested. Where it is no number a version comes last; of equal
                ones the newer is better.
            best_order: `max` where the largest is the best, `min` where the smallest is.
            keep_days: Versions that were committed less than so many days ago.
            keep_tags: Versions with one of these tags.
            keep_all: Every version: for a collection that the rule of its project shall not count for.
            default_ttl: The time to live of new versions that bring none.

        Raises:
            InvalidArgument: Nothing is kept, parts do not go together, or a name breaks its rules.
            FailedPrecondition: It is about registered models, which have no rules.

        Source: RetentionService.SetRetentionRule in protos/lading_proto/registry/v1/retention.proto.
        """
        place = await self.connection.rule_place(name)
        rule = convert_retention.rule_to_proto(
            place.project,
            place.name,
            keep_last=keep_last,
            keep_best=keep_best,
            best_by=best_by,
            best_order=best_order,
            keep_days=keep_days,
            keep_tags=keep_tags,
            keep_all=keep_all,
            default_ttl=default_ttl,
        )
        request = retention_pb2.SetRetentionRuleRequest(entity=place.entity, rule=rule)
        response = await self.connection.call_retention(lambda stub: stub.SetRetentionRule, request)
        return convert_retention.rule(response.rule)

    async def delete_retention_rule(self, name: str) -> None:
        """Take a rule away. One that is not there is no error. For admins.

        Args:
            name: For which collection, or `project/*`.

        Raises:
            InvalidArgument: The name breaks its rules.

        Source: RetentionService.DeleteRetentionRule in protos/lading_proto/registry/v1/retention.proto.
        """
        place = await self.connection.rule_place(name)
        request = retention_pb2.DeleteRetentionRuleRequest(
            entity=place.entity, project=place.project, collection=place.name
        )
        await self.connection.call_retention(lambda stub: stub.DeleteRetentionRule, request)

    async def retention_rule(self, name: str) -> RetentionRule | None:
        """Return the rule that counts for a collection, its own or its project's; None where there is neither.

        Args:
            name: The collection, which need not be there; or `project/*`.

        Raises:
            InvalidArgument: The name breaks its rules.

        Source: RetentionService.GetRetentionRule in protos/lading_proto/registry/v1/retention.proto.
        """
        place = await self.connection.rule_place(name)
        request = retention_pb2.GetRetentionRuleRequest(
            entity=place.entity, project=place.project, collection=place.name
        )
        response = await self.connection.call_retention(lambda stub: stub.GetRetentionRule, request)
        return convert_retention.rule(response.rule) if response.HasField("rule") else None

    async def retention_rules(self, project: str = "") -> AsyncGenerator[RetentionRule, None]:
        """Yield the entity's rules, sorted by project and collection; at most 1,000.

        Args:
            project: Only those of this project; empty for all.

        Raises:
            InvalidArgument: The project breaks the rules of names.

        Source: RetentionService.ListRetentionRules in protos/lading_proto/registry/v1/retention.proto.
        """
        request = retention_pb2.ListRetentionRulesRequest(entity=await self.connection.entity(), project=project)
        response = await self.connection.call_retention(lambda stub: stub.ListRetentionRules, request)
        for rule in response.rules:
            yield convert_retention.rule(rule)

    async def simulate_retention(
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
    ) -> AsyncGenerator[RetentionVerdict, None]:
        """Yield of each version of a collection, the newest first, whether it would go now, and why. Changes nothing.

        Args:
            name: The collection.
            keep_last: With the others, the rule to try, as in `set_retention_rule`. Where none is given, the rule that
                counts for the collection.

        Raises:
            NotFound: There is no such collection.
            InvalidArgument: As in `set_retention_rule`; or the rule was changed while this was read.
            FailedPrecondition: As in `set_retention_rule`.

        Source: RetentionService.SimulateRetention in protos/lading_proto/registry/v1/retention.proto.
        """
        place = await self.connection.collection_name(name)
        rule = convert_retention.rule_to_proto(
            place.project,
            place.name,
            keep_last=keep_last,
            keep_best=keep_best,
            best_by=best_by,
            best_order=best_order,
            keep_days=keep_days,
            keep_tags=keep_tags,
            keep_all=keep_all,
            default_ttl=default_ttl,
        )
        is_given = bool(keep_last or keep_best or best_by or keep_days or keep_tags or keep_all or default_ttl)
        request = retention_pb2.SimulateRetentionRequest(
            entity=place.entity,
            project=place.project,
            collection=place.name,
            rule=rule if is_given else None,
        )

        def ask(asked: object) -> Awaitable[retention_pb2.SimulateRetentionResponse]:
            return self.connection.call_retention(lambda stub: stub.SimulateRetention, asked)

        async with aclosing(pages.asked_items(ask, request, lambda page: page.verdicts)) as listing:
            async for item in listing:
                yield convert_retention.verdict(item, place.entity)

    async def apply_retention(
        self, name: str | None = None, on_deleted: Callable[[RetentionVerdict], None] | None = None
    ) -> RetentionApplied:
        """Delete now what goes by its time to live or by the rules, and return how much that was. For admins.

        What was deleted can be undeleted as ever. One that is interrupted has deleted a part; call it again.

        Args:
            name: Only of this collection, or of `project/*`; None for all of the client's entity.
            on_deleted: Called for each version that was deleted.

        Raises:
            InvalidArgument: The name breaks its rules.

        Source: RetentionService.ApplyRetention in protos/lading_proto/registry/v1/retention.proto.
        """
        request = retention_pb2.ApplyRetentionRequest()
        if name is None:
            request.entity = await self.connection.entity()
        else:
            place = await self.connection.rule_place(name)
            request.entity, request.project, request.collection = place.entity, place.project, place.name
        endless, applied = EndlessPages("The server"), RetentionApplied(0, 0)
        while True:
            response = await self.connection.call_retention(lambda stub: stub.ApplyRetention, request)
            for item in response.deleted:
                verdict = convert_retention.verdict(item, request.entity)
                applied = RetentionApplied(applied.deleted + 1, applied.size_bytes + verdict.size_bytes)
                if on_deleted is not None:
                    on_deleted(verdict)
            if not endless.goes_on(response.next_page_token, len(response.deleted)):
                return applied
            request.page_token = response.next_page_token
