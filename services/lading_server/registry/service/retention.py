"""RetentionService over the domain: each method names its rule and converts. No rules here."""

from __future__ import annotations

from lading_proto.registry.v1 import retention_pb2, retention_pb2_grpc
from lading_server.registry.domain.retention import Retention
from lading_server.registry.service.callers import Context, caller_of
from lading_server.registry.service.convert_lists import page_from_proto
from lading_server.registry.service.convert_retention import (
    rule_from_proto,
    rule_to_proto,
    totals_to_proto,
    verdict_to_proto,
)


class RetentionServicer(retention_pb2_grpc.RetentionServiceServicer):
    """Serves one registry's retention."""

    def __init__(self, retention: Retention) -> None:
        self._retention = retention

    async def SetRetentionRule(
        self, request: retention_pb2.SetRetentionRuleRequest, context: Context
    ) -> retention_pb2.SetRetentionRuleResponse:
        caller = caller_of(request.entity, context)
        rule = await self._retention.rules.set(caller, rule_from_proto(request.rule))
        return retention_pb2.SetRetentionRuleResponse(rule=rule_to_proto(rule))

    async def DeleteRetentionRule(
        self, request: retention_pb2.DeleteRetentionRuleRequest, context: Context
    ) -> retention_pb2.DeleteRetentionRuleResponse:
        caller = caller_of(request.entity, context)
        await self._retention.rules.delete(caller, request.project, request.collection)
        return retention_pb2.DeleteRetentionRuleResponse()

    async def GetRetentionRule(
        self, request: retention_pb2.GetRetentionRuleRequest, context: Context
    ) -> retention_pb2.GetRetentionRuleResponse:
        caller = caller_of(request.entity, context)
        rule = await self._retention.rules.get(caller, request.project, request.collection)
        return retention_pb2.GetRetentionRuleResponse(rule=None if rule is None else rule_to_proto(rule))

    async def ListRetentionRules(
        self, request: retention_pb2.ListRetentionRulesRequest, context: Context
    ) -> retention_pb2.ListRetentionRulesResponse:
        rules = await self._retention.rules.list(caller_of(request.entity, context), request.project)
        return retention_pb2.ListRetentionRulesResponse(rules=[rule_to_proto(rule) for rule in rules])

    async def SimulateRetention(
        self, request: retention_pb2.SimulateRetentionRequest, context: Context
    ) -> retention_pb2.SimulateRetentionResponse:
        caller = caller_of(request.entity, context)
        rule = rule_from_proto(request.rule) if request.HasField("rule") else None
        found = await self._retention.simulate(
            caller, request.project, request.collection, rule, page_from_proto(request)
        )
        return retention_pb2.SimulateRetentionResponse(
            verdicts=[verdict_to_proto(row) for row in found.rows],
            totals=totals_to_proto(found.totals),
            rule=None if found.rule is None else rule_to_proto(found.rule),
            next_page_token=found.token,
        )

    async def ApplyRetention(
        self, request: retention_pb2.ApplyRetentionRequest, context: Context
    ) -> retention_pb2.ApplyRetentionResponse:
        caller = caller_of(request.entity, context)
        deleted, token = await self._retention.apply(caller, request.project, request.collection, request.page_token)
        return retention_pb2.ApplyRetentionResponse(
            deleted=[verdict_to_proto(row) for row in deleted], next_page_token=token
        )
