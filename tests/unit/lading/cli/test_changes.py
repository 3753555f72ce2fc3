"""What an event changed, in a few words."""

from __future__ import annotations

from typing import Any

import pytest

from lading._cli.changes import change_text
from tests.unit.lading.cli import values


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("alias.set", {"after": {"alias": "best", "number": 5}}, "best: none -> v5"),
        (
            "alias.set",
            {"before": {"alias": "best", "number": 3}, "after": {"alias": "best", "number": 5}},
            "best: v3 -> v5",
        ),
        ("alias.removed", {"before": {"alias": "best", "number": 3}}, "best: v3 -> none"),
        (
            "version.committed",
            {"after": {"number": 3, "file_count": 1, "size_bytes": 2000}, "run_id": "r7", "version_uid": "00"},
            "v3, 1 file, 2.0 kB, run r7",
        ),
        ("version.linked", {"after": {"number": 1, "source": "vision/digits:v3"}}, "v1, a link to vision/digits:v3"),
        ("version.deleted", {"before": {"number": 3, "tree_digest": "b3:00"}}, "v3"),
        ("version.updated", {"before": {"tags": []}, "after": {"tags": ["ok"]}}, 'tags: [] -> ["ok"]'),
        (
            "version.deleted",
            {
                "before": {"number": 3, "tree_digest": "b3:00"},
                "after": {"why": "retention: no part of the rule keeps it"},
            },
            "v3, retention: no part of the rule keeps it",
        ),
        (
            "version.updated",
            {"before": {"expires_at_ms": None}, "after": {"expires_at_ms": 1_769_860_800_000}},
            "expires: none -> 2026-01-31 12:00:00Z",
        ),
        (
            "retention_rule.set",
            {
                "before": {"keep_all": True, "default_ttl_seconds": 5400},
                "after": {
                    "keep_last": 5,
                    "keep_best": 3,
                    "best_key": "loss",
                    "best_is_smallest": True,
                    "keep_days": 30,
                    "keep_tags": ["gold"],
                },
            },
            "all, new ones for 90m -> last 5, best 3 by metadata.loss (min), 30 days, tag gold",
        ),
        ("retention_rule.deleted", {"before": {"keep_last": 5}}, "last 5 -> none"),
        ("collection.created", {"after": {"type": "model", "tags": []}}, "type model"),
        ("project.created", {"after": {"name": "vision"}}, "name vision"),
        ("run.ended", {"before": {"state": "running"}, "after": {"state": "failed"}}, "state: running -> failed"),
        (
            "alias_rule.set",
            {"after": {"alias": "prod", "protected": True, "required_tags": ["ok"], "required_metadata": ["a.b"]}},
            "prod: none -> admins only, tag ok, metadata a.b",
        ),
        (
            "alias_rule.deleted",
            {"before": {"alias": "prod", "protected": False, "required_tags": [], "required_metadata": []}},
            "prod: anything -> none",
        ),
        ("version.used", {"run_id": "r7", "version_uid": "00"}, "run r7"),
    ],
)
def test_a_change_is_told_in_a_few_words(kind: str, fields: dict[str, Any], text: str) -> None:
    assert change_text(values.event(kind, **fields)) == text


def test_a_long_card_is_cut() -> None:
    told = change_text(values.event("version.updated", before={"description": "a"}, after={"description": "b" * 900}))
    assert told == f"description: a -> {'b' * 39}…"
