"""Between RetentionService's messages and plain values. Total: tests/unit/lading/test_retention_convert.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from lading._errors import InvalidArgument
from lading._registry.convert import known, moment, name_sequence
from lading._registry.retention_models import BestOrder, RetentionRule, RetentionVerdict
from lading_proto.registry.v1 import retention_pb2

ORDERS: Mapping[int, BestOrder] = {
    retention_pb2.BEST_ORDER_MAX: BestOrder.MAX,
    retention_pb2.BEST_ORDER_MIN: BestOrder.MIN,
}
_NUMBERS = {order: number for number, order in ORDERS.items()}
_MOST_COUNT = (1 << 32) - 1


def ttl_seconds(ttl: timedelta | None) -> int | None:
    """Return a time to live as requests have it; None for None, and 0 for ever.

    Raises:
        InvalidArgument: It is negative. What is not a whole second is rounded up, so that it is not taken for ever.
    """
    if ttl is None:
        return None
    if ttl < timedelta(0):
        raise InvalidArgument(
            f"A time to live of {ttl} is over already. Give timedelta(0) for ever, or delete the version."
        )
    return -(-ttl // timedelta(seconds=1))


def rule_to_proto(
    project: str,
    collection: str,
    *,
    keep_last: int,
    keep_best: int,
    best_by: str,
    best_order: BestOrder | str,
    keep_days: int,
    keep_tags: Sequence[str],
    keep_all: bool,
    default_ttl: timedelta | None,
) -> retention_pb2.RetentionRule:
    """Return a rule as requests have it. Raises InvalidArgument where the protocol has no form for a part."""
    for name, count in (("keep_last", keep_last), ("keep_best", keep_best), ("keep_days", keep_days)):
        if not 0 <= count <= _MOST_COUNT:
            raise InvalidArgument(f"{name} is {count}. Give 0 for none, or how many.")
    orders = [order.value for order in BestOrder]
    if best_order not in orders:
        raise InvalidArgument(f"best_order {best_order!r} is not usable: take one of {', '.join(orders)}.")
    rule = retention_pb2.RetentionRule(
        project=project,
        collection=collection,
        keep_last=keep_last,
        keep_best=keep_best,
        best_by=best_by,
        keep_days=keep_days,
        keep_tags=name_sequence(keep_tags, "keep_tags"),
        keep_all=keep_all,
        default_ttl_seconds=ttl_seconds(default_ttl) or 0,
    )
    # Without a field to compare by it says nothing, and the server would ask for one.
    if keep_best or best_by:
        rule.best_order = retention_pb2.BestOrder.ValueType(_NUMBERS[BestOrder(best_order)])
    return rule


def rule(message: retention_pb2.RetentionRule) -> RetentionRule:
    """Return a rule."""
    return RetentionRule(
        project=message.project,
        collection=message.collection,
        keep_last=message.keep_last,
        keep_best=message.keep_best,
        best_by=message.best_by,
        best_order=known(ORDERS, message.best_order, "the order of a rule") if message.keep_best else BestOrder.MAX,
        keep_days=message.keep_days,
        keep_tags=tuple(message.keep_tags),
        keep_all=message.keep_all,
        default_ttl_seconds=message.default_ttl_seconds,
        set_at=moment(message.set_at) if message.HasField("set_at") else None,
        set_by=message.set_by,
    )


def verdict(message: retention_pb2.RetentionVerdict, entity: str) -> RetentionVerdict:
    """Return what becomes of a version."""
    return RetentionVerdict(
        entity=entity,
        project=message.project,
        collection=message.collection,
        number=message.number,
        uid=message.uid,
        size_bytes=message.size_bytes,
        goes=message.goes,
        why=message.why,
    )
