"""Retention in the plainest words that there are: the oracle of its tests. Knows no ranks and no SQL."""

from __future__ import annotations

from collections.abc import Sequence

from lading_server.registry.store.rows import Ranks, RetentionFacts, RetentionRule

DAY_MS = 86_400_000


def is_over(facts: RetentionFacts, now_ms: int) -> bool:
    return facts.expires_at_ms is not None and facts.expires_at_ms <= now_ms


def last(found: Sequence[RetentionFacts], rule: RetentionRule, now_ms: int) -> list[RetentionFacts]:
    """The last N of those whose time is not over."""
    counted = [facts for facts in found if not is_over(facts, now_ms)]
    return sorted(counted, key=lambda facts: -facts.number)[: rule.keep_last]


def best(found: Sequence[RetentionFacts], rule: RetentionRule, now_ms: int) -> list[RetentionFacts]:
    """The best K of those whose time is not over, the best first: newer before older, and without a number last."""
    sign = 1 if rule.best_is_smallest else -1
    counted = sorted((facts for facts in found if not is_over(facts, now_ms)), key=lambda facts: -facts.number)
    valued = sorted(
        (facts for facts in counted if facts.value is not None), key=lambda facts: sign * (facts.value or 0)
    )
    return [*valued, *(facts for facts in counted if facts.value is None)][: rule.keep_best]


def ranks_of(found: Sequence[RetentionFacts], rule: RetentionRule, now_ms: int) -> Ranks:
    """Where the last N and the best K end."""
    newest, finest = last(found, rule, now_ms), best(found, rule, now_ms)
    return Ranks(
        newest[-1].number if rule.keep_last and len(newest) == rule.keep_last else None,
        (finest[-1].value, finest[-1].number) if rule.keep_best and len(finest) == rule.keep_best else None,
    )


def going(found: Sequence[RetentionFacts], rule: RetentionRule | None, now_ms: int) -> set[int]:
    """The numbers of those that go."""
    gone = set()
    for facts in found:
        in_use = bool(facts.alias) or facts.is_linked
        kept = rule is None or (
            rule.keep_all
            or facts in last(found, rule, now_ms)
            or facts in best(found, rule, now_ms)
            or (rule.keep_days > 0 and facts.created_at_ms > now_ms - rule.keep_days * DAY_MS)
            or bool(facts.tag)
        )
        if not in_use and (is_over(facts, now_ms) or not kept):
            gone.add(facts.number)
    return gone
