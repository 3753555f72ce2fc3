"""What must be true of which versions stay, whatever the collection and the rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_server.registry.domain.retention_plan import judge
from lading_server.registry.store.rows import Ranks, RetentionFacts, RetentionRule
from tests.support.retention import DAY_MS, best, going, is_over, last, ranks_of

NOW_MS = 1_800_000_000_000
TAGS = ("release", "gold")

_numbers = st.floats(allow_nan=False, allow_infinity=False)
# Few values, so that there are ties.
_values = st.none() | st.sampled_from([0.0, -0.0, 0.5, 1.0]) | _numbers
_ages = st.integers(0, 40).map(lambda half_days: NOW_MS - half_days * DAY_MS // 2)


@st.composite
def collections(draw: st.DrawFn) -> list[RetentionFacts]:
    """Versions with holes in their numbers, as rules see them that compare values and look for TAGS."""
    numbers = draw(st.sets(st.integers(0, 60), max_size=25))
    return [
        RetentionFacts(
            id=number + 100,
            uid=number.to_bytes(16, "big"),
            number=number,
            size_bytes=draw(st.integers(0, 9)),
            created_at_ms=draw(_ages),
            expires_at_ms=draw(st.none() | st.integers(NOW_MS - 2, NOW_MS + 2)),
            value=draw(_values),
            tag=draw(st.sampled_from(["", "", "gold"])),
            alias=draw(st.sampled_from(["", "", "", "best"])),
            is_linked=draw(st.sampled_from([False, False, True])),
        )
        for number in sorted(numbers)
    ]


@st.composite
def rules(draw: st.DrawFn) -> RetentionRule:
    """Rules with parts that are there or not; at least one is."""
    best_of = draw(st.integers(0, 6))
    rule = RetentionRule(
        "vision",
        "digits",
        keep_last=draw(st.integers(0, 6)),
        keep_best=best_of,
        best_key="accuracy" if best_of else "",
        best_is_smallest=bool(best_of) and draw(st.booleans()),
        keep_days=draw(st.sampled_from([0, 0, 1, 10])),
        keep_tags=draw(st.sampled_from([(), TAGS])),
    )
    return rule if any((rule.keep_last, best_of, rule.keep_days, rule.keep_tags)) else rule._replace(keep_last=1)


def seen(found: Sequence[RetentionFacts], rule: RetentionRule) -> list[RetentionFacts]:
    """What of the facts is read for a rule."""
    return [
        facts._replace(
            value=facts.value if rule.keep_best else None, tag=facts.tag if facts.tag in rule.keep_tags else ""
        )
        for facts in found
    ]


def judged(found: Sequence[RetentionFacts], rule: RetentionRule) -> set[int]:
    """The numbers of those that go, by the function of the server."""
    found = seen(found, rule)
    ranks = ranks_of(found, rule, NOW_MS)
    return {facts.number for facts in found if judge(facts, rule, ranks, NOW_MS).goes}


@given(collections(), rules())
def test_it_goes_what_plain_words_say(found: list[RetentionFacts], rule: RetentionRule) -> None:
    assert judged(found, rule) == going(seen(found, rule), rule, NOW_MS)


@given(collections(), rules())
def test_what_is_in_use_never_goes(found: list[RetentionFacts], rule: RetentionRule) -> None:
    used = {facts.number for facts in found if facts.alias or facts.is_linked}
    assert judged(found, rule) & used == set()


@given(collections(), rules())
def test_exactly_the_last_and_the_best_stay_where_a_rule_has_no_other_parts(
    found: list[RetentionFacts], rule: RetentionRule
) -> None:
    rule = rule._replace(keep_days=0, keep_tags=(), keep_last=rule.keep_last or 1)
    found = [facts._replace(alias="", is_linked=False) for facts in found]
    stays = {facts.number for facts in found} - judged(found, rule)
    meant = {facts.number for facts in (*last(found, rule, NOW_MS), *best(seen(found, rule), rule, NOW_MS))}
    assert stays == meant


@given(collections(), rules())
def test_what_was_applied_once_finds_nothing_again(found: list[RetentionFacts], rule: RetentionRule) -> None:
    gone = judged(found, rule)
    assert judged([facts for facts in found if facts.number not in gone], rule) == set()


@given(collections(), rules(), rules())
def test_another_part_never_has_more_versions_go(
    found: list[RetentionFacts], rule: RetentionRule, other: RetentionRule
) -> None:
    more = rule._replace(
        keep_last=max(rule.keep_last, other.keep_last),
        keep_days=max(rule.keep_days, other.keep_days),
        keep_tags=rule.keep_tags or other.keep_tags,
        keep_all=other.keep_last == 6,
    )
    if rule.keep_best:
        more = more._replace(keep_best=max(rule.keep_best, other.keep_best))
    else:
        more = more._replace(
            keep_best=other.keep_best, best_key=other.best_key, best_is_smallest=other.best_is_smallest
        )
    assert judged(found, more) <= judged(found, rule)


@given(collections(), rules())
def test_a_time_that_is_over_is_over_whatever_the_rule_keeps(found: list[RetentionFacts], rule: RetentionRule) -> None:
    over = {facts.number for facts in found if is_over(facts, NOW_MS) and not facts.alias and not facts.is_linked}
    assert over <= judged(found, rule._replace(keep_all=True))
    assert over == judged(found, rule._replace(keep_all=True))


def facts(number: int = 3, **more: object) -> RetentionFacts:
    dull = RetentionFacts(id=1, uid=b"u" * 16, number=number, size_bytes=9, created_at_ms=0, expires_at_ms=None)
    return dull._replace(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (facts(), "no part of the rule keeps it"),
        (facts(expires_at_ms=1_767_225_600_000), "its time to live was over at 2026-01-01 00:00:00Z"),
    ],
)
def test_what_goes_has_a_reason(version: RetentionFacts, why: str) -> None:
    rule = RetentionRule("vision", "digits", keep_last=2)
    assert judge(version, rule, Ranks(last_number=9), NOW_MS) == (True, why)


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (facts(alias="best", is_linked=True), "alias best; a link points at it"),
        (
            facts(alias="best", expires_at_ms=1_767_225_600_000),
            "alias best; its time to live was over at 2026-01-01 00:00:00Z",
        ),
        (facts(number=9), "one of the last 2"),
        (facts(value=0.93), "one of the best 3 (0.93)"),
        (facts(created_at_ms=NOW_MS - DAY_MS), "younger than 30 days"),
        (facts(tag="gold"), "tag gold"),
    ],
)
def test_what_stays_has_every_reason(version: RetentionFacts, why: str) -> None:
    rule = RetentionRule("vision", "digits", 2, 3, "accuracy", keep_days=30, keep_tags=("gold",))
    assert judge(version, rule, Ranks(9, (0.9, 5)), NOW_MS) == (False, why)


def test_without_a_rule_a_version_stays_until_its_time_is_over() -> None:
    assert judge(facts(), None, Ranks(), NOW_MS) == (False, "no rule counts for it")
    assert judge(facts(expires_at_ms=NOW_MS), None, Ranks(), NOW_MS).goes
    assert not judge(facts(expires_at_ms=NOW_MS + 1), None, Ranks(), NOW_MS).goes
