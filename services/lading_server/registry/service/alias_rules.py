"""The methods of AccessService about rules of aliases. No rules here."""

from __future__ import annotations

from lading_proto.registry.v1 import access_pb2, access_pb2_grpc
from lading_server.registry.domain.access import AccessRules
from lading_server.registry.service.callers import Context, caller_of
from lading_server.registry.store.rows import AliasRule


class AliasRulesServicer(access_pb2_grpc.AccessServiceServicer):
    """Serves the rules of one registry's aliases."""

    _access: AccessRules

    async def SetAliasRule(
        self, request: access_pb2.SetAliasRuleRequest, context: Context
    ) -> access_pb2.SetAliasRuleResponse:
        rule = await self._access.alias_rules.set(caller_of(request.entity, context), rule_from_proto(request.rule))
        return access_pb2.SetAliasRuleResponse(rule=rule_to_proto(rule))

    async def DeleteAliasRule(
        self, request: access_pb2.DeleteAliasRuleRequest, context: Context
    ) -> access_pb2.DeleteAliasRuleResponse:
        caller = caller_of(request.entity, context)
        await self._access.alias_rules.delete(caller, request.project, request.collection, request.alias)
        return access_pb2.DeleteAliasRuleResponse()

    async def ListAliasRules(
        self, request: access_pb2.ListAliasRulesRequest, context: Context
    ) -> access_pb2.ListAliasRulesResponse:
        rules = await self._access.alias_rules.list(caller_of(request.entity, context), request.project)
        return access_pb2.ListAliasRulesResponse(rules=[rule_to_proto(rule) for rule in rules])


def rule_from_proto(message: access_pb2.AliasRule) -> AliasRule:
    """Return a rule as callers write it."""
    return AliasRule(
        project=message.project,
        collection=message.collection,
        alias=message.alias,
        is_protected=message.protected,
        required_tags=tuple(message.required_tags),
        required_metadata=tuple(message.required_metadata),
    )


def rule_to_proto(rule: AliasRule) -> access_pb2.AliasRule:
    """Return a rule as callers see it."""
    return access_pb2.AliasRule(
        project=rule.project,
        collection=rule.collection,
        alias=rule.alias,
        protected=rule.is_protected,
        required_tags=rule.required_tags,
        required_metadata=rule.required_metadata,
    )
