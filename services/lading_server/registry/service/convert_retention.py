"""Between the protocol's messages about retention and plain values."""

from __future__ import annotations

from lading_proto.registry.v1 import retention_pb2
from lading_server.common.registry_errors import InvalidRetentionRule
from lading_server.registry.domain.retention import Judged, Totals
from lading_server.registry.service.convert import timestamp_to_proto
from lading_server.registry.store.rows import RetentionRule

# What `best_by` begins with: the only field that versions can be compared by so far.
_METADATA = "metadata."
_ORDERS = {
    retention_pb2.BEST_ORDER_UNSPECIFIED: False,
    retention_pb2.BEST_ORDER_MAX: False,
    retention_pb2.BEST_ORDER_MIN: True,
}


def rule_from_proto(message: retention_pb2.RetentionRule) -> RetentionRule:
    """Return a rule as callers write it. Raises InvalidRetentionRule."""
    key = message.best_by.removeprefix(_METADATA)
    if message.best_by and (key == message.best_by or not key):
        raise InvalidRetentionRule(f"best_by is {message.best_by[:140]!r}; write metadata.KEY", field="best_by")
    if message.best_order not in _ORDERS:
        raise InvalidRetentionRule(f"best_order {message.best_order} is none that the server knows", field="best_order")
    return RetentionRule(
        project=message.project,
        collection=message.collection,
        keep_last=message.keep_last,
        keep_best=message.keep_best,
        best_key=key,
        best_is_smallest=_ORDERS[message.best_order],
        keep_days=message.keep_days,
        keep_tags=tuple(message.keep_tags),
        keep_all=message.keep_all,
        default_ttl_seconds=message.default_ttl_seconds,
    )


def rule_to_proto(rule: RetentionRule) -> retention_pb2.RetentionRule:
    """Return a rule as callers see it. One that is only tried was set by nobody."""
    order = retention_pb2.BEST_ORDER_MIN if rule.best_is_smallest else retention_pb2.BEST_ORDER_MAX
    return retention_pb2.RetentionRule(
        project=rule.project,
        collection=rule.collection,
        keep_last=rule.keep_last,
        keep_best=rule.keep_best,
        best_by=_METADATA + rule.best_key if rule.keep_best else "",
        best_order=order if rule.keep_best else retention_pb2.BEST_ORDER_UNSPECIFIED,
        keep_days=rule.keep_days,
        keep_tags=rule.keep_tags,
        keep_all=rule.keep_all,
        default_ttl_seconds=rule.default_ttl_seconds,
        set_at=timestamp_to_proto(rule.set_at_ms) if rule.set_by else None,
        set_by=rule.set_by,
    )


def verdict_to_proto(judged: Judged) -> retention_pb2.RetentionVerdict:
    """Return what becomes of a version, as callers see it."""
    return retention_pb2.RetentionVerdict(
        uid=judged.facts.uid.hex(),
        project=judged.key.project,
        collection=judged.key.name,
        number=judged.facts.number,
        size_bytes=judged.facts.size_bytes,
        goes=judged.verdict.goes,
        why=judged.verdict.why,
    )


def totals_to_proto(totals: Totals) -> retention_pb2.RetentionTotals:
    """Return sums of verdicts, as callers see them."""
    return retention_pb2.RetentionTotals(kept=totals.kept, going=totals.going, going_bytes=totals.going_bytes)
