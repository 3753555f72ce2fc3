"""Which versions stay, and why. Pure: what a simulation tells and what deletes go by the same function.

tests/unit/lading_server/registry/domain/test_retention_plan.py has what must be true of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from lading_server.registry.store.rows import Ranks, RetentionFacts, RetentionRule

DAY_MS = 86_400_000

BestRank = tuple[bool, float, int]
"""Sorts versions by how good they are; the largest is the best."""


class Verdict(NamedTuple):
    """What becomes of a version, and why, in words."""

    goes: bool
    why: str


def judge(facts: RetentionFacts, rule: RetentionRule | None, ranks: Ranks, now_ms: int) -> Verdict:
    """Return whether a live version goes.

    Args:
        rule: The one that counts for its collection; None where none does, and then only its time counts.
        ranks: Where the last N and the best K of its collection end, by the same rule and moment.
        now_ms: The moment.
    """
    uses = _uses(facts)
    if facts.expires_at_ms is not None and facts.expires_at_ms <= now_ms:
        over = f"its time to live was over at {_time(facts.expires_at_ms)}"
        # It counts for no rank, and what else a rule says does not lengthen its time.
        return Verdict(False, "; ".join([*uses, over])) if uses else Verdict(True, over)
    reasons = [*uses, *(_kept_by(facts, rule, ranks, now_ms) if rule is not None else ["no rule counts for it"])]
    return Verdict(False, "; ".join(reasons)) if reasons else Verdict(True, "no part of the rule keeps it")


def best_rank(value: float | None, number: int, *, is_smallest: bool) -> BestRank:
    """Return how good a version is. What has no number comes last, and of equal ones the newer one is better."""
    if value is None:
        return False, 0.0, number
    return True, -value if is_smallest else value, number


def _uses(facts: RetentionFacts) -> list[str]:
    return [f"alias {facts.alias}"] * bool(facts.alias) + ["a link points at it"] * facts.is_linked


def _kept_by(facts: RetentionFacts, rule: RetentionRule, ranks: Ranks, now_ms: int) -> list[str]:
    """Return what each part of a rule that keeps a version says."""
    reasons = []
    if rule.keep_all:
        reasons.append("the rule keeps all")
    if rule.keep_last and (ranks.last_number is None or facts.number >= ranks.last_number):
        reasons.append(f"one of the last {rule.keep_last:,}")
    if rule.keep_best and _is_among_best(facts, rule, ranks):
        shown = "none" if facts.value is None else f"{facts.value:g}"
        reasons.append(f"one of the best {rule.keep_best:,} ({shown})")
    if rule.keep_days and now_ms - facts.created_at_ms < rule.keep_days * DAY_MS:
        reasons.append(f"younger than {rule.keep_days:,} days")
    if facts.tag:
        reasons.append(f"tag {facts.tag}")
    return reasons


def _is_among_best(facts: RetentionFacts, rule: RetentionRule, ranks: Ranks) -> bool:
    if ranks.best is None:
        return True
    worst = best_rank(*ranks.best, is_smallest=rule.best_is_smallest)
    return best_rank(facts.value, facts.number, is_smallest=rule.best_is_smallest) >= worst


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S}Z"
